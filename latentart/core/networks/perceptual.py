"""LPIPS, the learned perceptual distance (Zhang et al. 1801.03924). Weights are handed in, never fetched here.

``d(a, b) = Σ_l mean_hw Σ_c w_lc (f̂_l(a) - f̂_l(b))²`` (eq. 1), ``f̂`` the features of layer l at unit length.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

# of the pictures that the backbones were trained on, in the range -1…1 (the authors' scaling layer)
_SHIFT = (-0.030, -0.088, -0.188)
_SCALE = (0.458, 0.448, 0.450)


class PerceptualDistance(nn.Module):
    """The distance between two batches of images in the features of a frozen backbone.

    Args:
        slices: the backbone cut after each compared layer; each takes the former's output.
        channel_weights: one non-negative vector of length C_l per slice.
    """

    def __init__(self, slices: Sequence[nn.Module], channel_weights: Sequence[Tensor]) -> None:
        super().__init__()
        self.slices = nn.ModuleList(slices)
        for i, weights in enumerate(channel_weights):
            self.register_buffer(f"channel_weights_{i}", weights.reshape(1, -1, 1, 1).float())
        self.register_buffer("shift", torch.tensor(_SHIFT).view(1, 3, 1, 1))
        self.register_buffer("scale", torch.tensor(_SCALE).view(1, 3, 1, 1))
        self.requires_grad_(requires_grad=False).eval()

    def features(self, images: Tensor) -> list[Tensor]:
        """Return the unit-length features ``[B, C_l, h_l, w_l]`` of every compared layer."""
        x = (images - self.get_buffer("shift")) / self.get_buffer("scale")
        found = []
        for part in self.slices:
            x = part(x)
            features = x.float()
            found.append(features / (features.square().sum(1, keepdim=True).sqrt() + 1e-10))
        return found

    def forward(self, images: Tensor, other: Tensor) -> Tensor:
        """Return the distance per image, ``[B]`` float32, of images ``[B, 3, H, W]`` in -1…1."""
        total = torch.zeros(len(images), device=images.device)
        for i, (a, b) in enumerate(zip(self.features(images), self.features(other), strict=True)):
            weighted = (a - b).square() * self.get_buffer(f"channel_weights_{i}")
            total = total + weighted.sum(1).mean((1, 2))
        return total


def build_random_slices(generator: torch.Generator, widths: Sequence[int] = (8, 16, 32)) -> list[nn.Module]:
    """Return a small untrained backbone: the `random` choice, for trying the tool where no weights can be had.

    Random convolutional features still measure structure, but less well than trained ones: a stand-in, not a peer.
    """
    slices: list[nn.Module] = []
    channels = 3
    for i, width in enumerate(widths):
        conv = nn.Conv2d(channels, width, 3, padding=1)
        with torch.no_grad():
            conv.weight.copy_(torch.randn(conv.weight.shape, generator=generator) * (2 / (9 * channels)) ** 0.5)
            conv.bias.zero_()  # type: ignore[union-attr]
        slices.append(nn.Sequential(*([nn.AvgPool2d(2)] if i else []), conv, nn.ReLU()))
        channels = width
    return slices
