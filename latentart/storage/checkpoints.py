"""Checkpoints: what a run needs to go on, as safetensors and JSON in a committed folder; nothing is unpickled.

runs/<name>/checkpoints/step-00001200/{model,ema,optimizer}.safetensors, state.json, MANIFEST.json
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor

from latentart.errors import ModelError, ResourceError, TrainingDivergedError
from latentart.storage.folders import (
    NewerFormatError,
    commit_folder,
    read_json,
    verify_folder,
    write_json_atomic,
)
from latentart.storage.saved_values import Saved, read_saved
from latentart.storage.tensors import read_tensors, require_finite, write_tensors

logger = logging.getLogger(__name__)

_FOLDER = re.compile(r"step-(\d{8,12})")
_NAME = re.compile(r"[a-z][a-z0-9_]*")
_STATE = "state.json"
MAX_STEP = 10**12


@dataclass(frozen=True)
class Checkpoint:
    """What a run needs to go on: ``tensors[name]``, on the CPU, is the content of ``name.safetensors``."""

    step: int
    tensors: dict[str, dict[str, Tensor]]
    state: dict[str, Any]


class _Content(Saved):
    """What ``state.json`` must hold."""

    step: Annotated[int, Field(ge=0, lt=MAX_STEP)]
    state: dict[str, Any]


def checkpoint_folder(run: Path, step: int) -> Path:
    """Return where the checkpoint of a step lies in a run."""
    return run / "checkpoints" / f"step-{step:08d}"


def list_checkpoints(run: Path) -> list[Path]:
    """List the checkpoint folders of a run, oldest first, sound or not."""
    folders = (run / "checkpoints").glob("step-*")
    return sorted((folder for folder in folders if _FOLDER.fullmatch(folder.name)), key=step_of)


def step_of(folder: Path) -> int:
    """Return the step in the name of a checkpoint folder."""
    return int(folder.name.removeprefix("step-"))


def take_checkpoint(step: int, tensors: Mapping[str, Mapping[str, Tensor]], state: Mapping[str, Any]) -> Checkpoint:
    """Return a checkpoint of copies, which later training does not reach, of finite numbers only.

    Raises:
        TrainingDivergedError: a floating tensor holds NaN or infinity.
        ValueError: a name that is not ours, or a state that JSON cannot hold.
    """
    for name in tensors:
        if not _NAME.fullmatch(name):
            raise ValueError(f"checkpoint part: got {name!r}, expected a lower-case word")
    copies = {name: _copy_finite(name, part) for name, part in tensors.items()}
    return Checkpoint(step, copies, json.loads(json.dumps(dict(state), allow_nan=False)))


def write_checkpoint(run: Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint into a run.

    A checkpoint already there (a damaged one that the run fell back over) goes once the new one stands.

    Raises:
        ResourceError: the disk does not take it.
    """

    def write(temporary: Path) -> None:
        for name, part in checkpoint.tensors.items():
            write_tensors(temporary / f"{name}.safetensors", part)
        write_json_atomic(temporary / _STATE, {"step": checkpoint.step, "state": checkpoint.state})

    commit_folder(checkpoint_folder(run, checkpoint.step), write, replace=True)


def load_checkpoint(folder: Path) -> Checkpoint:
    """Verify and read a checkpoint; the tensors come to the CPU.

    Raises:
        ModelError: damaged, incomplete or newer than this program; the message names the file.
        ResourceError: it cannot be read.
    """
    verify_folder(folder)
    content = read_saved(_Content, read_json(folder / _STATE), folder / _STATE, "is not the state of a checkpoint")
    parts = [path for path in sorted(folder.glob("*.safetensors")) if not path.name.startswith(".")]
    tensors = {path.stem: read_tensors(path) for path in parts}
    for name, part in tensors.items():
        require_finite(part, f"{folder / name}.safetensors")
    return Checkpoint(content.step, tensors, content.state)


def find_checkpoint(
    run: Path, is_wanted: Callable[[Checkpoint], bool] = lambda _: True, *, after: int = -1
) -> Checkpoint | None:
    """Return the newest checkpoint of a run that verifies and is wanted, or None; damaged ones are named in a warning.

    Those up to step ``after`` are not looked at.

    Raises:
        NewerFormatError: a later version wrote it: to go on from an older one would lose what it trained.
    """
    for folder in reversed(list_checkpoints(run)):
        if step_of(folder) <= after:
            break
        try:
            if is_wanted(found := load_checkpoint(folder)):
                return found
        except NewerFormatError:
            raise
        except (ModelError, ResourceError) as error:
            logger.warning("Skipping the checkpoint %s: %s", folder.name, error)
    return None


def _copy_finite(part: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Copy tensors to the CPU: contiguous, each with its own memory, finite."""
    copies = {}
    for name, tensor in tensors.items():
        found = tensor.detach()
        if (found.is_floating_point() or found.is_complex()) and not torch.isfinite(found).all():
            raise TrainingDivergedError(f"'{name}' of the {part} is not finite: no checkpoint is written.")
        copies[name] = found.to("cpu", copy=True, memory_format=torch.contiguous_format)
    return copies
