"""Checkpoints: what a run needs to go on, as safetensors and JSON in a committed folder; nothing is unpickled.

runs/<name>/checkpoints/step-00001200/{model,ema,optimizer}.safetensors, state.json, MANIFEST.json
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from latentart.errors import ModelError, ResourceError, TrainingDivergedError
from latentart.storage.folders import (
    commit_folder,
    read_json,
    verify_folder,
    write_json_atomic,
)

logger = logging.getLogger(__name__)

_FOLDER = re.compile(r"step-(\d{8,12})")
_NAME = re.compile(r"[a-z][a-z0-9_]*")
_STATE = "state.json"
_REMEMBERED = ({"step", "exp_avg", "exp_avg_sq"}, {"momentum"})  # of a parameter, by AdamW and by Muon
MAX_STEP = 10**12


@dataclass(frozen=True)
class Checkpoint:
    """A verified checkpoint: ``tensors[name]`` is the content of ``name.safetensors``."""

    step: int
    tensors: dict[str, dict[str, Tensor]]
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


@dataclass(frozen=True)
class Snapshot:
    """A copy of everything that a checkpoint holds, in host memory: what training changes later does not reach it."""

    step: int
    tensors: dict[str, dict[str, Tensor]]
    state: dict[str, Any]


def take_snapshot(step: int, tensors: Mapping[str, Mapping[str, Tensor]], state: Mapping[str, Any]) -> Snapshot:
    """Copy what a checkpoint holds, finite numbers only.

    Raises:
        TrainingDivergedError: a floating tensor holds NaN or infinity.
        ValueError: a name that is not ours, or a state that JSON cannot hold.
    """
    for name in tensors:
        if not _NAME.fullmatch(name):
            raise ValueError(f"checkpoint part: got {name!r}, expected a lower-case word")
    copies = {name: _copy_finite(name, part) for name, part in tensors.items()}
    return Snapshot(step, copies, json.loads(json.dumps(dict(state), allow_nan=False)))


def write_snapshot(run: Path, snapshot: Snapshot) -> None:
    """Write a checkpoint into a run.

    A checkpoint already there (a damaged one that the run fell back over) goes once the new one stands.

    Raises:
        ResourceError: the disk does not take it.
    """

    def write(temporary: Path) -> None:
        for name, part in snapshot.tensors.items():
            write_tensors(temporary / f"{name}.safetensors", part)
        write_json_atomic(temporary / _STATE, {"step": snapshot.step, "state": snapshot.state})

    commit_folder(checkpoint_folder(run, snapshot.step), write, replace=True)


def save_checkpoint(folder: Path, tensors: Mapping[str, Mapping[str, Tensor]], state: Mapping[str, Any]) -> None:
    """Take a snapshot and write it at once; ``folder`` comes from ``checkpoint_folder``.

    Raises:
        TrainingDivergedError: a floating tensor holds NaN or infinity; nothing is written.
        ResourceError: the disk does not take it.
        ValueError: a name that is not ours, or a state that JSON cannot hold.
    """
    match = _FOLDER.fullmatch(folder.name)
    if match is None:
        raise ValueError(f"checkpoint folder: got {folder.name!r}, expected a name like 'step-00001200'")
    write_snapshot(folder.parent.parent, take_snapshot(int(match[1]), tensors, state))


def load_checkpoint(folder: Path) -> Checkpoint:
    """Verify and read a checkpoint; the tensors come to the CPU.

    Raises:
        ModelError: damaged, incomplete or newer than this program; the message names the file.
        ResourceError: it cannot be read.
    """
    verify_folder(folder)
    content = read_json(folder / _STATE)
    match content:
        case {"step": int(step), "state": dict(state)} if 0 <= step < MAX_STEP:
            tensors = {path.stem: read_tensors(path) for path in sorted(folder.glob("*.safetensors"))}
            for path, part in tensors.items():
                require_finite(part, f"{folder / path}.safetensors")
            return Checkpoint(step, tensors, state)
    raise ModelError(f"{folder / _STATE} is not the state of a checkpoint.")


def find_checkpoint(run: Path) -> Checkpoint | None:
    """Return the newest checkpoint of a run that verifies, or None; damaged ones are named in a warning."""
    for folder in reversed(list_checkpoints(run)):
        try:
            return load_checkpoint(folder)
        except (ModelError, ResourceError) as error:
            logger.warning("Skipping the checkpoint %s: %s", folder.name, error)
    return None


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


def flatten_optimizer(optimizer: torch.optim.Optimizer) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return an optimizer's state as tensors named ``<parameter index>.<name>`` and a JSON value."""
    saved = optimizer.state_dict()
    entries = {f"{index}.{name}": value for index, part in saved["state"].items() for name, value in part.items()}
    tensors = {key: value for key, value in entries.items() if isinstance(value, Tensor)}
    others = {key: value for key, value in entries.items() if key not in tensors}
    return tensors, {"param_groups": saved["param_groups"], "others": others}


def restore_optimizer(
    optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor], values: Mapping[str, Any]
) -> None:
    """Give an optimizer, bit for bit, the state that ``flatten_optimizer`` took.

    Its own settings stay (rate, betas, decay): one that was edited in the config holds from here on.

    Raises:
        ModelError: the state belongs to other parameters.
    """
    own = optimizer.state_dict()["param_groups"]
    values = values if isinstance(values, Mapping) else {}
    saved, others = values.get("param_groups"), values.get("others")
    if (
        not isinstance(others, dict)
        or not isinstance(saved, list)
        or [isinstance(group, dict) and group.get("params") for group in saved] != [group["params"] for group in own]
    ):
        raise ModelError("The saved optimizer does not fit: it is for other groups of parameters.")
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    state: dict[int, dict[str, Any]] = {}
    for key, value in {**tensors, **others}.items():
        index, _, name = key.partition(".")
        if not index.isdecimal() or int(index) >= len(parameters):
            raise ModelError(f"The saved optimizer does not fit: there is no parameter for '{key}'.")
        parameter = parameters[int(index)]
        if isinstance(value, Tensor) and value.ndim > 0 and value.shape != parameter.shape:
            raise ModelError(
                f"The saved optimizer does not fit: '{key}' has shape {list(value.shape)}, not {list(parameter.shape)}."
            )
        if not isinstance(value, (Tensor, int, float)):
            raise ModelError(f"The saved optimizer does not fit: '{key}' is no number.")
        state.setdefault(int(index), {})[name] = _laid_out_like(parameter, value)
    for index, entry in state.items():
        if entry.keys() not in _REMEMBERED:
            raise ModelError(f"The saved optimizer does not fit: it remembers {sorted(entry)} of parameter {index}.")
    optimizer.load_state_dict({"state": state, "param_groups": own})


def _laid_out_like(parameter: Tensor, value: Any) -> Any:
    """Return a copy in the parameter's memory layout, which fused optimizers take for granted.

    A copy, as a loaded tensor is a view of the mapped file, and the optimizer would write into it.
    """
    if not isinstance(value, Tensor):
        return value
    if value.shape != parameter.shape:
        return value.clone()
    return torch.empty_like(parameter, dtype=value.dtype, device=value.device).copy_(value)


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


def _copy_finite(part: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Copy tensors to the CPU: contiguous, each with its own memory, finite."""
    copies = {}
    for name, tensor in tensors.items():
        found = tensor.detach()
        if (found.is_floating_point() or found.is_complex()) and not torch.isfinite(found).all():
            raise TrainingDivergedError(f"'{name}' of the {part} is not finite: no checkpoint is written.")
        copies[name] = found.to("cpu", copy=True, memory_format=torch.contiguous_format)
    return copies
