"""Before a run on a CPU: what to say where memory cannot hold a step. A GPU says so itself, in the first step."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from latentart.core.latents import split_moments
from latentart.process.host_memory import activation_bytes, available_bytes
from latentart.training.steps.ldm_step import LdmBatch, LdmStep
from latentart.training.steps.vae_step import VaeStep

GB = 1e9
STATE = 3  # tensors as large as the weights that the first step makes: gradients and two moments


def vae_shortage(step_fn: VaeStep, name: str, resolution: int, batch_size: int) -> str:
    """Return a warning where a step of a stage needs more memory than there is, by what one picture needs."""
    autoencoder = step_fn.autoencoder

    def forward() -> Tensor:
        images = torch.zeros(1, 3, resolution, resolution)
        with step_fn.placement.autocast():
            images_hat = autoencoder.render(split_moments(autoencoder.encode(images))[0])
            return images_hat if step_fn.perceptual is None else step_fn.perceptual(images_hat, images)

    hint = f"lower vae.stages.{name}.batch_size, or set vae.run.recompute=true"
    return _shortage(autoencoder, step_fn.placement.device, forward, batch_size, hint)


def ldm_shortage(step_fn: LdmStep, latent_shape: tuple[int, ...], labels: Tensor, size: int) -> str:
    """Return a warning where a step of the denoiser needs more memory than there is; ``size`` is its whole batch."""

    def forward() -> Tensor:
        x0, t = torch.zeros(1, *latent_shape), torch.zeros(1, dtype=torch.int64)
        return step_fn.loss_per_image(LdmBatch(x0, x0, t, labels[:1]))

    size = min(step_fn.micro_batch or size, size)
    hint = "set ldm.training.micro_batch, a part of the batch that goes through the network at once"
    return _shortage(step_fn.denoiser, step_fn.placement.device, forward, size, hint)


def _shortage(network: nn.Module, device: torch.device, forward: Callable[[], Tensor], size: int, hint: str) -> str:
    left = available_bytes(device) if device.type == "cpu" else None
    is_compiled = any(module._compiled_call_impl is not None for module in network.modules())
    if left is None or is_compiled:  # one picture would be compiled for, too
        return ""
    weights = list(network.parameters())
    needed = STATE * sum(weight.nbytes for weight in weights) + size * activation_bytes(forward, weights)
    if needed <= left:
        return ""
    return f"warning: a step needs {needed / GB:.3g} GB of memory at least, and {left / GB:.3g} GB are left: {hint}"
