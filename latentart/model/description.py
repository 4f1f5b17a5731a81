"""What model.json may say: it may come from a stranger, so every part is looked at before anything is built by it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from pydantic import TypeAdapter, ValidationError
from torch import nn

from latentart.builders import build_autoencoder, build_denoiser
from latentart.config.denoiser import DenoiserConfig
from latentart.config.ldm import DiffusionConfig
from latentart.config.vae import AutoencoderConfig
from latentart.errors import ModelError

FORMAT = 1
MAX_RESOLUTION = 2**14
MAX_NAME = 1000  # letters of a style or label
HEADER = 64 * 2**20  # what the names and shapes of a weights file may take


def read_configs(about: object, path: Path) -> tuple[AutoencoderConfig, DenoiserConfig | None, DiffusionConfig | None]:
    """Return the configs of the networks in a model.json after a look at everything else in it.

    Raises:
        ModelError: a part is missing, of the wrong kind or out of range, or the format is newer than ours.
    """
    try:
        if not isinstance(about, dict):
            raise TypeError("it is no object")
        if not _is_whole(about["format"]) or about["format"] < 1:
            raise ValueError("its format is no number from 1 on")
        if about["format"] > FORMAT:
            msg = f"{path.parent} was made by a newer latentart ({str(about.get('latentart'))[:20]})."
            raise ModelError(msg, "Upgrade latentart.")
        autoencoder = AutoencoderConfig.model_validate(about["autoencoder"])
        _require_parts(about, autoencoder.latent_channels)
        if about["denoiser"] is None:
            return autoencoder, None, None
        denoiser: DenoiserConfig = TypeAdapter(DenoiserConfig).validate_python(about["denoiser"])
        return autoencoder, denoiser, DiffusionConfig.model_validate(about["diffusion"])
    except (ValidationError, KeyError, TypeError, ValueError) as error:
        raise _unknown(path, error) from None


def require_fitting_files(
    folder: Path, about: Mapping[str, Any], autoencoder: AutoencoderConfig, denoiser: DenoiserConfig | None
) -> None:
    """Refuse networks that need more memory than their files hold, or files that hold more than the networks.

    Nothing is allocated or read for that.

    Raises:
        ModelError: so it is, or a network that cannot be built.
    """
    counts = [len(about["style_names"]), *(len(column["values"]) for column in about.get("labels", []))]
    try:
        with torch.device("meta"):
            networks: dict[str, nn.Module] = {"autoencoder": build_autoencoder(autoencoder)}
            if denoiser is not None:
                networks["denoiser"] = build_denoiser(denoiser, autoencoder.latent_channels, counts)
        needed = {
            name: sum(t.numel() * t.element_size() for t in n.state_dict().values()) for name, n in networks.items()
        }
    except (RuntimeError, ValueError, TypeError, OverflowError, MemoryError) as error:
        raise _unknown(folder / "model.json", error) from None
    for name, size in needed.items():
        path = folder / f"{name}.safetensors"
        if not path.is_file():
            raise ModelError(f"{path} is missing.")
        found = path.stat().st_size
        if not size <= found <= size + HEADER:
            msg = f"{path} has {found} bytes, which is no {name} of {size} bytes as {folder / 'model.json'} describes."
            raise ModelError(msg, "Take the folder from where it was whole.")
    if (memory := _memory_bytes()) and sum(needed.values()) > memory:
        sizes = f"{sum(needed.values()) / 1e9:.0f} GB, this machine has {memory / 1e9:.0f} GB"
        raise ModelError(f"the networks in {folder} take {sizes}.")


def _require_parts(about: Mapping[str, Any], latent_channels: int) -> None:
    resolution, names = about["resolution"], about["style_names"]
    if not _is_whole(resolution) or not 1 <= resolution <= MAX_RESOLUTION:
        raise ValueError(f"resolution is not a number from 1 to {MAX_RESOLUTION}")
    if not isinstance(about["uses_tanh"], bool):
        raise TypeError("uses_tanh is neither true nor false")
    _require_names("style_names", names)
    for name in ("mean", "std"):
        numbers = about["latents"][name]
        if not isinstance(numbers, list) or len(numbers) != latent_channels or not all(map(_is_number, numbers)):
            raise ValueError(f"latents.{name} is not a list of {latent_channels} numbers")
        if name == "std" and min(numbers) <= 0:
            raise ValueError(f"latents.std is not above 0 in every channel (got {min(numbers)})")
    if not isinstance(about.get("labels", []), list):
        raise TypeError("labels is no list")
    for column in about.get("labels", []):
        _require_names("labels", [column["name"]])
        _require_names(f"labels.{column['name']}", column["values"])
    training = about.get("training", {})
    if not isinstance(training, dict) or not all(isinstance(part, dict) for part in training.values()):
        raise TypeError("training is no object of objects")
    if not all(_is_whole(part.get("step", 0)) and part.get("step", 0) >= 0 for part in training.values()):
        raise ValueError("training has a step that is no number")


def _require_names(what: str, names: object) -> None:
    if not isinstance(names, list) or not names:
        raise TypeError(f"{what} is no list of names")
    if not all(isinstance(name, str) and 0 < len(name) <= MAX_NAME for name in names):
        raise TypeError(f"{what} holds something else than names of up to {MAX_NAME} letters")
    if len(set(names)) != len(names):
        raise ValueError(f"{what} has a name twice")


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: object) -> bool:
    """Tell whether a value is a finite number that a float32 holds."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 3e38


def _unknown(path: Path, error: Exception) -> ModelError:
    if isinstance(error, ValidationError):
        first = error.errors(include_url=False, include_input=False)[0]
        reason = f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
    elif isinstance(error, KeyError):
        reason = f"{error.args[0]} is missing"
    else:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
    return ModelError(f"{path} does not describe a model that this version knows: {reason[:200]}.")


def _memory_bytes() -> int:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return 0
