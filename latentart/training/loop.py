"""The one loop of both trainings: a generator of step reports; the recipe says what happens once in a while."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol, TypeVar

from torch import Tensor

Batch = TypeVar("Batch")
BatchIn = TypeVar("BatchIn", contravariant=True)


class Step(Protocol[BatchIn]):
    """One optimizer update: owns networks and optimizers."""

    def __call__(self, batch: BatchIn, step: int, lr: float) -> dict[str, Tensor]:
        """Make update ``step`` (from 0) and return its scalars, still on the device."""
        ...


@dataclass(frozen=True)
class StepReport:
    """What happened in one step.

    Attributes:
        step: updates made so far, so the first report has 1.
        images_seen: step × batch size.
        scalars: named values on the device; reading one waits for the device.
        lr: the learning rate of this update.
        seconds: wall time of the step with its data. data_seconds: the part spent waiting for data.
    """

    step: int
    images_seen: int
    scalars: dict[str, Tensor]
    lr: float
    seconds: float
    data_seconds: float


def train(
    step_fn: Step[Batch],
    batches: Iterator[Batch],
    rate: Callable[[int], float],
    *,
    first_step: int,
    last_step: int,
    batch_size: int,
) -> Iterator[StepReport]:
    """Make the updates ``first_step`` … ``last_step - 1`` and report each; stop by leaving the iterator."""
    for step in range(first_step, last_step):
        began = time.perf_counter()
        batch = next(batches)
        ready = time.perf_counter()
        lr = rate(step)
        scalars = step_fn(batch, step, lr)
        seconds = time.perf_counter() - began
        yield StepReport(step + 1, (step + 1) * batch_size, scalars, lr, seconds, ready - began)
