"""Checkpoints that no run goes on from: the oldest are let go, and those that a run went back over are put aside."""

from __future__ import annotations

import logging
import os
from collections.abc import Collection
from pathlib import Path

from latentart.errors import ModelError, ResourceError
from latentart.storage.checkpoints import list_checkpoints, step_of
from latentart.storage.folders import discard_folder, move_folder, verify_folder

logger = logging.getLogger(__name__)


def prune_checkpoints(run: Path, keep: int = 2, milestones: Collection[int] = (), *, newest: int | None = None) -> None:
    """Delete all checkpoints but the newest ``keep`` and the steps in ``milestones``.

    Nothing is deleted before one of those that stay has been verified. A checkpoint that cannot be deleted is
    a warning: it never stops a run. Checkpoints of later steps than ``newest``, damaged ones that the run fell back
    over, neither go nor count.

    Raises:
        ValueError: ``keep`` is less than 2.
    """
    if keep < 2:
        raise ValueError(f"keep: got {keep}, expected at least 2")
    folders = [folder for folder in list_checkpoints(run) if newest is None or step_of(folder) <= newest]
    old = [folder for folder in folders[:-keep] if step_of(folder) not in milestones]
    staying = [folder for folder in folders if folder not in old]
    if not old:
        return
    if not any(_verifies(folder) for folder in reversed(staying)):
        logger.warning("No newer checkpoint of %s verifies: the old ones stay.", run)
        return
    for folder in old:
        try:
            discard_folder(folder)
        except ResourceError as error:
            logger.warning("%s", error)


def set_aside_later(run: Path, step: int) -> None:
    """Rename the checkpoints later than ``step``: a run that has gone back over them does not go on from one.

    Raises:
        ResourceError: one cannot be renamed.
    """
    for folder in list_checkpoints(run):
        if step_of(folder) > step:
            aside = folder.with_name(f"left-{folder.name}")
            if os.path.lexists(aside):
                discard_folder(aside)
            move_folder(folder, aside)


def _verifies(folder: Path) -> bool:
    try:
        verify_folder(folder)
    except (ModelError, ResourceError):
        return False
    return True
