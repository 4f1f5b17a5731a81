"""Pixels and images: an exact round trip, and what lies out of range."""

from __future__ import annotations

import torch

from latentart.core.pixels import to_images, to_pixels


def test_every_pixel_value_comes_back() -> None:
    """to_pixels(to_images(p)) is p for all 256 values."""
    pixels = torch.arange(256, dtype=torch.uint8)

    assert torch.equal(to_pixels(to_images(pixels)), pixels)


def test_images_span_minus_1_to_1() -> None:
    """0 is -1 and 255 is 1, exactly, in float32."""
    images = to_images(torch.tensor([0, 255], dtype=torch.uint8))

    assert images.dtype == torch.float32
    assert images.tolist() == [-1.0, 1.0]


def test_pixels_are_rounded_and_clamped() -> None:
    """The nearest value is taken, and beyond the range the last one."""
    images = torch.tensor([-7.0, -1.001, 0.4 / 127.5 - 1, 0.6 / 127.5 - 1, 1.001, 9.0])

    pixels = to_pixels(images)

    assert pixels.dtype == torch.uint8
    assert pixels.tolist() == [0, 0, 0, 1, 255, 255]


def test_any_shape_is_kept() -> None:
    """A single number and a batch alike."""
    assert to_images(torch.zeros(2, 3, 4, 5, dtype=torch.uint8)).shape == (2, 3, 4, 5)
    assert to_pixels(torch.tensor(0.0)).shape == ()
