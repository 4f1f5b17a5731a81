"""Tensors on a disk, as safetensors, and whether they are what a network expects."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from latentart.errors import ModelError, ResourceError


def write_tensors(path: Path, tensors: Mapping[str, Tensor], about: dict[str, str] | None = None) -> None:
    """Write tensors that share no memory as a safetensors file; channels last or not, the file is the same.

    ``about`` is text for its header.

    Raises:
        ResourceError: the disk does not take it.
    """
    try:
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path, about)
    except SafetensorError as error:
        raise ResourceError(f"Cannot write {path}: {error}.") from error


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Read a safetensors file to the CPU.

    Raises:
        ModelError: it is not a sound safetensors file.
    """
    try:
        return load_file(path)
    except SafetensorError as error:
        raise ModelError(f"{path} is not a sound safetensors file: {error}.") from error


def require_finite(tensors: Mapping[str, Tensor], what: str) -> None:
    """Refuse NaN and infinity, which no run writes.

    Raises:
        ModelError: a tensor of ``what`` holds one.
    """
    for name, tensor in tensors.items():
        is_tiny = tensor.element_size() == 1  # of which isfinite knows nothing
        if not torch.isfinite(tensor.float() if is_tiny else tensor).all():
            raise ModelError(f"{what} holds numbers that are not finite, in {name[:200]!r}.")


def load_matching(module: nn.Module, tensors: Mapping[str, Tensor], what: str) -> None:
    """Copy tensors into a module after checking names and shapes against the module's own list.

    Raises:
        ModelError: they differ; the message names ``what`` and the first few differences.
    """
    own = module.state_dict()
    differences = [f"'{name}' is missing" for name in own.keys() - tensors.keys()]
    differences += [f"'{name}' is not part of it" for name in tensors.keys() - own.keys()]
    differences += [
        f"'{name}' has shape {list(tensors[name].shape)}, not {list(own[name].shape)}"
        for name in own.keys() & tensors.keys()
        if tensors[name].shape != own[name].shape
    ]
    differences += [
        f"'{name}' holds {_kind_of(tensors[name])}, not {_kind_of(own[name])}"
        for name in own.keys() & tensors.keys()
        if _kind_of(tensors[name]) != _kind_of(own[name])
    ]
    if differences:
        more = f" and {len(differences) - 3} more" if len(differences) > 3 else ""
        raise ModelError(f"The saved {what} does not fit: {', '.join(sorted(differences)[:3])}{more}.")
    module.load_state_dict(dict(tensors))


def _kind_of(tensor: Tensor) -> str:
    if tensor.is_complex():
        return "complex numbers"
    return "fractions" if tensor.is_floating_point() else "whole numbers"
