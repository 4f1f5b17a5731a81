"""What every `latentart bench` yields: measured numbers beside the bar they should reach."""

from __future__ import annotations

import os
import shlex
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from latentart.process.devices import Placement


@dataclass(frozen=True)
class Figure:
    """One measured number: ``bar`` is what it should reach, ``is_met`` whether it does, None where there is no bar.

    Attributes:
        value: for people. number: the same for programs, in ``unit``; ours, where others are measured beside it.
        numbers: those of all contenders by name, in the same unit; else further numbers, each by its unit.
    """

    name: str
    value: str
    bar: str = ""
    is_met: bool | None = None
    number: float | None = None
    unit: str = ""
    numbers: Mapping[str, float] = field(default_factory=dict)


def describe_bench(placement: Placement) -> dict[str, Any]:
    """Return what figures were measured by and on: command, time, versions, device, precision, cores and threads."""
    from latentart.training.run import describe_machine  # here, as processes that bench data starts import this module

    machine = describe_machine()
    return {
        "command": shlex.join(machine.pop("arguments")),
        "date": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "device": str(placement.device),
        "precision": placement.precision,
        "cores": os.cpu_count(),
        **machine,
    }


def seconds_of(work: Callable[[], object]) -> float:
    """Return how long a piece of work takes."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def time_in_turns(works: Sequence[Callable[[], object]], rounds: int) -> list[list[float]]:
    """Return each work's seconds in each round; every work is done once before any is done again."""
    turns = [[seconds_of(work) for work in works] for _ in range(rounds)]
    return [list(seconds) for seconds in zip(*turns, strict=True)]
