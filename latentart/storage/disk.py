"""What a run needs of its disk, asked before its first step."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from torch import Tensor

from latentart.errors import ResourceError
from latentart.storage.folders import write_json_atomic

GB = 1e9


def tensor_bytes(tensors: Mapping[str, Tensor]) -> int:
    """Return the size of tensors in bytes."""
    return sum(tensor.nbytes for tensor in tensors.values())


def checkpoint_bytes(tensors: Mapping[str, Mapping[str, Tensor]], optimizers: Iterable[torch.optim.Optimizer]) -> int:
    """Return the size of a checkpoint of these tensors; optimizers yet without state count two moments a weight."""
    weights = (
        weight
        for optimizer in optimizers
        for group in optimizer.param_groups
        for weight in group["params"]
        if not optimizer.state.get(weight)
    )
    return sum(map(tensor_bytes, tensors.values())) + 2 * sum(weight.nbytes for weight in weights)


def folder_bytes(folder: Path) -> int:
    """Return the size of the files in a folder; 0 where there is none."""
    return sum(path.stat().st_size for path in folder.glob("*") if path.is_file())


def require_room(folder: Path, needed: int, hint: str) -> None:
    """Refuse what the disk of ``folder`` has no room for.

    Raises:
        ResourceError: it has not; the message names both in GB.
    """
    free = shutil.disk_usage(folder).free
    if needed > free:
        msg = f"{folder} needs {needed / GB:.3g} GB for checkpoints and model; {free / GB:.3g} GB of its disk are free."
        raise ResourceError(msg, hint)


def require_writable(folder: Path) -> None:
    """Write, flush, rename and delete a small file in a folder, which is made and, if it was not there, goes again.

    Raises:
        ResourceError: one of these fails.
    """
    probe, is_new = folder / "probe.json", not folder.is_dir()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_json_atomic(probe, {})
        probe.unlink()
        if is_new:
            folder.rmdir()
    except OSError as error:
        with contextlib.suppress(OSError):
            probe.unlink()
        msg = f"{folder} cannot be written: {error.strerror}."
        raise ResourceError(msg, "Check who may use that folder.") from None
