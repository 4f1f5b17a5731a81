"""What both trainings do around their loop: the run's folder, its room on the disk, its checkpoints, the stop."""

from __future__ import annotations

import contextlib
import logging
import platform
import sys
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from latentart import __version__
from latentart.config.optim import RunConfig
from latentart.config.workspace import Config
from latentart.errors import ResourceError
from latentart.process.distributed import read_ranks, wait_for_all
from latentart.process.limits import Limits
from latentart.process.progress import Progress
from latentart.process.signals import StopSignal, without_harm_from_requests
from latentart.storage.checkpoints import list_checkpoints, step_of
from latentart.storage.disk import checkpoint_bytes, folder_bytes, require_room, require_writable, tensor_bytes
from latentart.storage.folders import remove_leftovers, write_json_atomic
from latentart.storage.lock import hold_lock
from latentart.training.log import RunLog
from latentart.training.loop import StepReport
from latentart.training.survival.agreement import Agreement, Pause
from latentart.training.survival.writer import CheckpointWriter

logger = logging.getLogger(__name__)


@contextlib.contextmanager
def open_run(folder: Path) -> Iterator[None]:
    """Make a run's folder and keep other runs out; a folder in which nothing was written goes again.

    Of many processes the first does it, and the others come in once it has.

    Raises:
        ResourceError: the folder cannot be written, or another process trains in it.
    """
    if not read_ranks().is_first:
        with without_harm_from_requests():
            wait_for_all()
            yield
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        msg = f"{folder} cannot be made: {error.strerror}."
        raise ResourceError(msg, "Check who may use that folder, and what lies in its place.") from None
    try:
        with hold_lock(folder), without_harm_from_requests():
            for parent in (folder, folder / "checkpoints", folder / "averages"):
                if parent.is_dir():
                    # `latentart ema` writes into the first; in the others a killed run's id may be in use again
                    remove_leftovers(parent, is_locked=parent != folder)
            wait_for_all()
            yield
    finally:
        with contextlib.suppress(OSError):  # it holds files
            folder.rmdir()
            folder.parent.rmdir()


def record_run(folder: Path, config: Config) -> None:
    """Write the resolved config and the machine into a run's folder."""
    write_json_atomic(folder / "config.json", config.to_json())
    write_json_atomic(folder / "machine.json", describe_machine())


def describe_machine() -> dict[str, Any]:
    """Return what a run was made with: versions and devices, nothing personal."""
    return {
        "latentart": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "platform": f"{platform.system()} {platform.machine()}",
        "threads": torch.get_num_threads(),
        "processes": read_ranks().world_size,
        "devices": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
        "arguments": [Path(sys.argv[0]).name, *sys.argv[1:]],
    }


def require_disk(
    run: Path,
    config: RunConfig,
    tensors: Mapping[str, Mapping[str, Tensor]],
    optimizers: Sequence[torch.optim.Optimizer],
    *,
    last: int,
    staying: Collection[int] = (),
    more: int = 0,
) -> None:
    """Refuse a run whose checkpoints, model and ``more`` bytes its disk has no room for, or that cannot be written.

    There are milestones up to step ``last``; the checkpoints of the steps in ``staying`` stay besides.

    Raises:
        ResourceError: so it is; the line names the settings that help.
    """
    keep, size, found = config.keep_checkpoints, checkpoint_bytes(tensors, optimizers), list_checkpoints(run)
    newest = step_of(found[-1]) if found else 0
    milestones = {*staying, *config.milestones(0, newest)}
    going = [folder for folder in found[-keep:] if step_of(folder) not in milestones]  # when others come
    to_come = keep + 1 + len(config.milestones(newest, last))
    needed = max(size, to_come * size - sum(map(folder_bytes, going))) + tensor_bytes(tensors["ema"]) + more
    group = "vae.run" if "autoencoder" in tensors else "ldm.training.run"
    hint = f"Make room, lower {group}.keep_checkpoints ({keep}), or have the workspace or data.root on another disk."
    require_room(run, needed, hint)
    require_writable(run / "checkpoints")


class RunKeeper:
    """Says what happens once in a while in a run: numbers to the log, progress to the screen, checkpoints, the end."""

    def __init__(
        self,
        config: RunConfig,
        log: RunLog,
        progress: Progress,
        writer: CheckpointWriter,
        stop: StopSignal,
        limits: Limits,
    ) -> None:
        self.config, self.log, self.progress, self.writer = config, log, progress, writer
        self.limits, self.agreement = limits, Agreement(stop, limits)
        self._rate: float | None = None
        self._seconds, self._data_seconds = 0.0, 0.0

    @property
    def is_ending(self) -> bool:
        """Whether the call ends with the step at hand."""
        return self.agreement.is_ending

    def is_due(self, at: int, *, is_last: bool) -> bool:
        """Tell whether the run's step ``at`` is logged."""
        return is_last or at % self.config.log_every == 0

    def report(
        self, report: StepReport, batch_size: int, *, at: int, is_last: bool, **extra: str | float | None
    ) -> None:
        """Show a step, log it where it is due, and agree on what follows; ``at`` is the run's own step.

        Raises:
            ResourceError: the third checkpoint in a row could not be written.
        """
        self.writer.check()
        self.limits.count_step()
        rate = batch_size / max(report.seconds, 1e-9)
        self._rate = rate if self._rate is None else 0.95 * self._rate + 0.05 * rate
        self._seconds += report.seconds
        self._data_seconds += report.data_seconds
        self.progress.update(report.step, loss=report.scalars["loss"], images_per_second=self._rate)
        if self.is_due(at, is_last=is_last):
            scalars = {name: float(value) for name, value in report.scalars.items()}
            self.log.metrics(
                at,
                **scalars,
                lr=report.lr,
                images_per_second=self._rate,
                data_share=self._data_seconds / max(self._seconds, 1e-9),  # since the line before
                time=time.time(),
                **extra,
            )
            self._seconds, self._data_seconds = 0.0, 0.0
        self.agreement.reach()

    def wants_checkpoint(self, step: int, *, is_sound: bool = True) -> bool:
        """Tell whether one is due: by count, on request, or as the call ends with this step, which ``is_ending`` tells.

        By count only where the last update was made, ``is_sound``: a run may have to go back to it.
        """
        if self.agreement.is_asked:
            self.log.note(f"step {step}: a checkpoint was asked for")
        return self.agreement.wants_checkpoint(is_due=self.config.is_checkpoint_due(step), is_sound=is_sound)

    def attempt(self, write: Callable[[], object]) -> None:
        """Write what a run can do without; if the disk does not take it, that is a warning."""
        try:
            write()
        except ResourceError as error:
            logger.warning("%s", error)
        except OSError as error:
            logger.warning("%s cannot be written: %s.", error.filename or "A file", error.strerror or error)

    def leave(self, step: int) -> Pause:
        """Wait until the step's checkpoint stands, and say which limit ends the call.

        Raises:
            StoppedBySignal: a signal ends it.
            ResourceError: the checkpoint could not be written.
        """
        self.writer.finish()
        pause = self.agreement.leave(step, self.writer.run)
        self.log.note(f"step {step}: stopped and saved, the {pause.limit} of this call are used up")
        return pause

    def leave_if_stopped(self, step: int) -> None:
        """End the call where a signal has come since the last step, which is saved.

        Raises:
            StoppedBySignal: so it is.
        """
        self.agreement.reach()
        if self.agreement.signal:
            self.leave(step)
