"""The judge: knows styles of pictures it never saw, and is not fooled by shuffled labels, blur or noise."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from latentart.data.datasets import pixels_from
from latentart.data.synthetic.art import draw_picture
from latentart.scoring.metrics.frechet import FeatureStatistics, frechet_distance
from latentart.scoring.metrics.judge import Judge, judge_in_batches, recognition, train_judge

STYLES = ("High_Renaissance", "Minimalism", "Pointillism")
SIDE = 48


def draw(seed: int, count: int) -> tuple[Tensor, Tensor]:
    """Return so many pictures of each style, uint8, and their styles."""
    pixels = [pixels_from(draw_picture(name, seed, i, (SIDE, SIDE))) for i in range(count) for name in STYLES]
    return torch.stack(pixels), torch.arange(len(STYLES)).repeat(count)


@pytest.fixture(scope="module")
def judge() -> Judge:
    """Return a judge of three styles."""
    return train_judge(*draw(0, 16), len(STYLES), steps=60, batch_size=24)


def distance(judge: Judge, a: Tensor, b: Tensor) -> float:
    """Return the Fréchet distance of two sets in the judge's features."""
    statistics = FeatureStatistics(), FeatureStatistics()
    for pixels, one in zip((a, b), statistics, strict=True):
        for features, _ in judge_in_batches(judge, pixels):
            one.update(features)
    return frechet_distance(*statistics)


def test_it_knows_pictures_it_never_saw(judge: Judge) -> None:
    """Nine of ten at least, and no more than chance with shuffled labels."""
    pixels, style_id = draw(1, 10)

    assert recognition(judge, pixels, style_id) >= 0.9
    assert recognition(judge, pixels, (style_id + 1) % len(STYLES)) <= 0.1


def test_distance_grows_with_blur_noise_and_collapse(judge: Judge) -> None:
    """Each spoiled set is at least half as far again from real pictures as other real ones are."""
    real, other = draw(1, 40)[0], draw(2, 40)[0]
    noise = torch.randn(other.shape, generator=torch.Generator().manual_seed(0)) * 40
    spoiled = {
        "noise": (other + noise).clamp(0, 255).byte(),
        "blur": functional.interpolate(functional.avg_pool2d(other.float(), 6), (SIDE, SIDE)).byte(),
        "collapse": other[:1].expand_as(other),
    }

    floor = distance(judge, real, other)

    assert {name: distance(judge, real, pixels) > 1.5 * floor for name, pixels in spoiled.items()} == dict.fromkeys(
        spoiled, True
    )


def test_one_seed_gives_one_judge() -> None:
    """The same pictures and seed, the same weights; torch's own generator is left as it was."""
    pixels, style_id = draw(0, 2)
    state = torch.get_rng_state()

    one, again, other = (train_judge(pixels, style_id, 3, seed=seed, steps=4, batch_size=6) for seed in (0, 0, 1))

    assert torch.equal(torch.get_rng_state(), state)
    weights = [torch.nn.utils.parameters_to_vector(judge.parameters()) for judge in (one, again, other)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_a_style_without_pictures_is_refused() -> None:
    """The error counts them."""
    with pytest.raises(ValueError, match=r"got \[2, 0\] pictures"):
        train_judge(torch.zeros(2, 3, 8, 8, dtype=torch.uint8), torch.tensor([0, 0]), 2)
