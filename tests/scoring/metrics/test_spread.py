"""How much samples of one style differ, beside real pictures."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from latentart.scoring.metrics.spread import relative_spread


def draw(count: int, seed: int, dimensions: int = 64) -> Tensor:
    """Return features of pictures that have nothing in common."""
    return torch.randn(count, dimensions, generator=torch.Generator().manual_seed(seed))


def test_the_spread_is_relative_to_real_pictures() -> None:
    """Half as far apart is a half, all the same is none, whatever the scale of each feature."""
    real, style = draw(200, 0) * torch.logspace(-3, 3, 64), torch.arange(200) % 4
    samples = draw(80, 1) * torch.logspace(-3, 3, 64)
    ours = torch.arange(80) % 4

    assert relative_spread(samples, ours, real, style) == pytest.approx(1.0, rel=0.05)
    assert relative_spread(0.5 * samples, ours, real, style) == pytest.approx(0.5, rel=0.05)
    assert relative_spread(samples[:1].expand(80, -1), ours, real, style) == 0.0


def test_a_spread_needs_two_of_a_style() -> None:
    """On both sides; other styles are left out of account."""
    real, style = draw(20, 0), torch.tensor([0] * 19 + [1])

    assert relative_spread(draw(4, 1), torch.tensor([1, 1, 2, 2]), real, style) is None
    assert relative_spread(draw(2, 1), torch.tensor([0, 1]), real, style) is None
    assert relative_spread(draw(4, 1), torch.tensor([0, 0, 1, 1]), real, style) is not None
