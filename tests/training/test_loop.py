"""The loop: which steps it makes, what it reports, and that nothing happens after its caller leaves."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

import torch
from torch import Tensor

from latentart.training.loop import train


class Recorder:
    """A step that remembers its arguments."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, int, float]] = []

    def __call__(self, batch: str, step: int, lr: float) -> dict[str, Tensor]:
        """Remember."""
        self.calls.append((batch, step, lr))
        return {"loss": torch.tensor(float(step))}


def letters() -> Iterator[str]:
    """Yield batches."""
    yield from "abcdefgh"


def test_each_step_takes_the_next_batch_and_its_own_rate() -> None:
    """From first_step up to, not including, last_step."""
    step = Recorder()

    reports = list(train(step, letters(), lambda n: n / 10, first_step=3, last_step=6, batch_size=4))

    assert step.calls == [("a", 3, 0.3), ("b", 4, 0.4), ("c", 5, 0.5)]
    assert [(r.step, r.images_seen, r.lr, float(r.scalars["loss"])) for r in reports] == [
        (4, 16, 0.3, 3.0),
        (5, 20, 0.4, 4.0),
        (6, 24, 0.5, 5.0),
    ]
    assert all(0 <= r.data_seconds <= r.seconds for r in reports)


def test_a_finished_run_makes_no_step() -> None:
    """Nor does it ask for a batch."""
    batches = letters()

    assert list(train(Recorder(), batches, float, first_step=5, last_step=5, batch_size=1)) == []
    assert next(batches) == "a"


def test_leaving_the_iterator_stops_the_training() -> None:
    """No update is made beyond the report at which the caller left, and no batch is taken."""
    step, batches = Recorder(), letters()

    list(islice(train(step, batches, float, first_step=0, last_step=8, batch_size=1), 2))

    assert len(step.calls) == 2
    assert next(batches) == "c"
