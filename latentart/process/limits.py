"""How long one call of a training may last: it then stops with a saved checkpoint, and the next call goes on."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Literal


class Limits:
    """Counts the steps of a call and its seconds from now on; None is no limit."""

    def __init__(
        self,
        max_seconds: float | None = None,
        max_steps: int | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.max_seconds, self.max_steps, self.clock = max_seconds, max_steps, clock
        self._began, self._steps = clock(), 0

    def count_step(self) -> None:
        """Count one update."""
        self._steps += 1

    def reached(self) -> Literal["time", "steps"] | None:
        """Return which limit is reached, if one is."""
        if self.max_steps is not None and self._steps >= self.max_steps:
            return "steps"
        if self.max_seconds is not None and self.clock() - self._began >= self.max_seconds:
            return "time"
        return None
