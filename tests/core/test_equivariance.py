"""Turned and reduced latents and images fit together."""

from __future__ import annotations

import pytest
import torch

from latentart.core.equivariance import Transform, draw_transform


@pytest.mark.parametrize("turns", range(4))
@pytest.mark.parametrize("scale", [0.25, 0.3, 0.5, 0.77, 1.0])
def test_images_are_the_factor_times_the_latents(turns: int, scale: float) -> None:
    """Whatever the transform and the shape, both come out in the same proportion."""
    transform = Transform(turns, scale)

    z, images = transform.latents(torch.zeros(2, 4, 8, 6)), transform.images(torch.zeros(2, 3, 64, 48), factor=8)

    assert images.shape == (2, 3, z.shape[2] * 8, z.shape[3] * 8)


def test_a_turn_alone_moves_every_value_exactly() -> None:
    """A quarter turn against the clock: the right column becomes the top row."""
    z = torch.arange(6.0).view(1, 1, 2, 3)

    turned = Transform(1, 1.0).latents(z)

    assert turned.squeeze().tolist() == [[2, 5], [1, 4], [0, 3]]
    assert torch.equal(Transform(0, 1.0).latents(z), z)
    assert torch.equal(Transform(3, 1.0).latents(turned), z)


def test_both_are_aligned() -> None:
    """A slope in the image and its block means stay each other's block means: no half-pixel shift, no wrong turn."""
    y, x = torch.meshgrid(torch.arange(64.0), torch.arange(64.0), indexing="ij")
    images = (2 * x - 3 * y).expand(1, 3, 64, 64)
    z = torch.nn.functional.avg_pool2d(images, 4)
    transform = Transform(1, 0.5)

    means = torch.nn.functional.avg_pool2d(transform.images(images, 4), 4)

    inner = (..., slice(2, -2), slice(2, -2))  # at the edges the filters are cut
    torch.testing.assert_close(means[inner], transform.latents(z)[inner], atol=1e-3, rtol=0)


def test_transforms_are_drawn_evenly_within_their_bounds() -> None:
    """All four turns, scales from a quarter to the whole, and the same generator draws the same."""
    drawn = [draw_transform(torch.Generator().manual_seed(seed)) for seed in range(400)]

    assert drawn == [draw_transform(torch.Generator().manual_seed(seed)) for seed in range(400)]
    assert all(60 < sum(t.quarter_turns == turns for t in drawn) < 140 for turns in range(4))
    scales = torch.tensor([t.scale for t in drawn])
    assert 0.25 <= scales.min() < 0.28
    assert 0.97 < scales.max() <= 1.0
    assert scales.mean().item() == pytest.approx(0.625, abs=0.03)
