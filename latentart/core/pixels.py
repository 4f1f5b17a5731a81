"""Pixels ↔ images: the one place where the range changes between uint8 0…255 and float -1…1."""

from __future__ import annotations

import torch
from torch import Tensor


def to_images(pixels: Tensor) -> Tensor:
    """Return images, float32 in -1…1, of pixels uint8 0…255, any shape."""
    return pixels.float() / 127.5 - 1.0


def to_pixels(images: Tensor) -> Tensor:
    """Return pixels, uint8 0…255, rounded and clamped, of images in -1…1; the inverse of ``to_images``."""
    return ((images.float() + 1.0) * 127.5).round().clamp(0, 255).to(torch.uint8)
