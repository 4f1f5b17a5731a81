"""The denoiser: a UNet of the autoencoder's down and up stages, conditioned on timestep and style."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from latentart.core.networks.attention import AttentionKind, unit_gain, zero_init
from latentart.core.networks.blocks import (
    BlockShape,
    Downsampling,
    DownStage,
    MiddleBlock,
    Upsampling,
    UpStage,
)


def embed_timesteps(t: Tensor, channels: int, max_period: float = 10_000.0) -> Tensor:
    """Return sines and cosines of ``t`` at geometric frequencies, ``[B, channels]`` (Vaswani et al., section 3.5)."""
    half = channels // 2
    frequencies = torch.exp(-math.log(max_period) * torch.arange(half, device=t.device) / half)
    angles = t.float()[:, None] * frequencies[None]
    return torch.cat([angles.cos(), angles.sin()], dim=1)


class UNet(nn.Module):
    """Predicts the target (noise, clean latents or velocity) from noised latents, timestep and style.

    Attention in every stage and in the middle. One row of the style table is the null style, index ``num_styles``:
    training drops styles to it and guidance needs it. The output convolution starts at zero.

    Args:
        latent_channels: Z.
        num_styles: K; the table has K + 1 rows.
        widths: channels of each stage, from the finest.
        conditioning_channels comes from ``shape`` and must be even.

    Raises:
        ValueError: a map is too small to be halved as often as there are stages.
    """

    def __init__(
        self,
        latent_channels: int,
        num_styles: int,
        widths: Sequence[int],
        *,
        num_blocks: int,
        attention: Sequence[AttentionKind],
        middle_attention: AttentionKind,
        downsampling: Downsampling,
        upsampling: Upsampling,
        shape: BlockShape,
    ) -> None:
        super().__init__()
        self.num_styles = num_styles
        self.factor = 2 ** (len(widths) - 1)
        self.embedding_channels = width = shape.conditioning_channels
        self.time_mlp = nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width))
        self.style_embedding = nn.Embedding(num_styles + 1, width)
        self.conv_in = unit_gain(nn.Conv2d(latent_channels, widths[0], 3, padding=1))
        last = len(widths) - 1
        self.down = nn.ModuleList(
            DownStage(
                widths[max(i - 1, 0)],
                width,
                num_blocks=num_blocks,
                attention=attention[i],
                downsampling=downsampling if i < last else None,
                shape=shape,
            )
            for i, width in enumerate(widths)
        )
        self.middle = MiddleBlock(widths[-1], attention=middle_attention, shape=shape)
        self.up = nn.ModuleList(
            UpStage(
                widths[min(i + 1, last)],
                width,
                num_blocks=num_blocks,
                attention=attention[i],
                upsampling=upsampling if i > 0 else None,
                shape=shape,
                skip_channels=width,
            )
            for i, width in reversed(list(enumerate(widths)))
        )
        self.conv_out = zero_init(nn.Conv2d(widths[0], latent_channels, 3, padding=1))

    @property
    def null_style_id(self) -> int:
        """The index that means "no style"."""
        return self.num_styles

    def forward(self, x_t: Tensor, t: Tensor, style_id: Tensor) -> Tensor:
        """Return the prediction ``[B, Z, h, w]`` (float32) for ``x_t`` at timesteps ``t`` [B] and ``style_id`` [B]."""
        if x_t.shape[-1] % self.factor or x_t.shape[-2] % self.factor:
            msg = f"latent height and width must be multiples of {self.factor}: got {tuple(x_t.shape[-2:])}"
            raise ValueError(msg)
        time = self.time_mlp(embed_timesteps(t, self.embedding_channels))
        conditioning = functional.silu(time + self.style_embedding(style_id))
        x = self.conv_in(x_t)
        skips = []
        for down in self.down:
            x, features = down(x, conditioning)
            skips.append(features)
        x = self.middle(x, conditioning)
        for up in self.up:
            x = up(x, conditioning, skips.pop())
        return self.conv_out(x).float()
