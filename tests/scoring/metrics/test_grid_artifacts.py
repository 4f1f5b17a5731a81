"""Grids that were planted are measured, and nothing else is."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from latentart.scoring.metrics.grid_artifacts import grid_strength

PERIODS = [2, 3, 4, 8]


def flat(side: int = 128, count: int = 1) -> Tensor:
    """Return images of one color."""
    return torch.tensor([0.3, -0.7, 0.1]).view(1, 3, 1, 1).expand(count, 3, side, side).clone()


def noise(*shape: int) -> Tensor:
    """Return standard normal numbers."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def checkerboard(side: int, period: int) -> Tensor:
    """Return squares of ±1, of half a period each."""
    square = torch.arange(side) // (period // 2) % 2
    return 1.0 - 2.0 * (square[:, None] ^ square)


def gradients(side: int = 128) -> Tensor:
    """Return linear and smoothly curved images."""
    x, y = torch.meshgrid(torch.linspace(-1, 1, side), torch.linspace(-1, 1, side), indexing="ij")
    return torch.stack([0.5 * x - 0.4 * y, 0.6 * x**2 - y**2 + x * y, (2 * x + y).sin(), 0.9 * x**3])[:, None].expand(
        -1, 3, -1, -1
    )


@pytest.mark.parametrize("period", [2, 4, 8])
@pytest.mark.parametrize("amplitude", [0.01, 0.2])
def test_a_checkerboard_gives_its_amplitude(period: int, amplitude: float) -> None:
    """On a flat color and on a gradient, wherever the border cuts it; for multiples of its period, not for others."""
    planted = amplitude * checkerboard(128, period)
    for ground in (flat(), gradients()[:1]):
        for border in (None, 0, 13, 37):
            assert grid_strength(ground + planted, period, border).item() == pytest.approx(amplitude, rel=1e-3)
    assert grid_strength(flat() + planted, 2 * period).item() == pytest.approx(amplitude, rel=1e-3)
    assert grid_strength(flat() + planted, 7).item() < 0.05 * amplitude


@pytest.mark.parametrize("period", PERIODS)
def test_any_pattern_gives_its_rms(period: int) -> None:
    """Over all channels, each image its own; stripes along one axis count too."""
    pattern = 0.1 * noise(3, 3, period, period)
    pattern[1] = pattern[1, :, :1]  # the same in every row
    pattern[2, 1:] = 0  # in one channel only
    tiles = pattern.repeat(1, 1, 50, 70)[:, :, :96, :128]

    strength = grid_strength(flat(128, 3)[:, :, :96] + tiles, period)

    deviation = pattern - pattern.mean((2, 3), keepdim=True)
    torch.testing.assert_close(strength, deviation.square().mean((1, 2, 3)).sqrt(), atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("period", PERIODS)
def test_flat_and_smooth_pictures_have_no_grid(period: int) -> None:
    """A flat color, a gradient and a parabola give 0 to rounding, other curves a tenth of an 8-bit step at most."""
    assert grid_strength(flat(), period).item() < 1e-6
    assert grid_strength(gradients()[:2], period).max().item() < 1e-6
    assert grid_strength(gradients(), period).max().item() < 0.1 / 127.5


@pytest.mark.parametrize("period", PERIODS)
def test_noise_averages_out(period: int) -> None:
    """White noise of deviation σ leaves about σ / √(number of periods), less with more pixels."""
    strength = grid_strength(0.1 * noise(1, 3, 256, 256), period, border=64).item()

    assert 0.5 < strength / (0.1 * period / 128) < 1.3


def test_what_padding_does_at_the_edges_does_not_count() -> None:
    """A frame of noise as wide as the border is left out."""
    images = flat()
    images += noise(1, 3, 128, 128) * functional.pad(torch.zeros(64, 64), (32, 32, 32, 32), value=1.0)

    assert grid_strength(images, 8).item() < 1e-6
    assert grid_strength(images, 8, border=16).item() > 0.01


def test_uneven_overlap_shows_and_an_even_one_does_not() -> None:
    """Kernel 3 at stride 2 leaves a grid of period 2; nearest neighbors and a convolution leave none."""
    torch.manual_seed(0)
    uneven = nn.ConvTranspose2d(8, 3, 3, stride=2, padding=1, output_padding=1)
    resized = nn.Sequential(nn.Upsample(scale_factor=2, mode="nearest"), nn.Conv2d(8, 3, 3, padding=1))
    latents = torch.ones(1, 8, 32, 32)

    with torch.no_grad():
        strengths = [grid_strength(decode(latents), 2).item() for decode in (uneven, resized)]

    assert strengths[0] > 0.05
    assert strengths[1] < 1e-6


def test_too_little_to_see_is_refused() -> None:
    """Two whole periods each way must be left; two at 32 pixels and factor 8 are."""
    assert grid_strength(flat(32) + 0.1 * checkerboard(32, 8), 8).item() == pytest.approx(0.1, rel=1e-3)
    for side, period, border in [(31, 8, 8), (64, 1, None), (64, 8, -1), (64, 8, 40)]:
        with pytest.raises(ValueError, match=f"period: got {period} in .* two periods each way"):
            grid_strength(flat(side), period, border)
