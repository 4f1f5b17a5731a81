"""The blocks: what each computes at the start, how it is conditioned, and which resamplers keep flat maps flat."""

from __future__ import annotations

from typing import get_args

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from latentart.core.networks.blocks import (
    BlockShape,
    DownStage,
    MiddleBlock,
    ResidualBlock,
    UpStage,
    build_downsampler,
    build_upsampler,
)
from latentart.core.networks.normalization import GroupNorm
from latentart.kinds import Downsampling, Upsampling

SHAPE = BlockShape(groups=2, head_channels=4)
CONDITIONED = BlockShape(groups=2, head_channels=4, conditioning_channels=6)


def draw(*shape: int, seed: int = 0) -> Tensor:
    """Return normal float32 numbers."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def randomize(network: nn.Module) -> nn.Module:
    """Fill every weight, those that start at zero too."""
    for number, parameter in enumerate(network.parameters()):
        parameter.data = draw(*parameter.shape, seed=number) * 0.3
    return network


@pytest.mark.parametrize("out_channels", [4, 6])
def test_a_new_block_is_its_shortcut(out_channels: int) -> None:
    """The second convolution starts at zero, so the branch is silent, conditioned or not."""
    block = ResidualBlock(4, out_channels, CONDITIONED)
    x = draw(2, 4, 5, 3)

    out = block(x, draw(2, 6))

    assert torch.equal(out, block.shortcut(x))
    assert isinstance(block.shortcut, nn.Identity) == (out_channels == 4)


def test_block_is_its_formula() -> None:
    """The block is x + conv2(silu(norm2(conv1(silu(norm1(x)))) · (1 + scale) + shift)), AdaGN of Dhariwal & Nichol."""
    block = ResidualBlock(4, 4, CONDITIONED)
    randomize(block)
    x, conditioning = draw(2, 4, 5, 3), draw(2, 6)

    out = block(x, conditioning)

    assert block.to_scale_shift is not None
    scale, shift = block.to_scale_shift(conditioning)[:, :4, None, None], block.to_scale_shift(conditioning)[:, 4:]
    h = block.norm2(block.conv1(functional.silu(block.norm1(x)))) * (1 + scale) + shift[:, :, None, None]
    torch.testing.assert_close(out, x + block.conv2(functional.silu(h)), atol=1e-5, rtol=1e-5)


def test_dropout_acts_only_in_training() -> None:
    """In evaluation a block with dropout is a function; in training it drops."""
    block = randomize(ResidualBlock(4, 4, BlockShape(groups=2, dropout=0.5)))
    x = draw(1, 4, 8, 8)

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        trained = block.train()(x), block(x)
    evaluated = block.eval()(x), block(x)

    assert not torch.equal(*trained)
    assert torch.equal(*evaluated)


def test_group_norm_computes_in_float32_and_returns_the_input_type() -> None:
    """In bfloat16 the result is the float32 one, rounded once."""
    norm = GroupNorm(2, 4)
    x = (100 + draw(2, 4, 8, 8)).bfloat16()

    out = norm(x)

    assert out.dtype == torch.bfloat16
    assert torch.equal(out, functional.group_norm(x.float(), 2).bfloat16())


@pytest.mark.parametrize("kind", get_args(Downsampling))
def test_downsamplers_halve_the_size(kind: Downsampling) -> None:
    """Every kind gives half the height and width and keeps the channels."""
    assert build_downsampler(kind, 4)(draw(2, 4, 6, 10)).shape == (2, 4, 3, 5)


@pytest.mark.parametrize("kind", get_args(Upsampling))
def test_upsamplers_double_the_size(kind: Upsampling) -> None:
    """Every kind gives twice the height and width and keeps the channels."""
    assert build_upsampler(kind, 4)(draw(2, 4, 3, 5)).shape == (2, 4, 6, 10)


def test_pooling_takes_the_mean_or_the_largest_of_four() -> None:
    """Average and max pooling do what their names say, without weights."""
    x = torch.tensor([[1.0, 2.0], [3.0, 6.0]]).view(1, 1, 2, 2)

    assert build_downsampler("average", 1)(x).item() == 3.0
    assert build_downsampler("max", 1)(x).item() == 6.0


@pytest.mark.parametrize("kind", ["nearest", "bilinear", "bicubic"])
def test_interpolation_keeps_a_flat_map_flat(kind: Upsampling) -> None:
    """A constant in, the same constant out: no grid."""
    out = build_upsampler(kind, 2)(torch.full((1, 2, 4, 4), 0.7))

    torch.testing.assert_close(out, torch.full((1, 2, 8, 8), 0.7), atol=1e-6, rtol=0)


def test_down_stage_hands_back_its_features_before_the_downsampler() -> None:
    """The skip connection has the full size, the output is its downsampled self."""
    stage = DownStage(4, 8, num_blocks=2, attention="linear", downsampling="max", shape=SHAPE)
    randomize(stage)

    out, features = stage(draw(2, 4, 6, 10))

    assert len(stage.blocks) == 2
    assert features.shape == (2, 8, 6, 10)
    assert torch.equal(out, functional.max_pool2d(features, 2))


def test_last_stage_keeps_the_size() -> None:
    """Without a resampler output and features are one."""
    stage = DownStage(4, 8, num_blocks=1, attention="none", downsampling=None, shape=SHAPE)

    out, features = stage(draw(2, 4, 6, 10))

    assert torch.equal(out, features)


def test_up_stage_takes_its_skip_connection_in() -> None:
    """Input and skip are joined by channels, and both matter to the doubled output."""
    stage = UpStage(4, 8, num_blocks=1, attention="none", upsampling="nearest", shape=CONDITIONED, skip_channels=6)
    randomize(stage)
    x, skip, conditioning = draw(2, 4, 3, 5), draw(2, 6, 3, 5), draw(2, 6)

    out = stage(x, conditioning, skip)

    assert out.shape == (2, 8, 6, 10)
    assert not torch.equal(out, stage(x, conditioning, skip + 1))
    assert not torch.equal(out, stage(x + 1, conditioning, skip))
    assert not torch.equal(out, stage(x, conditioning + 1, skip))


def test_middle_begins_as_the_identity() -> None:
    """Both blocks and the attention between them start silent."""
    x = draw(2, 8, 3, 5)

    assert torch.equal(MiddleBlock(8, attention="full", shape=SHAPE)(x), x)
