"""How near a reconstruction comes to its picture."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

SSIM_WINDOW = 11  # pixels: a Gaussian of sigma 1.5
SSIM_SIGMA = 1.5
C1, C2 = (0.01 * 2) ** 2, (0.03 * 2) ** 2  # of images whose range is 2


def ssim_per_image(images_hat: Tensor, images: Tensor) -> Tensor:
    """Return the structural similarity per image, ``[B]`` in -1…1, of images ``[B, C, H, W]`` in -1…1.

    ``(2 μ_x μ_y + c1) (2 σ_xy + c2) / ((μ_x² + μ_y² + c1) (σ_x² + σ_y² + c2))``, ``c = (0.01 · 2)²`` and
    ``(0.03 · 2)²``, in a Gaussian window of 11 x 11 pixels (Wang et al. 2004, Image Quality Assessment, eq. 13).
    Differs from the paper: the mean over the channels instead of grey, and borders are reflected, not left out.

    Raises:
        ValueError: a side is shorter than the window.
    """
    if min(images.shape[-2:]) < SSIM_WINDOW:
        msg = f"images: got {tuple(images.shape[-2:])} pixels, expected at least {SSIM_WINDOW} each way"
        raise ValueError(msg)
    with torch.autocast(images.device.type, enabled=False):
        x, y = images_hat.float().clamp(-1, 1), images.float().clamp(-1, 1)
        mean_x, mean_y, xx, yy, xy = (_blur(each) for each in (x, y, x * x, y * y, x * y))
        luminance = (2 * mean_x * mean_y + C1) / (mean_x.square() + mean_y.square() + C1)
        variances = xx - mean_x.square() + yy - mean_y.square()
        return (luminance * (2 * (xy - mean_x * mean_y) + C2) / (variances + C2)).mean((1, 2, 3))


def _blur(x: Tensor) -> Tensor:
    """Return ``[B, C, H, W]`` averaged under the window, along rows and along columns."""
    reach = SSIM_WINDOW // 2
    offsets = torch.arange(-reach, reach + 1, device=x.device, dtype=x.dtype)
    line = torch.exp(-offsets.square() / (2 * SSIM_SIGMA**2))
    line = (line / line.sum()).view(1, 1, 1, -1)
    padded = functional.pad(x, (reach,) * 4, mode="reflect").flatten(0, 1)[:, None]
    return functional.conv2d(functional.conv2d(padded, line), line.mT).view_as(x)
