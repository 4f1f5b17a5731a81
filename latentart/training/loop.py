"""The one loop of both trainings, on every process: what happens with each update, and what all of them agree on.

An update is made, counted, shown, logged where that is due, and agreed upon; then the story says what happens once in a
while. A handler of signals only sets a flag; the flags are exchanged here, once a step, on the CPU. All that is written
hangs on objects that do nothing on the processes that do not write, so that all meet each other in the same places.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar

from torch import Tensor

from latentart.data.loading import prefetch
from latentart.errors import ResourceError, StoppedBySignal, TrainingDivergedError
from latentart.process.distributed import read_ranks, wait_for_all
from latentart.process.limits import Limits
from latentart.process.progress import Progress
from latentart.process.reductions import largest_of_all
from latentart.process.signals import StopSignal
from latentart.training.job import Job, Start
from latentart.training.log import RunLog
from latentart.training.survival.writer import CheckpointWriter

logger = logging.getLogger(__name__)

Batch = TypeVar("Batch")

LIMITS: tuple[Literal["time", "steps"], ...] = ("time", "steps")
PATIENCE = 5.0  # seconds in which a signal may come by two ways


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


@dataclass(frozen=True)
class Moment:
    """After an update: the run's step, the job's own, and whether the job ends with it."""

    step: int
    own: int
    is_last: bool

    def is_due(self, every: int) -> bool:
        """Tell whether what happens every so many steps, and at the end, happens now."""
        return self.is_last or self.step % every == 0


@dataclass(frozen=True)
class Pause:
    """Where a call ended because the time or the steps it was given were used up; its checkpoint is saved."""

    step: int
    limit: Literal["time", "steps"]


def train(
    step_fn: Callable[[Batch, int, float], dict[str, Tensor]],
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


@contextlib.contextmanager
def keep_run(
    run: Path, job: Job[Batch], start: Start, log: RunLog, limits: Limits, *, quiet: bool
) -> Iterator[RunKeeper[Batch]]:
    """Open what a job runs with, in the run's folder: progress, signals, log, checkpoints, batches.

    Raises:
        ResourceError: the last checkpoint could not be written.
    """
    ranks, label = read_ranks(), f"vae {job.stage}" if job.stage else "ldm"
    with (
        Progress(label, job.num_steps, start.first, quiet=quiet or not ranks.is_first) as progress,
        StopSignal(0.0 if ranks.is_alone else PATIENCE) as stop,
        log.watch(),
        CheckpointWriter(run, job.pace.keep_checkpoints, is_idle=not ranks.is_first) as writer,
        closing(prefetch(job.batches(start.first))) as batches,
    ):
        yield RunKeeper(job, start, batches, log, progress, writer, stop, limits)
        writer.finish()


@dataclass(eq=False)
class RunKeeper(Generic[Batch]):
    """Makes a job's updates and does what belongs to each; saves, and ends the call, as all processes agree.

    ``is_ending`` tells that the call ends with the step at hand, ``pause`` at which limit it has ended.
    """

    job: Job[Batch]
    start: Start
    batches: Iterator[Batch]
    log: RunLog
    progress: Progress
    writer: CheckpointWriter
    stop: StopSignal
    limits: Limits
    pause: Pause | None = None
    is_ending: bool = False
    _is_asked: bool = False
    _signal: int = 0
    _limit: Literal["time", "steps"] | None = None
    _rate: float | None = None
    _seconds: float = 0.0
    _data_seconds: float = 0.0

    def steps(self) -> Iterator[Moment]:
        """Make each update, show and log it, agree on what follows, and let the story do what it does then.

        It ends with the job, or where a limit of the call is reached and the step is saved.

        Raises:
            StoppedBySignal: a signal ends the call; the step is saved.
            LostNumbersError: too many updates in a row were left out.
            ResourceError: the third checkpoint in a row could not be written.
        """
        job, step_fn = self.job, self.job.step_fn
        rate, first, last = step_fn.numbers.scale(job.rate), self.start.first, job.num_steps
        for report in train(step_fn, self.batches, rate, first_step=first, last_step=last, batch_size=job.batch_size):
            moment = Moment(self.start.base + report.step, report.step, is_last=report.step == job.num_steps)
            self.writer.check()
            self.limits.count_step()
            self._report(report, moment)
            self._agree()
            for note in step_fn.notes:
                self.log.note(f"step {moment.step}: {note}")
            step_fn.notes.clear()
            yield moment
            if self.is_ending and not moment.is_last:
                self.pause = self._leave(moment.step)
                return

    def _report(self, report: StepReport, moment: Moment) -> None:
        """Show a step, and log it where it is due."""
        job = self.job
        rate = job.batch_size / max(report.seconds, 1e-9)
        self._rate = rate if self._rate is None else 0.95 * self._rate + 0.05 * rate
        self._seconds += report.seconds
        self._data_seconds += report.data_seconds
        self.progress.update(report.step, loss=report.scalars["loss"], images_per_second=self._rate)
        if moment.is_due(job.pace.log_every):
            self.log.metrics(
                moment.step,
                **report.scalars,
                lr=report.lr,
                images_per_second=self._rate,
                data_share=self._data_seconds / max(self._seconds, 1e-9),  # since the line before
                time=time.time(),
                **job.step_fn.means(),
                **({"stage": job.stage} if job.stage else {}),
            )
            self._seconds, self._data_seconds = 0.0, 0.0

    def _agree(self) -> None:
        """Exchange what came up to now on any process: a signal that comes later is heeded in the next step."""
        flags = [self.stop.received or 0, int(self.stop.take_request()), _number_of(self.limits.reached())]
        self._signal, is_asked, limit = largest_of_all(flags)
        self._is_asked, self._limit = bool(is_asked), _limit_from(limit)
        self.is_ending = bool(self._signal or self._limit)

    def save_if_due(self, moment: Moment) -> bool:
        """Save the step on request, by count, or as the call or the job ends with it, and tell whether it was saved.

        By count only where the last update was made: a run may have to go back to it. Every process has to ask.
        """
        if self._is_asked:
            self.log.note(f"step {moment.step}: a checkpoint was asked for")
        is_due = self.job.step_fn.numbers.is_sound and self.job.pace.is_checkpoint_due(moment.step)
        if not (self._is_asked or self.is_ending or is_due or moment.is_last):
            return False
        self.save(moment.own)
        return True

    def save(self, own: int) -> None:
        """Have the first process write a checkpoint of the job's step, and all know whether it could be saved.

        Raises:
            TrainingDivergedError: the numbers were not such as can be saved.
            ResourceError: the third checkpoint in a row could not be written.
        """
        job, step, done = self.job, self.start.base + own, dict(self.start.done)
        tensors, optimizers = job.step_fn.state()
        state: dict[str, Any] = {"step": step}
        if job.stage is not None:
            done |= {job.stage: step} if own >= job.num_steps else {}
            state |= {"stage": job.stage, "stage_step": own, "stages_done": done}
        error = None
        try:
            milestones = {*done.values(), *job.pace.milestones(0, step)}
            self.writer.save(step, tensors, {**state, "optimizers": optimizers, **job.saved}, milestones)
        except TrainingDivergedError as raised:
            error = raised
        has_diverged = largest_of_all([int(error is not None)])[0]
        if error is not None:
            raise error
        if has_diverged:
            raise TrainingDivergedError("what the first process was to save is not finite.")

    def attempt(self, write: Callable[[], object]) -> None:
        """Have the first process write what a run can do without; if the disk does not take it, that is a warning."""
        if not read_ranks().is_first:
            return
        try:
            write()
        except ResourceError as error:
            logger.warning("%s", error)
        except OSError as error:
            logger.warning("%s cannot be written: %s.", error.filename or "A file", error.strerror or error)

    def leave_if_stopped(self, step: int) -> None:
        """End the call where a signal has come since the last step, which is saved.

        Raises:
            StoppedBySignal: so it is.
            ResourceError: the checkpoint could not be written.
        """
        self.writer.finish()
        self._agree()
        if self._signal:
            self._leave(step)

    def _leave(self, step: int) -> Pause:
        """Wait until the step's checkpoint stands and all have come here, and say which limit ends the call.

        Raises:
            StoppedBySignal: a signal ends it.
            ResourceError: the checkpoint could not be written.
        """
        self.writer.finish()
        wait_for_all()
        if self._signal or self._limit is None:
            raise StoppedBySignal(f"stopped by a signal; step {step} is saved in {self.writer.run}.", self._signal)
        self.log.note(f"step {step}: stopped and saved, the {self._limit} of this call are used up")
        return Pause(step, self._limit)


def agree_on_limit(limits: Limits) -> Literal["time", "steps"] | None:
    """Return the limit that one of the processes has reached."""
    return _limit_from(largest_of_all([_number_of(limits.reached())])[0])


def _number_of(limit: Literal["time", "steps"] | None) -> int:
    return 0 if limit is None else 1 + LIMITS.index(limit)


def _limit_from(number: int) -> Literal["time", "steps"] | None:
    return LIMITS[number - 1] if number else None
