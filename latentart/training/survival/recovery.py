"""A run whose numbers are lost goes back once, with a lower rate; if that is no help it ends and says what it saw."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol, TypeVar

from latentart.errors import ModelError, ResourceError, TrainingDivergedError
from latentart.process.distributed import read_ranks, wait_for_all
from latentart.storage.checkpoints import Checkpoint, find_checkpoint, list_checkpoints, step_of
from latentart.storage.folders import read_json, write_json_atomic
from latentart.storage.old_checkpoints import set_aside_later
from latentart.training.job import Job
from latentart.training.log import RunLog
from latentart.training.steps.numbers import LOWER_RATE, RATE_FACTOR, LostNumbersError, Numbers

AJob = TypeVar("AJob", bound=Job[Any])
Result = TypeVar("Result", covariant=True)

REPORT, REPORT_PASSED = "diverged.json", "diverged-passed.json"


class Training(Protocol[Result]):
    """A job in its run, from where it stands to its end."""

    def train(self, checkpoint: Checkpoint | None) -> Result:
        """Train to the end, going on from a checkpoint."""
        ...


def train_or_go_back(
    run: Path, build: Callable[[], AJob], prepare: Callable[[AJob], Training[Result]], checkpoint: Checkpoint | None
) -> Result:
    """Train; where too many updates in a row were left out, go back once to what was sound, at half the rate.

    ``build`` makes a job with fresh weights, ``prepare`` what trains it. Many processes leave out the same updates and
    go back alike; the first alone writes.

    Raises:
        TrainingDivergedError: that was no help; ``diverged.json`` in the run says what was seen.
    """
    has_gone_back, is_first = False, read_ranks().is_first
    while True:
        job = build()
        numbers = job.step_fn.numbers
        if has_gone_back:
            numbers.go_back()
        try:
            result = prepare(job).train(checkpoint)
            if is_first:
                _set_report_aside(run)
            return result
        except TrainingDivergedError as error:
            if numbers.has_gone_back:
                error = _ended(run, error, numbers) if is_first else error
                wait_for_all()
                raise error from None
        del job  # out of the handler, whose traceback keeps the networks: the new ones need their room
        wait_for_all()  # for the last checkpoint that the first process was writing
        checkpoint, has_gone_back = find_sound_checkpoint(run, checkpoint), True
        wait_for_all()
        if not is_first:
            continue
        set_aside_later(run, checkpoint.step if checkpoint else 0)  # a crash from here on must not go on from those
        where = f"step {checkpoint.step}" if checkpoint else "the start"
        RunLog(run).note(f"the run goes back to {where} and on from there with {RATE_FACTOR:g} times the learning rate")


def find_sound_checkpoint(run: Path, start: Checkpoint | None) -> Checkpoint | None:
    """Return the newest checkpoint later than ``start`` whose last update was made and which verifies, else ``start``.

    Weights that are finite may still give numbers that are not: what was saved amid updates left out is no help.

    Raises:
        NewerFormatError: a later version wrote one of them.
    """

    def is_sound(found: Checkpoint) -> bool:
        return found.state["optimizers"].get("numbers", {}).get("in_a_row", 0) == 0

    return find_checkpoint(run, is_sound, after=start.step if start else 0) or start


def _ended(run: Path, error: TrainingDivergedError, numbers: Numbers) -> TrainingDivergedError:
    evidence = error.evidence if isinstance(error, LostNumbersError) else numbers.evidence()
    path = run / REPORT
    saved = [step_of(folder) for folder in list_checkpoints(run)]
    write_json_atomic(path, _to_json({"message": error.message, "saved": max(saved, default=0), **evidence}))
    msg = f"{error.message} To go back and lower the rate was no help; {path} says more."
    return TrainingDivergedError(msg, LOWER_RATE)


def _set_report_aside(run: Path) -> None:
    """Rename the report of a divergence that the run has passed since."""
    path = run / REPORT
    if not path.is_file():
        return
    with contextlib.suppress(ModelError, ResourceError, OSError):  # it is in nobody's way
        found = read_json(path)
        passed = max(found.get("step", 0), found.get("saved", 0) + 1) if isinstance(found, dict) else 0
        if any(step_of(folder) >= passed for folder in list_checkpoints(run)):
            path.replace(run / REPORT_PASSED)


def _to_json(value: Any) -> Any:
    """Return a value with numbers that JSON has no word for as text."""
    if isinstance(value, Mapping):
        return {name: _to_json(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_to_json(item) for item in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value
