"""`latentart export onnx`: a model's networks as ONNX, what they need as JSON, and a script that draws with them.

Launch: ``latentart export onnx DIR``.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from latentart import __version__
from latentart.core.diffusion.objective import DiffusionTask
from latentart.core.diffusion.process import x0_and_eps_from
from latentart.core.networks.conditioning import Denoiser
from latentart.core.randomness import normal_for
from latentart.data.pictures.marks import AI_MADE
from latentart.errors import ModelError, UsageError
from latentart.kinds import Target
from latentart.model.folder import Model, load_model, require_denoiser, weights_hash
from latentart.model.generate import SamplerSettings
from latentart.model.onnx import Decode, Encode, halve_weights, open_session, require_onnx, run_session, write_onnx
from latentart.process.devices import Placement
from latentart.storage.folders import commit_folder, recover_folder, verify_folder, write_json_atomic
from latentart.storage.whole import require_place

FORMAT = 1
ABOUT = "onnx.json"
SCRIPT = "sample.py"


@dataclass(frozen=True)
class OnnxExport:
    """The folder, and the largest difference of each network's answers from PyTorch's."""

    folder: Path
    differences: dict[str, float]


def export_onnx(model_folder: Path, folder: Path) -> OnnxExport:
    """Write a model's networks and all that drawing with them needs; an earlier export there is replaced.

    Raises:
        DownloadError: onnx or onnxruntime is not installed.
        ModelError: there is no model, or it has no denoiser.
        UsageError: the folder holds something else.
        ResourceError: the folder cannot be written.
    """
    require_onnx()
    require_ours(folder, ABOUT)
    model = load_model(model_folder, Placement(torch.device("cpu"), "fp32"))
    denoiser, task = require_denoiser(model, model_folder)
    differences: dict[str, float] = {}

    def write(temporary: Path) -> None:
        for name, (network, inputs, output) in networks_of(model, denoiser, task).items():
            differences[name] = write_measured(network, inputs, output, temporary / f"{name}.onnx")
        about = describe(model, task) | {
            "made_from": {name: weights_hash(model_folder, name) for name in ("autoencoder", "denoiser")},
            "largest_differences": differences,
        }
        write_json_atomic(temporary / ABOUT, about)
        shutil.copyfile(Path(__file__).with_name("standalone.py"), temporary / SCRIPT)

    commit_folder(folder, write, replace=True)
    return OnnxExport(folder, differences)


def require_ours(folder: Path, about: str) -> None:
    """Refuse to write where something else is than an earlier export, which holds ``about``, or nothing can be written.

    Raises:
        UsageError: the folder holds anything but an export as it was written.
        ResourceError: it cannot be written.
    """
    recover_folder(folder)
    if folder.is_symlink() or (folder.exists() and not _is_ours(folder, about)):
        msg = f"{folder} exists and is no export as it was written; nothing is overwritten."
        raise UsageError(msg, "Name another folder, or move it away.")
    require_place(folder, "Name another folder.")


def _is_ours(folder: Path, about: str) -> bool:
    if not folder.is_dir() or not any(folder.iterdir()):
        return folder.is_dir()
    try:
        verify_folder(folder)
    except ModelError:
        return False
    return (folder / about).is_file()


def networks_of(
    model: Model, denoiser: Denoiser, task: DiffusionTask
) -> dict[str, tuple[nn.Module, dict[str, Tensor], str]]:
    """Return each network with three rows of what it takes, and what it gives."""
    rows, shape = range(3), _latents_shape(model)
    embedding = denoiser.style_embedding
    styles = embedding.weights_of(torch.tensor([0, embedding.nulls[0], embedding.nulls[0] - 1]))
    labels = torch.cat([styles[:2], styles[1:].mean(0, keepdim=True)])  # of a style, of none, of a blend
    t = torch.tensor([0, task.schedule.num_steps // 2, task.schedule.num_steps - 1])
    inputs = {"x_t": normal_for(0, "export", rows, shape), "t": t, "labels": labels}
    images = normal_for(0, "export", rows, (3, model.resolution, model.resolution)).clamp(-1, 1)
    return {
        "denoiser": (denoiser, inputs, "prediction"),
        "decoder": (Decode(model.autoencoder), {"latents": normal_for(0, "export", rows, shape)}, "images"),
        "encoder": (Encode(model.autoencoder), {"images": images}, "moments"),
    }


@torch.no_grad()
def write_measured(
    network: nn.Module, inputs: Mapping[str, Tensor], output: str, path: Path, *, is_half: bool = False
) -> float:
    """Write a network, with ``is_half`` its weights in float16, and return its largest difference from PyTorch."""
    write_onnx(network, {key: tensor[:2] for key, tensor in inputs.items()}, output, path)
    if is_half:
        halve_weights(path)
    return float((run_session(open_session(path), inputs) - network(*inputs.values())).abs().max())


def _latents_shape(model: Model) -> tuple[int, int, int]:
    side = model.resolution // model.autoencoder.factor
    return model.autoencoder.latent_channels, side, side


def x0_coefficients(target: Target, alpha_bar: Tensor) -> tuple[Tensor, Tensor]:
    """Return a and b of x0_hat = a · x_t + b · prediction at each timestep, of the shape of ``alpha_bar`` [T]."""
    zeros, ones = torch.zeros_like(alpha_bar), torch.ones_like(alpha_bar)
    of_x_t, _ = x0_and_eps_from(target, zeros, ones, alpha_bar)
    of_prediction, _ = x0_and_eps_from(target, ones, zeros, alpha_bar)
    return of_x_t, of_prediction


def describe(model: Model, task: DiffusionTask) -> dict[str, Any]:
    """Return what a stranger's program needs beside the networks to draw with them."""
    settings, alpha_bar = SamplerSettings(), task.schedule.alpha_bar
    limit = settings.noise_limit_for(task.target)
    visited = alpha_bar if limit is None else alpha_bar[task.schedule.snr >= limit**-2]
    of_x_t, of_prediction = x0_coefficients(task.target, alpha_bar)
    columns = {"style": model.style_names, **model.label_columns}
    return {
        "format": FORMAT,
        "latentart": __version__,
        "resolution": model.resolution,
        "columns": [{"name": name, "values": values} for name, values in columns.items()],
        "latents": {"shape": _latents_shape(model), "mean": model.normalizer.mean, "std": model.normalizer.std},
        "target": task.target,
        "alpha_bar": alpha_bar.tolist(),
        "x0_of_x_t": of_x_t.tolist(),
        "x0_of_prediction": of_prediction.tolist(),
        "sampling": {
            "seed": 0,
            "steps": min(settings.steps, task.schedule.num_steps),
            "guidance": settings.guidance,
            "eta": settings.eta,
            "x0_limit": settings.x0_limit,
            "timesteps": max(1, len(visited)),
        },
        "xmp": AI_MADE,
    }
