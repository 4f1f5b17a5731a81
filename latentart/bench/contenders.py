"""The two autoencoders that `latentart bench vae` compares, and what they have in common."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from latentart.builders import build_autoencoder
from latentart.config.optim import OptimizerConfig
from latentart.config.vae import AutoencoderConfig
from latentart.config.workspace import resolve
from latentart.core.latents import kl_per_image, sample_posterior, split_moments
from latentart.core.losses import reconstruction_per_image
from latentart.core.randomness import normal_for, sample_numbers
from latentart.errors import UsageError
from latentart.process.devices import Placement
from latentart.training.build import build_optimizer
from latentart.training.steps.optim import clip_finite

KL_WEIGHT = 1e-6


@dataclass(frozen=True)
class Setting:
    """What both networks have in common, and what they are fed with."""

    name: str
    widths: tuple[int, ...]
    resolution: int
    batch_size: int
    latent_channels: int = 4
    groups: int = 8

    @property
    def factor(self) -> int:
        """f: image height over latent height."""
        return int(2 ** (len(self.widths) - 1))

    def images(self) -> Tensor:
        """Return a batch of noise as images."""
        shape = (3, self.resolution, self.resolution)
        return normal_for(0, "bench images", range(self.batch_size), shape).clamp(-1, 1)

    def noise(self, step: int = 0) -> Tensor:
        """Return the posterior noise of a step, ``[B, Z, h, w]``."""
        side = self.resolution // self.factor
        numbers = sample_numbers(step, self.batch_size)
        return normal_for(0, "bench posterior", numbers, (self.latent_channels, side, side))


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

    def step(self, images: Tensor, noise: Tensor, *, clips: bool = False) -> Tensor:
        """Update the weights once; return the loss."""
        loss = self.backward(images, noise)
        if clips:
            clip_finite(self.network, loss, self.clip_norm, self.name, 0)
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

    def num_parameters(self) -> int:
        """Return how many numbers are trained."""
        return sum(parameter.numel() for parameter in self.network.parameters())

    def held_bytes(self) -> int:
        """Return the memory that stays in use between two steps: weights and the optimizer's moments."""
        state = [value for values in self.optimizer.state.values() for value in values.values()]
        tensors = [*self.network.parameters(), *self.network.buffers(), *filter(torch.is_tensor, state)]
        return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def find_peer(bench: str = "vae") -> Any:
    """Return diffusers, which only a bench of this name needs.

    Raises:
        UsageError: it is not installed.
    """
    try:
        import diffusers
    except ImportError:
        msg = f"`bench {bench}` compares with diffusers, which is not installed."
        raise UsageError(msg, 'Get it with: pip install ".[bench]"') from None
    return diffusers


def demo_optimizer() -> OptimizerConfig:
    """Return how the demo trains its autoencoder; both contenders take all of it but the rate."""
    return resolve({"preset": "demo"}).vae.optimizer


def build_ours(setting: Setting, placement: Placement) -> Contender:
    """Return our autoencoder, with attention as the presets have it: linear, in the coarsest stage and the middle."""
    stages = len(setting.widths)
    config = AutoencoderConfig(
        widths=setting.widths,
        latent_channels=setting.latent_channels,
        groups=setting.groups,
        head_channels=min(32, setting.widths[-1] // 4),
        attention=("none",) * (stages - 1) + ("linear",),
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = build_autoencoder(config)
    return Contender("ours", network, network.encode, network.decode, demo_optimizer(), placement)


def build_peer(setting: Setting, placement: Placement) -> Contender:
    """Return diffusers' autoencoder of the same channels, one block per stage, with its own attention in the middle."""
    stages = len(setting.widths)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = find_peer().AutoencoderKL(
            down_block_types=("DownEncoderBlock2D",) * stages,
            up_block_types=("UpDecoderBlock2D",) * stages,
            block_out_channels=setting.widths,
            layers_per_block=1,
            latent_channels=setting.latent_channels,
            norm_num_groups=setting.groups,
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
