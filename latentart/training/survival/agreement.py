"""What all processes of a run heed alike: signals, requests and limits that any of them has met by the end of a step.

A handler only sets a flag; the flags are exchanged here, once a step, on the CPU. One process alone asks only itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from latentart.data.loading import prefetch
from latentart.errors import ModelError, StoppedBySignal, TrainingDivergedError
from latentart.process.distributed import read_ranks, wait_for_all
from latentart.process.limits import Limits
from latentart.process.reductions import largest_of_all
from latentart.process.signals import StopSignal
from latentart.training.loop import Step, train
from latentart.training.steps.numbers import Numbers

Batch = TypeVar("Batch")

LIMITS: tuple[Literal["time", "steps"], ...] = ("time", "steps")
PATIENCE = 5.0  # seconds in which a signal may come by two ways


@dataclass(frozen=True)
class Pause:
    """Where a call ended because the time or the steps it was given were used up; its checkpoint is saved."""

    step: int
    limit: Literal["time", "steps"]


def heed_signals() -> StopSignal:
    """Return what remembers signals during a training."""
    return StopSignal(0.0 if read_ranks().is_alone else PATIENCE)


def agree_on_limit(limits: Limits) -> Literal["time", "steps"] | None:
    """Return the limit that one of the processes has reached."""
    return _limit_from(largest_of_all([_number_of(limits.reached())])[0])


class Agreement:
    """How the call stands after the step at hand, as all processes see it; ``is_ending`` tells that it is the last."""

    def __init__(self, stop: StopSignal, limits: Limits) -> None:
        self.stop, self.limits = stop, limits
        self.is_asked = self.is_ending = False
        self.signal = 0
        self.limit: Literal["time", "steps"] | None = None

    def reach(self) -> None:
        """Exchange what came up to now: a signal that comes later is heeded in the next step."""
        flags = [self.stop.received or 0, int(self.stop.take_request()), _number_of(self.limits.reached())]
        self.signal, is_asked, limit = largest_of_all(flags)
        self.is_asked, self.limit = bool(is_asked), _limit_from(limit)
        self.is_ending = bool(self.signal or self.limit)

    def wants_checkpoint(self, *, is_due: bool, is_sound: bool) -> bool:
        """Tell whether the step is saved: on request, at the end of the call, or where it is due and ``is_sound``."""
        return self.is_asked or self.is_ending or (is_sound and is_due)

    def save(self, write: Callable[[], object] | None) -> None:
        """Let the first process ``write``, and all know whether the numbers were such as can be saved.

        Raises:
            TrainingDivergedError: they were not.
        """
        error = None
        try:
            if write is not None:
                write()
        except TrainingDivergedError as raised:
            error = raised
        has_diverged = largest_of_all([int(error is not None)])[0]
        if error is not None:
            raise error
        if has_diverged:
            raise TrainingDivergedError("what the first process was to save is not finite.")

    def leave(self, step: int, where: object) -> Pause:
        """Say why the call ends, once all have come here: the first one with its checkpoint written.

        Raises:
            StoppedBySignal: a signal ends it.
        """
        wait_for_all()
        if self.signal or self.limit is None:
            raise StoppedBySignal(f"stopped by a signal; step {step} is saved in {where}.", self.signal)
        return Pause(step, self.limit)


@dataclass(frozen=True)
class Follower:
    """The part in a training of every process but the first: its share of the updates, and of what all decide.

    Attributes:
        where: the run. is_due: whether a step of the run is saved by count.
        base: the run's step at which the network's own step is 0.
        is_stage: whether others follow, so that a signal that comes with the last step ends the call too.
    """

    step_fn: Any
    limits: Limits
    where: object
    is_due: Callable[[int], bool]
    base: int = 0
    is_stage: bool = False

    def train(
        self, batches: Iterator[Batch], rate: Callable[[int], float], first_step: int, last_step: int
    ) -> Pause | None:
        """Make the updates with the others; return the pause where a limit ends the call.

        Raises:
            StoppedBySignal, TrainingDivergedError: as in the first process.
        """
        numbers: Numbers = self.step_fn.numbers
        step_fn: Step[Batch] = self.step_fn
        with heed_signals() as stop, closing(prefetch(batches)) as ready:
            agreement = Agreement(stop, self.limits)
            for report in train(
                step_fn, ready, numbers.scale(rate), first_step=first_step, last_step=last_step, batch_size=0
            ):
                step = self.base + report.step
                self.limits.count_step()
                agreement.reach()
                if report.step == last_step:
                    break
                if agreement.wants_checkpoint(is_due=self.is_due(step), is_sound=numbers.is_sound):
                    agreement.save(None)
                if agreement.is_ending:
                    return agreement.leave(step, self.where)
            agreement.save(None)
            if self.is_stage:
                agreement.reach()
                if agreement.signal:
                    return agreement.leave(self.base + max(first_step, last_step), self.where)
        return None


def require_same_start(step: int, where: object) -> None:
    """Refuse to train where the processes see different checkpoints.

    Raises:
        ModelError: they do.
    """
    newest, oldest = largest_of_all([step, -step])
    if newest != -oldest:
        msg = f"the processes see different checkpoints in {where}: steps {-oldest} and {newest}."
        raise ModelError(msg, "All machines must work in the same folder, on a disk that they share.")


def _number_of(limit: Literal["time", "steps"] | None) -> int:
    return 0 if limit is None else 1 + LIMITS.index(limit)


def _limit_from(number: int) -> Literal["time", "steps"] | None:
    return LIMITS[number - 1] if number else None
