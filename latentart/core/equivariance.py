"""The same turn and change of size for latents and for images: what an equivariant decoder should commute with."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional


@dataclass(frozen=True)
class Transform:
    """A turn by quarters and a reduction; the transforms of EQ-VAE (Kouzelis et al. 2502.09509, section 3.3).

    Attributes:
        quarter_turns: 0…3, against the clock.
        scale: new side over old side, 0…1.
    """

    quarter_turns: int
    scale: float

    def latents(self, z: Tensor) -> Tensor:
        """Return the transformed latents ``[B, Z, h', w']`` of ``z`` ``[B, Z, h, w]``."""
        height, width = (max(1, round(side * self.scale)) for side in z.shape[-2:])
        return self._apply(z, (height, width))

    def images(self, images: Tensor, factor: int) -> Tensor:
        """Return images ``[B, 3, f·h', f·w']``: what the transformed latents of ``images`` should decode to."""
        height, width = (max(1, round(side // factor * self.scale)) * factor for side in images.shape[-2:])
        return self._apply(images, (height, width))

    def _apply(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        if size != tuple(x.shape[-2:]):
            x = functional.interpolate(x.float(), size, mode="bilinear", antialias=True)
        return torch.rot90(x, self.quarter_turns, (-2, -1))


def draw_transform(generator: torch.Generator, min_scale: float = 0.25) -> Transform:
    """Draw a transform: any of the four turns, a scale uniform in ``min_scale``…1 (Kouzelis et al., section 4)."""
    turns = int(torch.randint(4, (), generator=generator))
    return Transform(turns, min_scale + (1.0 - min_scale) * float(torch.rand((), generator=generator)))
