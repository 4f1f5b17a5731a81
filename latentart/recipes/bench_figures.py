"""What every `latentart bench` yields: measured numbers beside the bar they should reach."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Figure:
    """One measured number: ``bar`` is what it should reach, ``is_met`` whether it does, None where there is no bar."""

    name: str
    value: str
    bar: str = ""
    is_met: bool | None = None


def seconds_of(work: Callable[[], object]) -> float:
    """Return how long a piece of work takes."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began
