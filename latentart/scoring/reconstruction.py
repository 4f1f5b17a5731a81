"""How near a reconstruction comes to its picture."""

from __future__ import annotations

import torch
from torch import Tensor


def psnr_per_image(images_hat: Tensor, images: Tensor) -> Tensor:
    """Return ``10 log10(2² / mean squared difference)`` in dB per image, ``[B]``, for images in -1…1."""
    difference = images_hat.float().clamp(-1, 1) - images.float()
    return 10.0 * torch.log10(4.0 / difference.square().flatten(1).mean(1).clamp_min(1e-10))
