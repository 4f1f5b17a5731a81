"""The loop: which steps it makes, what it reports and saves, and that nothing happens after its caller leaves."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from latentart.errors import StoppedBySignal
from latentart.process.limits import Limits
from latentart.storage.checkpoints import list_checkpoints, load_checkpoint, step_of
from latentart.training.job import Job, Start
from latentart.training.log import RunLog
from latentart.training.loop import Moment, Pause, keep_run, train
from latentart.training.steps.numbers import Numbers


class Recorder:
    """A step that remembers its arguments."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, int, float]] = []
        self.numbers, self.notes = Numbers(), ["begun"]

    def means(self) -> dict[str, float | None]:
        """Return how many updates were made."""
        return {"calls": float(len(self.calls))}

    def state(self) -> tuple[dict[str, dict[str, Tensor]], dict[str, Any]]:
        """Return the same count as a tensor."""
        return {"network": {"calls": torch.tensor(len(self.calls))}}, {"numbers": self.numbers.state()}

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


@dataclass(frozen=True)
class EveryThird:
    """A line of the log at every second step of the run, a checkpoint at every third."""

    log_every: int = 2
    keep_checkpoints: int = 9

    def is_checkpoint_due(self, step: int) -> bool:
        """Tell whether it is a third one."""
        return step % 3 == 0

    def milestones(self, first: int, last: int) -> range:
        """Return none."""
        return range(last, first)


def build_job(step_fn: Recorder, stage: str | None = None) -> Job[str]:
    """Return a training of eight steps."""
    return Job(
        step_fn=step_fn,
        num_steps=8,
        batch_size=2,
        rate=float,
        load=lambda steps: iter("abcdefgh"[steps.start : steps.stop]),
        pace=EveryThird(),
        saved={"data": "all"},
        stage=stage,
    )


def test_a_job_is_logged_and_saved_in_the_steps_of_its_run(tmp_path: Path) -> None:
    """From its own step on; the last step is logged and saved whatever it is, and the stage is done then."""
    step, start = Recorder(), Start(first=2, base=10, done={"l1": 10})

    with keep_run(tmp_path, build_job(step, "hires"), start, RunLog(tmp_path), Limits(), quiet=True) as keeper:
        moments = [(moment, keeper.save_if_due(moment)) for moment in keeper.steps()]

    assert [call[:2] for call in step.calls] == list(zip("cdefgh", range(2, 8), strict=True))
    assert moments[0] == (Moment(step=13, own=3, is_last=False), False)
    assert [moment.step for moment, is_saved in moments if is_saved] == [15, 18]
    assert moments[-1][0].is_last
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [(line["step"], line["calls"], line["stage"]) for line in lines] == [
        (14, 2.0, "hires"),
        (16, 4.0, "hires"),
        (18, 6.0, "hires"),
    ]
    assert "step 13: begun" in (tmp_path / "log.txt").read_text()
    states = [load_checkpoint(folder).state for folder in list_checkpoints(tmp_path)]
    assert [(state["step"], state["stage_step"], state["data"]) for state in states] == [(15, 5, "all"), (18, 8, "all")]
    assert [state["stages_done"] for state in states] == [{"l1": 10}, {"l1": 10, "hires": 18}]


def test_a_limit_ends_the_steps_with_what_is_saved(tmp_path: Path) -> None:
    """No further update is made, and what else is done at the step is done before."""
    step, seen = Recorder(), list[int]()

    with keep_run(tmp_path, build_job(step), Start(), RunLog(tmp_path), Limits(max_steps=2), quiet=True) as keeper:
        for moment in keeper.steps():
            keeper.save_if_due(moment)
            seen.append(moment.step)

    assert keeper.pause == Pause(2, "steps")
    assert (seen, len(step.calls)) == ([1, 2], 2)
    assert [step_of(folder) for folder in list_checkpoints(tmp_path)] == [2]


def test_a_signal_ends_the_steps_and_says_so(tmp_path: Path) -> None:
    """The step at hand is saved first; one that comes amid the step counts with it."""

    def run() -> None:
        with keep_run(tmp_path, build_job(Recorder()), Start(), RunLog(tmp_path), Limits(), quiet=True) as keeper:
            for moment in keeper.steps():
                keeper.save_if_due(moment)
                if moment.step == 3:
                    os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(StoppedBySignal, match=f"step 4 is saved in {tmp_path}"):
        run()

    assert [step_of(folder) for folder in list_checkpoints(tmp_path)] == [3, 4]
    assert "ended: stopped by a signal" in (tmp_path / "log.txt").read_text()
