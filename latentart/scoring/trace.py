"""A run's ``metrics.jsonl`` read again, in bounded memory and time, whatever lies in it."""

from __future__ import annotations

import errno
import json
import math
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import Any

MAX_LINES = 4000  # of steps that are parsed, in a fraction of a second
MAX_LINE_BYTES = 2**20
MAX_POINTS = 1000  # that are left of a trace
SAMPLED_BYTES = 64 * 2**10


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
        if self.path.exists() and not self.path.is_file():
            raise IsADirectoryError(errno.EISDIR, "it is no file", str(self.path))  # a named pipe would keep us waiting
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
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(entry, dict):
        return None
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
