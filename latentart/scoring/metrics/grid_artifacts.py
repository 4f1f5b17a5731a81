"""How strong the grid stands out that upsampling leaves in a decoded picture."""

from __future__ import annotations

from einops import reduce
from torch import Tensor
from torch.nn import functional


def grid_strength(images: Tensor, period: int, border: int | None = None) -> Tensor:
    """Return the RMS amplitude of the part of images that repeats every ``period`` pixels, ``[B]`` float32.

    ``strength² = mean_cij (m_cij - mean_ij m_c)²``, where ``m_cij`` is the mean over all a, b of the residual
    ``r_c[i + a·period, j + b·period]``, and ``r`` is the image minus its mean over the square of one period around
    each pixel (the outermost pixels of an even period count half). That mean holds none of the grid and all of a
    gradient, so what repeats is measured exactly; what is flat, linear or quadratic gives 0, other smooth curves next
    to nothing, and white noise of deviation σ about σ / √(number of periods seen). Every grid whose period divides
    ``period`` counts too; ``√(strength(8)² - strength(4)²)`` is about the part of 8 that has not a period of 4.

    Meant for decoded flat colors (Odena et al. 2016, Deconvolution and Checkerboard Artifacts); in other pictures
    their own patterns count.

    Args:
        images: ``[B, C, H, W]`` in -1…1; amplitudes are in the same units.
        period: in pixels, at least 2; the autoencoder's factor or one of its divisors.
        border: how many pixels to leave out at each edge, where padding shows; a quarter of the shorter side if None.

    Raises:
        ValueError: ``period`` is too small, or fewer than two periods are left within the border.
    """
    border = min(images.shape[2:]) // 4 if border is None else border
    height, width = (side - 2 * border for side in images.shape[2:])
    if period < 2 or border < 0 or min(height, width) < 2 * period:
        msg = f"period: got {period} in {height} x {width} pixels, expected 2 or more and two periods each way"
        raise ValueError(msg)
    inner = images.float()[:, :, border : border + height, border : border + width]
    average = functional.avg_pool2d(inner, period, stride=1)
    if period % 2 == 0:
        average = functional.avg_pool2d(average, 2, stride=1)  # brings the square's middle onto a pixel
    rows, columns = (side // period * period for side in average.shape[2:])
    start = period // 2
    residual = inner[:, :, start : start + rows, start : start + columns] - average[:, :, :rows, :columns]
    means = reduce(residual, "b c (y i) (x j) -> b c i j", "mean", i=period, j=period)
    return (means - means.mean((2, 3), keepdim=True)).square().mean((1, 2, 3)).sqrt()
