"""The denoiser: a UNet of the autoencoder's down and up stages, conditioned on timestep and style."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from latentart.core.networks.attention import unit_gain, zero_init
from latentart.core.networks.blocks import BlockShape, DownStage, MiddleBlock, UpStage
from latentart.core.networks.conditioning import Denoiser
from latentart.kinds import AttentionKind, Downsampling, Upsampling


class UNet(Denoiser):
    """A UNet with attention in every stage and in the middle; the output convolution starts at zero.

    Args:
        latent_channels: Z.
        num_labels: how many labels each column has; the first column is the style.
        widths: channels of each stage, from the finest.
        conditioning_channels comes from ``shape`` and must be even.

    Raises:
        ValueError: a map is too small to be halved as often as there are stages.
    """

    def __init__(
        self,
        latent_channels: int,
        num_labels: Sequence[int],
        widths: Sequence[int],
        *,
        num_blocks: int,
        attention: Sequence[AttentionKind],
        middle_attention: AttentionKind,
        downsampling: Downsampling,
        upsampling: Upsampling,
        shape: BlockShape,
    ) -> None:
        super().__init__(num_labels, shape.conditioning_channels, factor=2 ** (len(widths) - 1))
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
