"""The PatchGAN discriminator: one logit per patch of a picture."""

from __future__ import annotations

import itertools

from torch import Tensor, nn

from latentart.core.networks.normalization import GroupNorm


class PatchDiscriminator(nn.Module):
    """Strided 4x4 convolutions that score overlapping patches (Isola et al. 1611.07004, section 3.2.2).

    Differs from the paper: group normalization in place of batch normalization, so the score of image i does not
    depend on its batch. Strided convolutions are harmless here: nothing is drawn with them.

    Args:
        base_channels: width of the first layer; doubled at each further one, up to eight times.
        num_layers: strided layers; each doubles the patch (3 make patches of 70 px).
        groups: groups of each normalization.
    """

    def __init__(self, base_channels: int = 64, num_layers: int = 3, groups: int = 8) -> None:
        super().__init__()
        widths = [base_channels * min(2**i, 8) for i in range(num_layers + 1)]
        layers: list[nn.Module] = [nn.Conv2d(3, widths[0], 4, stride=2, padding=1), nn.LeakyReLU(0.2)]
        for i, (a, b) in enumerate(itertools.pairwise(widths)):
            stride = 2 if i + 1 < num_layers else 1
            layers += [nn.Conv2d(a, b, 4, stride=stride, padding=1, bias=False), GroupNorm(groups, b)]
            layers += [nn.LeakyReLU(0.2)]
        layers += [nn.Conv2d(widths[-1], 1, 4, padding=1)]
        self.layers = nn.Sequential(*layers)

    def forward(self, images: Tensor) -> Tensor:
        """Return patch logits ``[B, 1, h', w']`` (float32) of images ``[B, 3, H, W]`` in -1…1."""
        return self.layers(images).float()
