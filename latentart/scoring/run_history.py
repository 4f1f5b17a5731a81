"""A run's ``metrics.jsonl`` read again, in bounded memory and time: traces for charts, and what a verdict rests on."""

from __future__ import annotations

import math
import re
from array import array
from bisect import bisect_right
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from latentart.kinds import ModelPart
from latentart.scoring.evidence import KINDS, History, Verdict
from latentart.storage.json_files import object_in
from latentart.storage.whole import require_file

METRICS, LOG = "metrics.jsonl", "log.txt"
# of each network, what its verdict goes by: of the training and of held-out pictures the same measure
TRAINING_LOSS = {"denoiser": "plain_loss", "autoencoder": "reconstruction"}
HELD_OUT_LOSS = {"denoiser": "held_out_loss", "autoencoder": "held_out_reconstruction"}
MAX_NAMES = 200  # of different numbers; a sound run has some 40
MAX_VERDICTS = 1000
MAX_LINES = 4000  # of steps that are parsed, in a fraction of a second
MAX_LINE_BYTES = 2**20
MAX_TEXT_BYTES = 200_000  # of a log
MAX_POINTS = 1000  # that are left of a trace
SAMPLED_BYTES = 64 * 2**10
BEGIN = re.compile(r"^(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d[+-]\d\d:\d\d) (?:denoiser|stage \S+): steps ", re.MULTILINE)


class MetricsReader:
    """Reads the whole lines of a file that others append to; each call goes on where the one before it ended.

    Of a file with more than ``max_lines`` lines the ordinary ones, those of steps, are read only in part, evenly;
    those that come once in a while, and those with a loss that is not finite, are all read. ``stride`` is then over 1.
    """

    def __init__(self, path: Path, max_lines: int = MAX_LINES) -> None:
        self.path, self.max_lines = path, max_lines
        self.stride, self.torn = 1, 0
        self._place, self._count = 0, 0

    def read(self) -> Iterator[dict[str, Any]]:
        """Yield the new lines that hold an object with a step; others are counted in ``torn``.

        Raises:
            OSError: it cannot be read; one that is not there has no lines.
        """
        require_file(self.path)
        try:
            with self.path.open("rb") as file:
                size = file.seek(0, 2)
                self.stride = max(1, size // max(1, self.max_lines * self._line_bytes(file)))
                if self._place > size:  # it was cut, for a run went back
                    self._place = 0
                file.seek(self._place)
                while line := file.readline(MAX_LINE_BYTES):
                    if not line.endswith(b"\n"):
                        if len(line) < MAX_LINE_BYTES:
                            break  # being written
                        self.torn += 1
                    self._place += len(line)
                    is_ordinary = b'"loss"' in line and b'"loss": null' not in line
                    self._count += is_ordinary
                    if is_ordinary and self._count % self.stride:
                        continue
                    if (entry := parse_line(line)) is not None:
                        yield entry
                    else:
                        self.torn += 1
        except FileNotFoundError:
            return

    @staticmethod
    def _line_bytes(file: Any) -> int:
        """Return the mean length of the first lines."""
        file.seek(0)
        start = file.read(SAMPLED_BYTES)
        return max(1, len(start) // max(1, start.count(b"\n")))


def parse_line(line: bytes) -> dict[str, Any] | None:
    """Return a line's object, or None where there is none with a step."""
    entry = object_in(line) or {}
    step = entry.get("step")
    return entry if isinstance(step, int) and not isinstance(step, bool) and 0 <= step < 2**53 else None


def read_number(entry: dict[str, Any], name: str) -> float | None:
    """Return a finite number of a line; None where it is missing, not finite, or something else."""
    value = entry.get(name)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    try:
        return float(value) if math.isfinite(value) else None
    except OverflowError:
        return None


def _plain_loss(entry: dict[str, Any]) -> dict[str, float | None]:
    """Return a step's loss without its weights, which runs of before have only by noise; nothing where there is none.

    A step whose own loss was not finite has None: the others since the line before would hide it.
    """
    if "loss" not in entry or not ("plain_loss" in entry or "loss_t0" in entry):
        return {}
    parts = [read_number(entry, name) for name in entry if name.startswith("loss_t")]
    known = [value for value in parts if value is not None]
    derived = sum(known) / len(known) if known else None
    is_sound = read_number(entry, "loss") is not None
    return {
        "plain_loss": (read_number(entry, "plain_loss") if "plain_loss" in entry else derived) if is_sound else None
    }


class Trace:
    """One number over the steps: means without noise, extremes without a lost spike; 16 bytes a value."""

    def __init__(self) -> None:
        self._steps, self._values = array("d"), array("d")

    def add(self, step: int, value: float | None) -> None:
        """Take a value; None is a gap."""
        self._steps.append(step)
        self._values.append(math.nan if value is None else value)

    def __len__(self) -> int:
        """Return the number of values."""
        return len(self._steps)

    def means(self, start: int = 0, most: int = MAX_POINTS) -> list[tuple[int, float | None]]:
        """Return (middle step, mean of the finite values) of at most so many equal parts from a place on."""
        size, found = -(-max(1, len(self) - start) // most), []
        for first in range(start, len(self), size):
            part = self._values[first : first + size]
            known = [value for value in part if not math.isnan(value)]
            step = self._steps[first + (len(part) - 1) // 2]
            found.append((int(step), sum(known) / len(known) if known else None))
        return found

    def values(self) -> tuple[list[float], list[float | None]]:
        """Return the steps and the values; None is a gap."""
        return self._steps.tolist(), [None if math.isnan(value) else value for value in self._values]

    @property
    def last(self) -> float | None:
        """Return the newest value."""
        return self._values[-1] if self._values and not math.isnan(self._values[-1]) else None


@dataclass(frozen=True)
class Said:
    """A verdict at a step."""

    step: int
    verdict: Verdict


def read_end(path: Path) -> str:
    """Return the end of a text file, whatever its bytes are; nothing where there is none."""
    if not path.is_file():  # also keeps us from waiting on a named pipe
        return ""
    try:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(max(0, size - MAX_TEXT_BYTES))
            return file.read().decode("utf-8", "replace")
    except OSError:
        return ""


def call_times(log: str) -> list[float]:
    """Return when the calls began that wrote this text log, or their stages, in seconds since 1970."""
    times: list[float] = []
    for found in BEGIN.finditer(log):
        with suppress(ValueError, OverflowError):  # others may have written there
            times.append(datetime.fromisoformat(found[1]).timestamp())
    return sorted(times)


class RunHistory:
    """A run's numbers so far; ``read`` takes in what has been written since.

    Attributes:
        traces: every number of the whole run. stages: the first step of each stage.
        fixed: the newest of those that are no series. said: verdicts.
    """

    def __init__(self, run: Path, what: ModelPart) -> None:
        self.run, self.what = run, what
        self.reader = MetricsReader(run / METRICS)
        self._calls: list[float] = []  # when they began
        self.traces: dict[str, Trace] = {}
        self._stage_starts: dict[str, int] = {}
        self.stages: dict[str, int] = {}
        self.fixed: dict[str, float] = {}
        self.said: list[Said] = []
        self.first_step, self.last_step = 0, 0
        self.seconds, self.seconds_before, self._time = 0.0, 0.0, None  # in all; in the stages before the present one

    _time: float | None

    def read(self) -> None:
        """Take in the lines that are new."""
        self._calls = call_times(read_end(self.run / LOG))
        for entry in self.reader.read():
            self._take(entry)

    def _take(self, entry: dict[str, Any]) -> None:
        step, stage = entry["step"], entry.get("stage")
        if isinstance(stage, str) and stage not in self.stages:
            self.first_step, self.seconds_before = self.last_step, self.seconds
            self.stages[stage] = step
            self._stage_starts = {name: len(trace) for name, trace in self.traces.items()}
        self.last_step = max(self.last_step, step)
        entry = {**entry, **_plain_loss(entry)}
        for name, value in entry.items():
            if name not in ("step", "time") and (value is None or isinstance(value, (int, float))):
                self._add(name, step, read_number(entry, name))
        self._count_time(read_number(entry, "time"))
        kind = entry.get("verdict")
        if kind in KINDS:
            said = Verdict(kind, str(entry.get("evidence", "")), str(entry.get("advice", "")))
            self.said = [*self.said[-MAX_VERDICTS:], Said(step, said)]

    def _add(self, name: str, step: int, value: float | None) -> None:
        if name not in self.traces and len(self.traces) >= MAX_NAMES:
            return
        self.traces.setdefault(name, Trace()).add(step, value)
        if value is not None:
            self.fixed[name] = value

    def _count_time(self, now: float | None) -> None:
        """Add up the time between lines, without pauses: what is before a call's begin, or over ten times the usual."""
        if now is None:
            return
        if self._time is not None and now - self._time > 0:
            call = self._calls[bisect_right(self._calls, now) - 1] if self._calls else 0.0
            gap = now - (call if self._time < call <= now else self._time)
            usual = self.seconds / max(1, len(self.traces.get("loss", ())) - 1)
            self.seconds += gap if usual == 0 or gap < max(600.0, 10 * usual) else 0.0
        self._time = now

    def to_history(self, num_steps: int) -> History:
        """Return what a verdict rests on: the numbers of the present stage, which alone can be compared."""

        def series(name: str) -> list[tuple[int, float | None]]:
            return self.traces[name].means(self._stage_starts.get(name, 0)) if name in self.traces else []

        return History(
            self.what,
            num_steps,
            begun=self.first_step,
            reached=self.last_step,
            training=series(TRAINING_LOSS[self.what]) or series("loss"),
            held_out=series(HELD_OUT_LOSS[self.what]),
            gradient_norm=series("gradient_norm"),
            skipped=series("skipped_steps"),
            recognition=series("recognition"),
            spread=series("spread"),
            copies=series("copies"),
            samples=int(self.fixed.get("judged_samples", 0)),
            chance=self.fixed.get("recognition_chance"),
            ceiling=self.fixed.get("recognition_real"),
            blank_loss=self.fixed.get("blank_loss"),
        )
