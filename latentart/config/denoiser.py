"""Settings of the denoiser's network."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from latentart.config.optim import Count
from latentart.config.vae import AttentionKind, BlocksConfig


class UNetConfig(BlocksConfig):
    """The denoiser's network."""

    kind: Literal["unet"] = "unet"
    """Names the network; there is one so far."""

    widths: Annotated[tuple[Count, ...], Field(min_length=1, max_length=8)] = (192, 384, 576)
    """Channels of each stage, the finest first; every stage after the first halves height and width. Our choice."""

    attention: tuple[AttentionKind, ...] = ("linear", "linear", "full")
    """Attention at the end of each stage, the finest first: none, linear (the seed), or full where there is little."""

    middle_attention: AttentionKind = "full"
    """Attention between the two ResNet blocks of the middle."""

    blocks_per_stage: Count = 2
    """ResNet blocks in each stage; 2 is latent diffusion's choice."""

    embedding_channels: Annotated[int, Field(ge=2, multiple_of=2)] = 512
    """Length of the vector that carries timestep and style into every ResNet block."""

    @property
    def factor(self) -> int:
        """What the latent side must be a multiple of."""
        return int(2 ** (len(self.widths) - 1))
