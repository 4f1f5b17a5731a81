"""Random features stay the same for ever, and their Fréchet distance grows with what spoils a picture."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from latentart.core.pixels import to_images
from latentart.data.synthetic.art import STYLES, draw_picture
from latentart.scoring.metrics.frechet import FeatureStatistics, frechet_distance
from latentart.scoring.metrics.random_features import RandomFeatures


@cache
def pictures(side: int = 64) -> Tensor:
    """Return images of every synthetic style."""
    drawn = [draw_picture(style, 0, i, (side, side)) for style in STYLES for i in range(6)]
    return to_images(torch.stack([torch.from_numpy(np.array(one)).permute(2, 0, 1) for one in drawn]))


def distance(images: Tensor, other: Tensor) -> float:
    """Return the Fréchet distance of two sets of images."""
    network, a, b = RandomFeatures(), FeatureStatistics(), FeatureStatistics()
    a.update(network(images))
    b.update(network(other))
    return frechet_distance(a, b)


def blur(images: Tensor, strength: float) -> Tensor:
    """Return images mixed with their mean over 5x5 pixels."""
    return torch.lerp(images, functional.avg_pool2d(functional.pad(images, (2, 2, 2, 2), "replicate"), 5, 1), strength)


def noise(images: Tensor, strength: float) -> Tensor:
    """Return images with white noise."""
    return images + strength * torch.randn(images.shape, generator=torch.Generator().manual_seed(0))


def grid(images: Tensor, strength: float) -> Tensor:
    """Return images with a lighter seam at every eighth row and column."""
    seam = (torch.arange(images.shape[-1]) % 8 == 0).float()
    return images + strength * torch.maximum(seam, seam[:, None])


def tint(images: Tensor, strength: float) -> Tensor:
    """Return redder images."""
    return images + strength * torch.tensor([1.0, 0.0, 0.0]).view(3, 1, 1)


@pytest.mark.parametrize("spoil", [blur, noise, grid, tint])
def test_the_distance_grows_with_what_spoils_a_picture(spoil: Callable[[Tensor, float], Tensor]) -> None:
    """Blur, noise, an 8-pixel grid and a tint: none at strength 0, each stronger one further away, from faint on."""
    images = pictures()

    distances = [distance(images, spoil(images, strength)) for strength in (0.0, 0.02, 0.05, 0.1, 0.2, 0.5)]

    assert distances[0] < 1e-9
    assert all(3 * weaker < stronger for weaker, stronger in pairwise(distances[:4]))
    assert all(weaker < stronger for weaker, stronger in pairwise(distances))


def test_other_pictures_of_the_same_kind_are_nearer_than_other_kinds() -> None:
    """Two halves of every style against the styles' two halves."""
    images = pictures()

    same_kind = distance(images[0::2], images[1::2])
    other_kind = distance(images[: len(images) // 2], images[len(images) // 2 :])

    assert 2 * same_kind < other_kind


def test_no_feature_dominates() -> None:
    """Over pictures each varies, and none more than a tenth of all together."""
    network = RandomFeatures()

    variances = network(pictures()).var(0)

    assert variances.shape == (network.dimensions,)
    assert variances.min() > 1e-3
    assert variances.max() < 0.1 * variances.sum()


def test_the_network_is_fixed() -> None:
    """The same seed gives the same features whatever the global generator; they are those of every release."""
    images = (0.7 * torch.arange(3.0 * 16 * 20)).sin().view(1, 3, 16, 20)
    torch.manual_seed(1)
    state = torch.get_rng_state()

    features = RandomFeatures()(images)

    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(features, RandomFeatures(0)(images))
    assert not torch.allclose(features, RandomFeatures(1)(images))
    torch.testing.assert_close(
        features[0, [0, 6, 13, 22, 69]], torch.tensor([0.008, -1.0833, 0.1546, -1.0764, -4.6462]), atol=1e-4, rtol=0
    )


@pytest.mark.parametrize("size", [(16, 16), (17, 31), (96, 40)])
def test_any_size_and_any_precision(size: tuple[int, int]) -> None:
    """Each image's features are its own, float32 even under autocast, finite even of a flat color."""
    network = RandomFeatures()
    images = torch.rand(3, 3, *size, generator=torch.Generator().manual_seed(0)) * 2 - 1
    images[1] = 0.3

    features = network(images)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        under_autocast = network(images)

    assert features.shape == (3, network.dimensions)
    assert features.isfinite().all()
    torch.testing.assert_close(under_autocast, features)
    torch.testing.assert_close(torch.cat([network(image[None]) for image in images]), features)
    torch.testing.assert_close(network(images * 3), network((images * 3).clamp(-1, 1)))


def test_it_trains_nothing_and_refuses_what_it_cannot_see() -> None:
    """No parameters; grey or tiny images are named by their shape."""
    assert list(RandomFeatures().parameters()) == []
    for shape in [(1, 1, 16, 16), (1, 3, 16, 15), (3, 16, 16)]:
        with pytest.raises(ValueError, match="expected \\[B, 3, H, W\\] of at least 16 pixels"):
            RandomFeatures()(torch.zeros(shape))
