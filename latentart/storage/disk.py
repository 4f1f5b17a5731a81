"""What a run needs of its disk, asked before its first step."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from torch import Tensor

from latentart.errors import ResourceError

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
