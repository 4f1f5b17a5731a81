"""The two autoencoders that are compared, and what they have in common."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor, nn

from latentart.builders import build_autoencoder
from latentart.config.optim import OptimizerConfig
from latentart.config.vae import AutoencoderConfig
from latentart.config.workspace import resolve
from latentart.core.latents import kl_per_image, sample_posterior, split_moments
from latentart.core.losses import reconstruction_per_image
from latentart.core.randomness import normal_for, sample_numbers
from latentart.errors import TrainingDivergedError
from latentart.process.devices import Placement
from latentart.training.build import build_optimizer
from latentart.training.steps.optim import clip_gradients, gradient_norm, set_learning_rate
from peers.setting import Setting, with_seed_0

KL_WEIGHT = 1e-6


def clip_finite(network: nn.Module, loss: Tensor, clip_norm: float, what: str, step: int) -> Tensor:
    """Clip gradients where a run has nothing to go back to, and return their norm before that.

    Raises:
        TrainingDivergedError: the loss or the norm is not finite; no weight was touched.
    """
    norm = gradient_norm(network)
    if not bool(torch.isfinite(loss) & torch.isfinite(norm)):
        numbers = f"loss {float(loss.detach()):.4g}, gradient norm {float(norm):.4g}"
        msg = f"the {what} diverged at step {step + 1}: {numbers}."
        raise TrainingDivergedError(msg, "Its last checkpoint is sound; go on from it with a lower learning rate.")
    clip_gradients(network, norm, clip_norm)
    return norm


AutoencoderSetting = Setting[AutoencoderConfig]


def autoencoder_setting(name: str, widths: tuple[int, ...], side: int, batch_size: int) -> AutoencoderSetting:
    """Return the setting of both networks; ours has attention as the presets: linear, in the coarsest stage."""
    config = AutoencoderConfig(
        widths=widths,
        latent_channels=4,
        groups=8,
        head_channels=min(32, widths[-1] // 4),
        attention=("none",) * (len(widths) - 1) + ("linear",),
    )
    return Setting(name, config, side, batch_size)


def noise_images(setting: AutoencoderSetting) -> Tensor:
    """Return a batch of noise as images."""
    shape = (3, setting.side, setting.side)
    return normal_for(0, "bench images", range(setting.batch_size), shape).clamp(-1, 1)


def posterior_noise(setting: AutoencoderSetting, step: int = 0) -> Tensor:
    """Return the posterior noise of a step, ``[B, Z, h, w]``."""
    side = setting.side // setting.model.factor
    numbers = sample_numbers(step, setting.batch_size)
    return normal_for(0, "bench posterior", numbers, (setting.model.latent_channels, side, side))


class Contender:
    """An autoencoder and its optimizer; ``encode`` gives moments of images, ``decode`` images of latents."""

    def __init__(
        self,
        name: str,
        network: nn.Module,
        encode: Callable[[Tensor], Tensor],
        decode: Callable[[Tensor], Tensor],
        optimizer: OptimizerConfig,
        placement: Placement,
    ) -> None:
        self.name, self.network, self.placement = name, placement.place(network), placement
        self.encode, self.decode = encode, decode
        self.clip_norm, self.optimizer = optimizer.clip_norm, build_optimizer(network, optimizer)

    def __call__(self, batch: tuple[Tensor, Tensor], step: int, rate: float) -> None:
        """Update the weights by images and noise, at a learning rate."""
        set_learning_rate(self.optimizer, rate)
        self.step(*batch, clips=True, number=step)

    def step(self, images: Tensor, noise: Tensor, *, clips: bool = False, number: int = 0) -> Tensor:
        """Update the weights once, which an error calls by its number; return the loss."""
        loss = self.backward(images, noise)
        if clips:
            clip_finite(self.network, loss, self.clip_norm, self.name, number)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return loss.detach()

    def backward(self, images: Tensor, noise: Tensor) -> Tensor:
        """Give every weight its gradient of L1 + 1e-6 KL; return the loss."""
        with self.placement.autocast():
            moments = self.encode(images)
            images_hat = self.decode(sample_posterior(moments, noise))
        loss = reconstruction_per_image(images_hat, images).mean() + KL_WEIGHT * kl_per_image(moments).mean()
        torch.autograd.backward(loss)
        return loss

    @torch.no_grad()
    def reconstruct(self, images: Tensor) -> Tensor:
        """Return what the decoder makes of the posterior's mean, ``[B, 3, H, W]`` float32 in -1…1."""
        with self.placement.autocast():
            images_hat = self.decode(split_moments(self.encode(images))[0])
        return images_hat.float().clamp(-1, 1)

    def held_bytes(self) -> int:
        """Return the memory that stays in use between two steps: weights and the optimizer's moments."""
        state = [value for values in self.optimizer.state.values() for value in values.values()]
        tensors = [*self.network.parameters(), *self.network.buffers(), *filter(torch.is_tensor, state)]
        return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def demo_optimizer() -> OptimizerConfig:
    """Return how the demo trains its autoencoder; both contenders take all of it but the rate."""
    return resolve({"preset": "demo"}).vae.optimizer


def build_our_autoencoder(setting: AutoencoderSetting, placement: Placement) -> Contender:
    """Return our autoencoder."""
    network: Any = with_seed_0(lambda: build_autoencoder(setting.model))
    return Contender("ours", network, network.encode, network.decode, demo_optimizer(), placement)


def build_peer(setting: AutoencoderSetting, placement: Placement) -> Contender:
    """Return diffusers' autoencoder of the same channels, one block per stage, with its own attention in the middle."""
    import diffusers

    config, build = setting.model, cast("Callable[..., nn.Module]", diffusers.AutoencoderKL)
    stages = len(config.widths)
    network: Any = with_seed_0(
        lambda: build(
            down_block_types=("DownEncoderBlock2D",) * stages,
            up_block_types=("UpDecoderBlock2D",) * stages,
            block_out_channels=config.widths,
            layers_per_block=1,
            latent_channels=config.latent_channels,
            norm_num_groups=config.groups,
        )
    )
    return Contender(
        "AutoencoderKL",
        network,
        lambda images: network.encode(images).latent_dist.parameters,
        lambda z: network.decode(z).sample,
        demo_optimizer(),
        placement,
    )


def compile_halves(network: nn.Module) -> None:
    """Send encoder and decoder through torch.compile, which both networks call by these names."""
    for half in (network.encoder, network.decoder):
        assert isinstance(half, nn.Module)
        half.compile()
