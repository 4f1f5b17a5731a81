"""What is measured beside other systems: numbers for people and for programs. The bars stand in the tests."""

from __future__ import annotations

import os
import shlex
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from latentart.process.devices import Placement


@dataclass(frozen=True)
class Figure:
    """One measured number.

    Attributes:
        value: for people. number: the same for programs, in ``unit``; ours, where others are measured beside it.
        numbers: those of all contenders by name, in the same unit; else further numbers, each by its unit.
    """

    name: str
    value: str
    number: float = float("nan")
    unit: str = ""
    numbers: Mapping[str, float] = field(default_factory=dict)


def describe_bench(placement: Placement) -> dict[str, Any]:
    """Return what figures were measured by and on: command, time, versions, device, precision, cores and threads."""
    from latentart.training.run import describe_machine  # here, as processes that clean pictures import this module

    machine = describe_machine()
    return {
        "command": shlex.join(machine.pop("arguments")),
        "date": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "device": str(placement.device),
        "precision": placement.precision,
        "cores": os.cpu_count(),
        **machine,
    }
