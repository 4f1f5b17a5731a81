"""The denoiser: a UNet of the autoencoder's down and up stages, conditioned on timestep and style."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from latentart.core.networks.attention import unit_gain, zero_init
from latentart.core.networks.blocks import StackShape
from latentart.core.networks.conditioning import Denoiser


class UNet(Denoiser):
    """A UNet with attention in every stage and in the middle; the output convolution starts at zero.

    Args:
        latent_channels: Z.
        num_labels: how many labels each column has; the first column is the style.
        stack: the stages; the conditioning channels of its blocks must be even.

    Raises:
        ValueError: a map is too small to be halved as often as there are stages.
    """

    def __init__(self, latent_channels: int, num_labels: Sequence[int], stack: StackShape) -> None:
        super().__init__(num_labels, stack.blocks.conditioning_channels, factor=stack.factor)
        self.conv_in = unit_gain(nn.Conv2d(latent_channels, stack.widths[0], 3, padding=1))
        self.down = stack.build_down()
        self.middle = stack.build_middle()
        self.up = stack.build_up(has_skips=True)
        self.conv_out = zero_init(nn.Conv2d(stack.widths[0], latent_channels, 3, padding=1))

    def forward(self, x_t: Tensor, t: Tensor, style_id: Tensor) -> Tensor:
        """Return the prediction ``[B, Z, h, w]``, see ``Denoiser``."""
        self.require_size(x_t)
        conditioning = self.condition(t, style_id)
        x = self.conv_in(x_t)
        skips = []
        for down in self.down:
            x, features = down(x, conditioning)
            skips.append(features)
        x = self.middle(x, conditioning)
        for up in self.up:
            x = up(x, conditioning, skips.pop())
        return self.conv_out(x).float()
