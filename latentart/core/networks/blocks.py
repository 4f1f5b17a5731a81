"""The blocks that the autoencoder and the denoiser share: ResNet block, resamplers, stages, middle.

A stage is ResNet blocks, attention, resampler. Going down it hands back its features as well, for the skip
connections of the denoiser; going up it takes them.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from latentart.core.networks.attention import build_attention, unit_gain, zero_init
from latentart.core.networks.normalization import GroupNorm
from latentart.kinds import AttentionKind, Downsampling, Upsampling


@dataclass(frozen=True)
class BlockShape:
    """What every block of one network has in common.

    Attributes:
        groups: groups of each normalization; must divide every channel count.
        head_channels: channels of one attention head.
        dropout: share of features dropped in each ResNet block, 0…1.
        conditioning_channels: length of the vector that scales and shifts each ResNet block; 0 for none.
    """

    groups: int = 8
    head_channels: int = 32
    dropout: float = 0.0
    conditioning_channels: int = 0


@dataclass(frozen=True, kw_only=True)
class StackShape:
    """What the stages of one network are, the finest first, and its middle.

    Attributes:
        widths: channels of each stage; every stage after the first halves height and width.
        num_blocks: ResNet blocks of each stage.
        attention: at the end of each stage. middle_attention: between the two ResNet blocks of the middle.
        blocks: what every block has.
    """

    widths: Sequence[int]
    num_blocks: int
    attention: Sequence[AttentionKind]
    middle_attention: AttentionKind
    downsampling: Downsampling = "average"
    upsampling: Upsampling = "nearest"
    blocks: BlockShape = BlockShape()

    @property
    def factor(self) -> int:
        """How often height and width are halved, as a factor."""
        return int(2 ** (len(self.widths) - 1))

    def build_down(self) -> nn.ModuleList:
        """Return the stages on the way down, the finest first."""
        last = len(self.widths) - 1
        return nn.ModuleList(
            DownStage(
                self.widths[max(i - 1, 0)],
                width,
                num_blocks=self.num_blocks,
                attention=self.attention[i],
                downsampling=self.downsampling if i < last else None,
                shape=self.blocks,
            )
            for i, width in enumerate(self.widths)
        )

    def build_middle(self) -> MiddleBlock:
        """Return the middle, at the width of the coarsest stage."""
        return MiddleBlock(self.widths[-1], attention=self.middle_attention, shape=self.blocks)

    def build_up(self, *, has_skips: bool) -> nn.ModuleList:
        """Return the stages on the way up, the coarsest first, which may take the features of those on the way down."""
        last = len(self.widths) - 1
        return nn.ModuleList(
            UpStage(
                self.widths[min(i + 1, last)],
                width,
                num_blocks=self.num_blocks,
                attention=self.attention[i],
                upsampling=self.upsampling if i > 0 else None,
                shape=self.blocks,
                skip_channels=width if has_skips else 0,
            )
            for i, width in reversed(list(enumerate(self.widths)))
        )


class ResidualBlock(nn.Module):
    """Two normalized 3x3 convolutions beside a shortcut, optionally scaled and shifted by a conditioning vector.

    ``x + conv2(drop(silu(scale-shift(norm2(conv1(silu(norm1(x))))))))``; scale-shift conditioning as in Dhariwal &
    Nichol 2105.05233, section 3.1 (AdaGN). The second convolution starts at zero: the block begins as its shortcut.
    """

    def __init__(self, in_channels: int, out_channels: int, shape: BlockShape) -> None:
        super().__init__()
        self.norm1 = GroupNorm(shape.groups, in_channels)
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.norm2 = GroupNorm(shape.groups, out_channels)
        self.conv2 = zero_init(nn.Conv2d(out_channels, out_channels, 3, padding=1))
        self.dropout = nn.Dropout(shape.dropout)
        width = shape.conditioning_channels
        self.to_scale_shift = nn.Linear(width, 2 * out_channels) if width else None
        same = in_channels == out_channels
        self.shortcut = nn.Identity() if same else unit_gain(nn.Conv2d(in_channels, out_channels, 1))

    def forward(self, x: Tensor, conditioning: Tensor | None = None) -> Tensor:
        """Map ``[B, in, h, w]`` (and ``[B, conditioning]``) to ``[B, out, h, w]``."""
        h = self.norm2(self.conv1(functional.silu(self.norm1(x))))
        if self.to_scale_shift is not None and conditioning is not None:
            scale, shift = self.to_scale_shift(conditioning)[:, :, None, None].chunk(2, dim=1)
            h = torch.addcmul(shift, h, scale + 1)
        return self.shortcut(x) + self.conv2(self.dropout(functional.silu(h)))


def build_downsampler(kind: Downsampling, channels: int) -> nn.Module:
    """Return a layer that halves height and width; ``strided`` is the seed's legacy."""
    if kind == "strided":
        return nn.Conv2d(channels, channels, 4, stride=2, padding=1)
    return nn.AvgPool2d(2) if kind == "average" else nn.MaxPool2d(2)


def build_upsampler(kind: Upsampling, channels: int) -> nn.Module:
    """Return a layer that doubles height and width; ``transposed`` is the seed's legacy."""
    if kind == "transposed":
        return nn.ConvTranspose2d(channels, channels, 4, stride=2, padding=1)
    return nn.Upsample(scale_factor=2, mode=kind)


class Stage(nn.Module):
    """Layers that keep only their inputs for the backward pass where ``recompute`` is set (Chen et al. 1604.06174).

    Each goes forward once more, with the same dropout, when its gradient is due: a third more time, and memory holds
    the activations of one layer at a time. By the layer, as a whole stage at once would need more.
    """

    recompute = False

    def run(self, layer: nn.Module, *inputs: Tensor | None) -> Tensor:
        """Return what the layer makes of its inputs."""
        if self.recompute and torch.is_grad_enabled():
            return checkpoint(layer, *inputs, use_reentrant=False)
        return layer(*inputs)


def set_recompute(network: nn.Module, recompute: bool) -> None:
    """Switch recomputation on or off in every stage of a network."""
    for module in network.modules():
        if isinstance(module, Stage):
            module.recompute = recompute


class DownStage(Stage):
    """ResNet blocks, attention, then a downsampler (none after the last stage)."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        num_blocks: int,
        attention: AttentionKind,
        downsampling: Downsampling | None,
        shape: BlockShape,
    ) -> None:
        super().__init__()
        widths = [in_channels] + [out_channels] * num_blocks
        self.blocks = nn.ModuleList(ResidualBlock(a, b, shape) for a, b in itertools.pairwise(widths))
        self.attention = build_attention(
            attention, out_channels, head_channels=shape.head_channels, groups=shape.groups
        )
        self.resample = build_downsampler(downsampling, out_channels) if downsampling else nn.Identity()

    def forward(self, x: Tensor, conditioning: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Map ``[B, in, h, w]`` to (``[B, out, h/2, w/2]``, the features before the downsampler)."""
        for block in self.blocks:
            x = self.run(block, x, conditioning)
        features = self.run(self.attention, x)
        return self.resample(features), features


class UpStage(Stage):
    """ResNet blocks, attention, then an upsampler (none after the last stage); takes a skip connection if given."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        num_blocks: int,
        attention: AttentionKind,
        upsampling: Upsampling | None,
        shape: BlockShape,
        skip_channels: int = 0,
    ) -> None:
        super().__init__()
        widths = [in_channels + skip_channels] + [out_channels] * num_blocks
        self.blocks = nn.ModuleList(ResidualBlock(a, b, shape) for a, b in itertools.pairwise(widths))
        self.attention = build_attention(
            attention, out_channels, head_channels=shape.head_channels, groups=shape.groups
        )
        self.resample = build_upsampler(upsampling, out_channels) if upsampling else nn.Identity()

    def forward(self, x: Tensor, conditioning: Tensor | None = None, skip: Tensor | None = None) -> Tensor:
        """Map ``[B, in, h, w]`` (and a skip ``[B, skip, h, w]``) to ``[B, out, 2h, 2w]``."""
        if skip is not None:
            x = torch.cat([x, skip], dim=1)
        for block in self.blocks:
            x = self.run(block, x, conditioning)
        return self.resample(self.run(self.attention, x))


class MiddleBlock(Stage):
    """ResNet block, attention, ResNet block at the lowest resolution."""

    def __init__(self, channels: int, *, attention: AttentionKind, shape: BlockShape) -> None:
        super().__init__()
        self.block1 = ResidualBlock(channels, channels, shape)
        self.attention = build_attention(attention, channels, head_channels=shape.head_channels, groups=shape.groups)
        self.block2 = ResidualBlock(channels, channels, shape)

    def forward(self, x: Tensor, conditioning: Tensor | None = None) -> Tensor:
        """Map ``[B, C, h, w]`` to the same shape."""
        x = self.run(self.attention, self.run(self.block1, x, conditioning))
        return self.run(self.block2, x, conditioning)
