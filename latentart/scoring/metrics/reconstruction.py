"""How near a reconstruction comes to its picture."""

from __future__ import annotations

from torch import Tensor

SSIM_WINDOW = 11  # pixels: a Gaussian of sigma 1.5


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
    from torchmetrics.functional.image import structural_similarity_index_measure  # with scipy and matplotlib, seconds

    pair = (images_hat.float().clamp(-1, 1), images.float().clamp(-1, 1))
    scores = structural_similarity_index_measure(*pair, sigma=1.5, data_range=2.0, reduction="none")
    assert isinstance(scores, Tensor)  # a pair only where the map itself is asked for
    return scores.reshape(len(images))
