"""Features of images by an untrained network that needs no download."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

MIN_SIDE = 16  # pixels
NUM_SCALES = 4
NUM_FILTERS = 8
FLOOR = 1 / 127.5  # one step of 8 bits: weaker responses are rounding


class RandomFeatures(nn.Module):
    """Map images ``[B, 3, H, W]`` in -1…1 to features ``[B, 70]`` float32: an offline stand-in for Inception.

    A Fréchet distance over these features is no FID, though it grows with blur, noise and grids as that does: compare
    its numbers only among themselves, and only for one seed and one size of images.

    The images are halved three times. At each of the four scales ``r`` are the responses of 8 random 3x3 filters, of
    length 1 and blind to flat color, and the features are the logarithms of mean and standard deviation of ``|r|``
    over all places: of equal weight, however strong a filter's responses are. The other six are each color's mean
    and standard deviation.
    """

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        filters = torch.randn(NUM_SCALES, NUM_FILTERS, 3, 3, 3, generator=generator)
        filters = filters - filters.mean((-2, -1), keepdim=True)
        self.register_buffer("filters", functional.normalize(filters.flatten(2), dim=2).view_as(filters))
        self.dimensions = 2 * NUM_FILTERS * NUM_SCALES + 6

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        """Return the features, ``[B, dimensions]`` float32; what lies out of range counts as the edge.

        Raises:
            ValueError: images are not ``[B, 3, H, W]`` of at least 16 pixels each way.
        """
        if images.ndim != 4 or images.shape[1] != 3 or min(images.shape[2:]) < MIN_SIDE:
            msg = f"images: got shape {list(images.shape)}, expected [B, 3, H, W] of at least {MIN_SIDE} pixels"
            raise ValueError(msg)
        with torch.autocast(images.device.type, enabled=False):
            x = images.float().clamp(-1, 1)
            found = [_mean_and_std(x)]
            for filters in self.get_buffer("filters"):
                responses = functional.conv2d(functional.pad(x, (1, 1, 1, 1), mode="replicate"), filters).abs()
                found.append((_mean_and_std(responses) + FLOOR).log())
                x = functional.avg_pool2d(x, 2)
            return torch.cat(found, dim=1)


def _mean_and_std(x: Tensor) -> Tensor:
    """Return mean ⊕ standard deviation over all places, ``[B, 2C]``, of ``[B, C, H, W]``."""
    return torch.cat([x.mean((2, 3)), x.std((2, 3), correction=0)], dim=1)
