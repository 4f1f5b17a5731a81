"""The score of a reconstruction against torchmetrics."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torchmetrics.functional.image import peak_signal_noise_ratio

from latentart.scoring.reconstruction import psnr_per_image


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
