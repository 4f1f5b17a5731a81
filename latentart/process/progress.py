"""Progress of a long loop on stderr: a bar on a terminal, a plain line now and then elsewhere."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable
from datetime import timedelta
from types import TracebackType
from typing import Self, SupportsFloat

import rich.progress
from rich.cells import cell_len, chop_cells
from rich.console import Console
from rich.control import Control
from rich.markup import escape
from rich.segment import ControlType

from latentart.printable import printable

LEAST_BAR = 8  # columns; numbers that would leave it fewer are not shown


class Progress:
    """Shows how far a loop is; ``with Progress("vae", total) as progress: progress.update(step, loss=...)``.

    ``start`` is the step of a resumed run. ``quiet`` shows nothing. ``every`` is the least number of seconds
    between two plain lines; the first and the last step always have one. A stream that is gone is no error.
    """

    def __init__(
        self,
        label: str,
        total: int,
        start: int = 0,
        *,
        quiet: bool = False,
        console: Console | None = None,
        every: float = 10.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._label, self._total, self._start = printable(label), total, start
        self._console = Console(stderr=True, highlight=False) if console is None else console
        self._quiet, self._clock = quiet, clock
        # FORCE_COLOR makes rich take a file for a terminal, so the stream itself is asked too
        stream = self._console.file
        terminal = self._console.is_terminal and stream.isatty() and not self._console.is_dumb_terminal
        self._bar = _build_bar(self._console, clock) if terminal and not quiet else None
        self._drawn = 0  # how long the bar was when it was drawn last, in columns
        self._every = 0.1 if self._bar else every
        self._began, self._shown_at, self._shown_step = 0.0, -math.inf, start
        self._latest: tuple[int, SupportsFloat | None, SupportsFloat | None] = (start, None, None)

    def __enter__(self) -> Self:
        self._began = self._clock()
        if self._bar:
            with contextlib.suppress(OSError):
                self._bar.add_task(escape(self._label), total=self._total, completed=self._start, numbers="")
                self._bar.start()
        return self

    def update(
        self, step: int, *, loss: SupportsFloat | None = None, images_per_second: SupportsFloat | None = None
    ) -> None:
        """Tell that ``step`` of ``total`` is done; tensors are read only when something is shown."""
        self._latest = (step, loss, images_per_second)
        if self._clock() - self._shown_at >= self._every:
            self._show()

    def show(self, done: int, total: int) -> None:
        """Tell that ``done`` of ``total`` is done, where the total is known only on the way."""
        self._total = total
        if self._bar:
            self._bar.update(self._bar.task_ids[0], total=total)
        self.update(done)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._latest[0] != self._shown_step:
            self._show()
        if self._bar:
            with contextlib.suppress(OSError):
                self._bar.stop()

    def _show(self) -> None:
        step, loss, rate = self._latest
        self._shown_at, self._shown_step = self._clock(), step
        if self._quiet:
            return
        numbers = [f"loss {float(loss):.4g}"] if loss is not None else []
        numbers += [f"{float(rate):.1f} images/s"] if rate is not None else []
        with contextlib.suppress(OSError):  # a closed terminal must not stop a run
            if self._bar:
                self._draw(self._bar, step, numbers)
            else:
                share = f"{100 * step // max(self._total, 1)} %"
                parts = [f"{self._label}: step {step}/{self._total} ({share})", *numbers, *self._left(step)]
                self._console.file.write(", ".join(parts) + "\n")
                self._console.file.flush()

    def _draw(self, bar: rich.progress.Progress, step: int, numbers: list[str]) -> None:
        """Draw the bar in one line of the terminal as wide as it is now: what matters least goes first."""
        width = self._console.width
        if self._drawn > width:  # it was made narrower, and has broken the line that was there
            rows = math.ceil(self._drawn / width) - 1
            self._console.control(Control((ControlType.CURSOR_UP, rows), ControlType.CARRIAGE_RETURN))
            self._console.file.write("\x1b[J")
        counted = 2 * len(str(self._total)) + 1
        room = width - 1 - counted - len(" 0:00:00") - 1  # the last column stays free: some terminals break there
        label = self._label if cell_len(self._label) <= room // 2 else chop_cells(self._label, max(room // 2, 1))[0]
        room -= cell_len(label) + 1
        while numbers and len(", ".join(numbers)) + 1 > room - LEAST_BAR:
            numbers = numbers[:-1]
        shown = ", ".join(numbers)
        for column in bar.columns:
            if isinstance(column, rich.progress.BarColumn):
                column.bar_width = max(min(40, room - len(shown) - 1), 1)
        bar.update(bar.task_ids[0], completed=step, description=escape(label), numbers=shown)
        bar.refresh()
        self._drawn = self._console.measure(bar.get_renderable()).maximum

    def _left(self, step: int) -> list[str]:
        """Say how long the rest takes at the speed since the start."""
        if not self._start < step < self._total:
            return []
        seconds = (self._shown_at - self._began) * (self._total - step) / (step - self._start)
        return [f"{timedelta(seconds=round(seconds))} left"]


def _build_bar(console: Console, clock: Callable[[], float]) -> rich.progress.Progress:
    return rich.progress.Progress(
        rich.progress.TextColumn("{task.description}"),
        rich.progress.BarColumn(),
        rich.progress.MofNCompleteColumn(),
        rich.progress.TextColumn("{task.fields[numbers]}"),
        rich.progress.TimeRemainingColumn(),
        console=console,
        auto_refresh=False,  # no thread: we refresh, at most ten times a second
        get_time=clock,
        speed_estimate_period=120.0,
    )
