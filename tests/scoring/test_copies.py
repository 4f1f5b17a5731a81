"""Copies are found, and what is only alike is not."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from latentart.scoring.copies import CopyFinder, relative_spread


def draw(count: int, seed: int, dimensions: int = 64) -> Tensor:
    """Return descriptors of pictures that have nothing in common."""
    return torch.randn(count, dimensions, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def finder() -> CopyFinder:
    """Return a finder over 500 training pictures of one variant, calibrated on 200 held-out ones."""
    return CopyFinder(draw(500, 0)[:, None], draw(200, 1))


@pytest.mark.parametrize("planted", [0, 1, 16, 64])
def test_planted_copies_are_found(finder: CopyFinder, planted: int) -> None:
    """Training pictures with a little noise and twice the contrast, among new pictures: these and no others."""
    samples = draw(64, 2)
    samples[:planted] = 2 * draw(500, 0)[100 : 100 + planted] + 0.2 * draw(planted, 3)

    found = finder.find(samples)

    assert found[:planted].all()
    assert found[planted:].double().mean().nan_to_num() <= 0.05


def test_held_out_pictures_are_copies_by_chance_only(finder: CopyFinder) -> None:
    """One of a hundred at most: those that set the limit."""
    assert finder.find(draw(200, 1)).double().mean() <= 0.01
    assert finder.find(draw(1000, 4)).double().mean() <= 0.02


def test_a_blur_is_near_to_many_and_no_copy() -> None:
    """In the middle of a cluster everything is near, but nothing much nearer than the next."""
    center = 5 * draw(1, 7)
    cluster = center + draw(400, 8)
    spread = torch.cat([cluster, -cluster])
    finder = CopyFinder(spread[:, None], torch.cat([center + draw(100, 9), -center + draw(100, 10)]))

    blurs = center + 0.1 * draw(50, 11)

    assert (finder.measure(blurs)[0] < finder.nearest_limit).all()
    assert finder.find(blurs).double().mean() <= 0.1  # where the distance alone would say all


def test_any_variant_may_be_copied() -> None:
    """Such as a mirrored one: the variants of one picture are no neighbors of each other."""
    training = torch.stack([draw(300, 0), draw(300, 5)], dim=1)
    finder = CopyFinder(training, draw(100, 1))

    assert finder.find(training[:20, 1]).all()
    assert finder.measure(training[:20, 1])[0].max() < 1e-2


def test_distances_are_those_of_directions(finder: CopyFinder) -> None:
    """Between descriptors of length 1 about the training pictures' mean, and their ratio to the mean of the next 20."""
    sample, training = draw(1, 6), draw(500, 0)
    ours, theirs = (torch.nn.functional.normalize(x - training.mean(0), dim=1) for x in (sample, training))
    distances = torch.cdist(ours, theirs)[0].sort().values

    nearest, ratio = finder.measure(sample)

    assert float(nearest) == pytest.approx(float(distances[0]), rel=1e-4)
    assert float(ratio) == pytest.approx(float(distances[0] / distances[1:21].mean()), rel=1e-4)


@pytest.mark.parametrize(("training", "held_out"), [(15, 100), (100, 15), (0, 0)])
def test_few_pictures_say_nothing(training: int, held_out: int) -> None:
    """There must be 16 on either side."""
    with pytest.raises(ValueError, match="at least 16"):
        CopyFinder(draw(training, 0)[:, None], draw(held_out, 1))


def test_the_spread_is_relative_to_real_pictures() -> None:
    """Half as far apart is a half, all the same is none, whatever the scale of each feature."""
    real, style = draw(200, 0) * torch.logspace(-3, 3, 64), torch.arange(200) % 4
    samples = draw(80, 1) * torch.logspace(-3, 3, 64)
    ours = torch.arange(80) % 4

    assert relative_spread(samples, ours, real, style) == pytest.approx(1.0, rel=0.05)
    assert relative_spread(0.5 * samples, ours, real, style) == pytest.approx(0.5, rel=0.05)
    assert relative_spread(samples[:1].expand(80, -1), ours, real, style) == 0.0


def test_a_spread_needs_two_of_a_style() -> None:
    """On both sides; other styles are left out of account."""
    real, style = draw(20, 0), torch.tensor([0] * 19 + [1])

    assert relative_spread(draw(4, 1), torch.tensor([1, 1, 2, 2]), real, style) is None
    assert relative_spread(draw(2, 1), torch.tensor([0, 1]), real, style) is None
    assert relative_spread(draw(4, 1), torch.tensor([0, 0, 1, 1]), real, style) is not None
