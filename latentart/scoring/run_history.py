"""What a run's metrics tell, read line by line: traces for charts, and what a verdict rests on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from latentart.kinds import ModelPart
from latentart.scoring.trace import MetricsReader, Trace, read_number
from latentart.scoring.verdict import KINDS, History, Verdict

What = ModelPart

METRICS = "metrics.jsonl"
# of each network, what its verdict goes by
TRAINING_LOSS = {"denoiser": "loss", "autoencoder": "reconstruction"}
HELD_OUT_LOSS = {"denoiser": "held_out_loss", "autoencoder": "held_out_reconstruction"}
MAX_NAMES = 200  # of different numbers; a sound run has some 40
MAX_VERDICTS = 1000


@dataclass(frozen=True)
class Said:
    """A verdict at a step."""

    step: int
    verdict: Verdict


class RunHistory:
    """A run's numbers so far; ``read`` takes in what has been written since.

    Attributes:
        traces: every number of the whole run. stages: the first step of each stage.
        fixed: the newest of those that are no series. said: verdicts.
    """

    def __init__(self, run: Path, what: What) -> None:
        self.what = what
        self.reader = MetricsReader(run / METRICS)
        self.traces: dict[str, Trace] = {}
        self._stage_starts: dict[str, int] = {}
        self.stages: dict[str, int] = {}
        self.fixed: dict[str, float] = {}
        self.said: list[Said] = []
        self.first_step, self.last_step = 0, 0
        self.seconds, self._time = 0.0, None

    _time: float | None

    def read(self) -> None:
        """Take in the lines that are new."""
        for entry in self.reader.read():
            self._take(entry)

    def _take(self, entry: dict[str, Any]) -> None:
        step, stage = entry["step"], entry.get("stage")
        if isinstance(stage, str) and stage not in self.stages:
            self.first_step = self.last_step
            self.stages[stage] = step
            self._stage_starts = {name: len(trace) for name, trace in self.traces.items()}
        self.last_step = max(self.last_step, step)
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
        """Add up the time between lines; a gap of more than ten times the usual is a pause between two calls."""
        if now is None:
            return
        if self._time is not None and now - self._time > 0:
            gap = now - self._time
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
            training=series(TRAINING_LOSS[self.what]),
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
