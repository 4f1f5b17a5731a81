"""The scores of a reconstruction against torchmetrics and against the definition written out."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torchmetrics.functional.image import peak_signal_noise_ratio

from latentart.core.losses import psnr_per_image
from latentart.scoring.metrics.reconstruction import ssim_per_image


def draw(*shape: int, seed: int = 0) -> Tensor:
    """Return uniform float32 numbers in -1…1."""
    return 2 * torch.rand(*shape, generator=torch.Generator().manual_seed(seed)) - 1


def test_psnr_is_that_of_torchmetrics_for_each_image() -> None:
    """For images in -1…1 the range is 2."""
    images = draw(3, 3, 8, 6)
    images_hat = (images + torch.tensor([0.01, 0.1, 0.5]).view(3, 1, 1, 1) * draw(3, 3, 8, 6, seed=1)).clamp(-1, 1)

    scores = psnr_per_image(images_hat, images)

    expected = [
        peak_signal_noise_ratio(a[None], b[None], data_range=2.0) for a, b in zip(images_hat, images, strict=True)
    ]
    assert scores.shape == (3,)
    torch.testing.assert_close(scores, torch.stack(expected), atol=1e-4, rtol=1e-5)


def test_what_lies_out_of_range_counts_as_the_edge() -> None:
    """It is the edge that would be seen and saved."""
    images = torch.ones(1, 3, 2, 2)

    assert psnr_per_image(images + 5, images) == psnr_per_image(images, images)


def test_known_errors() -> None:
    """Off by 2 everywhere is 0 dB, by 0.2 is 20 dB; a perfect picture has a finite score."""
    images = -torch.ones(3, 3, 2, 2)
    images_hat = images + torch.tensor([2.0, 0.2, 0.0]).view(3, 1, 1, 1)

    scores = psnr_per_image(images_hat, images).tolist()

    assert math.isclose(scores[0], 0.0, abs_tol=1e-5)
    assert math.isclose(scores[1], 20.0, abs_tol=1e-4)
    assert 100 < scores[2] < math.inf


def slow_ssim(a: Tensor, b: Tensor) -> float:
    """Return the SSIM of two images ``[C, H, W]``, one window at a time, in float64."""
    offsets = torch.arange(-5, 6, dtype=torch.float64)
    line = torch.exp(-offsets.square() / (2 * 1.5**2))
    window = torch.outer(line, line) / line.sum() ** 2
    scores = []
    for x, y in zip(a.double(), b.double(), strict=True):
        x, y = (torch.nn.functional.pad(image[None, None], (5, 5, 5, 5), mode="reflect")[0, 0] for image in (x, y))
        for top in range(a.shape[1]):
            for left in range(a.shape[2]):
                u, v = x[top : top + 11, left : left + 11], y[top : top + 11, left : left + 11]
                mean_u, mean_v = (window * u).sum(), (window * v).sum()
                var_u, var_v = (window * (u - mean_u) ** 2).sum(), (window * (v - mean_v) ** 2).sum()
                covariance = (window * (u - mean_u) * (v - mean_v)).sum()
                c1, c2 = 0.02**2, 0.06**2
                luminance = (2 * mean_u * mean_v + c1) / (mean_u**2 + mean_v**2 + c1)
                scores.append(luminance * (2 * covariance + c2) / (var_u + var_v + c2))
    return float(torch.stack(scores).mean())


@pytest.mark.parametrize("count", [1, 3])
def test_ssim_is_the_definition_written_out(count: int) -> None:
    """A batch of one is still a batch; noise, another brightness and another picture score as the paper says."""
    ramp = torch.linspace(-0.8, 0.6, 14).view(1, 1, 1, 14)
    images = (ramp + 0.2 * draw(3, 3, 12, 14))[:count]
    others = torch.stack([images[0] + 0.1 * draw(3, 12, 14, seed=1), 0.5 * ramp[0] + draw(3, 12, 14), -images[0]])
    others = others[:count].clamp(-1, 1)

    scores = ssim_per_image(others, images)

    assert scores.shape == (count,)
    expected = [slow_ssim(a, b) for a, b in zip(others, images, strict=True)]
    torch.testing.assert_close(scores, torch.tensor(expected), atol=1e-5, rtol=0)


def test_ssim_of_the_same_picture_is_one_and_falls_with_noise() -> None:
    """At 32 pixels too, in half precision too, and what lies out of range counts as the edge."""
    images = 0.9 * draw(1, 3, 32, 32)
    noise = draw(1, 3, 32, 32, seed=1)

    scores = [ssim_per_image(images + strength * noise, images).item() for strength in (0.0, 0.1, 0.3, 0.9)]

    assert math.isclose(scores[0], 1.0, abs_tol=1e-6)
    assert scores == sorted(scores, reverse=True)
    assert scores[-1] < 0.8
    assert ssim_per_image(images.bfloat16(), images.bfloat16()).dtype == torch.float32
    assert ssim_per_image(torch.full((1, 3, 32, 32), 7.0), torch.ones(1, 3, 32, 32)).item() == pytest.approx(1)


def test_ssim_needs_one_whole_window() -> None:
    """Smaller pictures are refused by the size they have."""
    with pytest.raises(ValueError, match=r"\(11, 10\) pixels, expected at least 11"):
        ssim_per_image(draw(1, 3, 11, 10), draw(1, 3, 11, 10))
