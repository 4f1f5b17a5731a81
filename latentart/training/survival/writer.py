"""Checkpoints written beside the training: it stops for a copy in memory only, not for the disk."""

from __future__ import annotations

import atexit
import logging
import os
import sys
import threading
from collections.abc import Collection, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from torch import Tensor

from latentart.errors import ResourceError
from latentart.storage.checkpoints import Checkpoint, list_checkpoints, take_checkpoint, write_checkpoint
from latentart.storage.old_checkpoints import prune_checkpoints

logger = logging.getLogger(__name__)

MAX_FAILURES = 3
_PATIENCE = 1.0  # seconds that who presses Ctrl-C twice waits for a write


class CheckpointWriter:
    """Writes a run's checkpoints in a thread, one at a time, and lets the oldest go once a new one stands.

    A write that fails is a warning: the older checkpoints stay, training goes on, and the next one tries again. Left
    by an error it ends the write it is at; left by Ctrl-C it does not wait for it. One that ``is_idle``, of a process
    that is not the first, writes nothing.
    """

    def __init__(self, run: Path, keep: int = 2, *, is_idle: bool = False) -> None:
        self.run, self.keep, self.is_idle = run, keep, is_idle
        self._failures = 0
        self._error: BaseException | None = None  # of the last write
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._thread is None:
            return
        is_interrupted = kind is not None and issubclass(kind, KeyboardInterrupt)
        self._thread.join(_PATIENCE if is_interrupted else None)
        if self._thread.is_alive():
            atexit.register(self._end_process)

    def save(
        self,
        step: int,
        tensors: Mapping[str, Mapping[str, Tensor]],
        state: Mapping[str, Any],
        milestones: Collection[int] = (),
    ) -> None:
        """Copy a checkpoint now and write it soon, in place of a damaged one of that step; waits for the one before.

        Raises:
            TrainingDivergedError: a tensor holds NaN or infinity; nothing is written.
            ResourceError: the third write in a row has failed.
        """
        if self.is_idle:
            return
        self.wait()
        checkpoint = take_checkpoint(step, tensors, state)
        # a daemon, as nothing may hold up a process that is told twice to end
        self._thread = threading.Thread(
            target=self._write, args=(checkpoint, tuple(milestones)), name="checkpoint", daemon=True
        )
        self._thread.start()

    def check(self) -> None:
        """Raise what a write has met, if training must not go on; never waits.

        Raises:
            ResourceError: the third write in a row has failed.
        """
        if isinstance(self._error, ResourceError) and self._failures >= MAX_FAILURES:
            msg = f"{MAX_FAILURES} checkpoints in a row could not be written. {self._error.message}"
            raise ResourceError(msg, self._error.hint)
        if self._error is not None and not isinstance(self._error, ResourceError):
            raise self._error

    def wait(self) -> None:
        """Wait for the write that is going on, then ``check``."""
        if self._thread is not None:
            self._thread.join()
        self.check()

    def has_one(self) -> bool:
        """Tell whether a checkpoint of the run stands, after waiting for the first.

        A run that is killed with a model and no checkpoint could not go on.

        Raises:
            ResourceError: the third write in a row has failed.
        """
        if not list_checkpoints(self.run):
            self.wait()
        return bool(list_checkpoints(self.run))

    def finish(self) -> None:
        """Wait until the last checkpoint stands.

        Raises:
            ResourceError: it could not be written.
        """
        self.wait()
        if self._error is not None:
            raise self._error

    def _write(self, checkpoint: Checkpoint, milestones: Collection[int]) -> None:
        try:
            write_checkpoint(self.run, checkpoint)
            self._failures, self._error = 0, None
            prune_checkpoints(self.run, self.keep, milestones, newest=checkpoint.step)
        except ResourceError as error:
            self._failures, self._error = self._failures + 1, error
            count = f"{self._failures} of {MAX_FAILURES} in a row"
            logger.warning("step %d is not saved (%s), older checkpoints stay: %s", checkpoint.step, count, error)
        except BaseException as error:  # a bug: raised where the training is
            self._error = error

    def _end_process(self) -> None:
        """End without Python's own end, which aborts while another thread is inside a library."""
        if self._thread is not None and self._thread.is_alive():
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(130)
