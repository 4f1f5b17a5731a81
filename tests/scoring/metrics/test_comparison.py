"""Sets of pictures in a judge's features: equal shares of styles, error bars, a floor, and what spoiled sets score."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from latentart.data.datasets import pixels_from
from latentart.data.synthetic.art import draw_picture
from latentart.scoring.metrics.comparison import LabeledFeatures, compare_sets, counts_alike, draw_alike, measure
from latentart.scoring.metrics.frechet import FeatureStatistics, frechet_distance
from latentart.scoring.metrics.judge import Judge, judge_in_batches, recognition, train_judge
from latentart.scoring.metrics.kernel_distance import kernel_distance

STYLES = ("High_Renaissance", "Minimalism", "Pointillism")
SIDE = 32


def draw(seed: int, count: int) -> tuple[Tensor, Tensor]:
    """Return so many pictures of each style, uint8, and their styles."""
    pixels = [pixels_from(draw_picture(name, seed, i, (SIDE, SIDE))) for i in range(count) for name in STYLES]
    return torch.stack(pixels), torch.arange(len(STYLES)).repeat(count)


@pytest.fixture(scope="module")
def judge() -> Judge:
    """Return a judge of three styles."""
    return train_judge(*draw(0, 16), len(STYLES), steps=60, batch_size=12)


def see(judge: Judge, pixels: Tensor, style_id: Tensor) -> LabeledFeatures:
    """Return pictures in the judge's features."""
    return LabeledFeatures(torch.cat([features for features, _ in judge_in_batches(judge, pixels)]), style_id)


def spoil(pixels: Tensor, style_id: Tensor) -> dict[str, Tensor]:
    """Return real pictures as they are, and spoiled in several ways."""
    noise = torch.randn(pixels.shape, generator=torch.Generator().manual_seed(0)) * 60
    coarse = functional.interpolate(functional.avg_pool2d(pixels.float(), 8), (SIDE, SIDE))
    firsts = torch.stack([pixels[style_id == style][0] for style in range(len(STYLES))])
    return {
        "real": pixels,
        "noise": (pixels + noise).clamp(0, 255).byte(),
        "blur": coarse.byte(),
        "collapse": firsts[style_id],
        "shuffled": pixels.roll(1, 0),
    }


def test_every_spoiled_set_scores_worse_than_other_real_pictures(judge: Judge) -> None:
    """Noise, blur, one mode and wrong labels: each by the measure that is made for it, beyond the error bars."""
    pixels, style_id = draw(2, 40)
    real = see(judge, *draw(1, 40))
    sets = spoil(pixels, style_id)
    found, count = compare_sets(real, [see(judge, one, style_id) for one in sets.values()])
    scores = dict(zip(sets, found, strict=True))

    def is_worse(name: str, measure: str, sign: int) -> bool:
        ours, floor = scores[name][measure], scores["real"][measure]
        return sign * (ours.value - floor.value) > 2 * math.hypot(ours.error, floor.error)

    assert count == 60
    assert is_worse("noise", "frechet", 1)
    assert is_worse("noise", "coverage", -1)
    assert is_worse("blur", "frechet", 1)
    assert is_worse("blur", "density", -1)
    assert is_worse("collapse", "frechet", 1)
    assert is_worse("collapse", "recall", -1)
    assert is_worse("collapse", "coverage", -1)
    assert all(is_worse(name, "kernel", 1) for name in ("noise", "blur", "collapse", "shuffled"))
    assert recognition(judge, sets["real"], style_id) >= 0.9
    assert recognition(judge, sets["shuffled"], style_id) <= 0.1


def test_other_real_pictures_are_near(judge: Judge) -> None:
    """Within three errors of nothing by the distance without bias, and as true and varied as can be."""
    (found,), _ = compare_sets(see(judge, *draw(1, 40)), [see(judge, *draw(2, 40))])

    assert abs(found["kernel"].value) < 3 * found["kernel"].error
    assert found["precision"].value > 0.85
    assert found["coverage"].value > 0.85


def test_all_sets_are_drawn_with_the_same_styles() -> None:
    """Half of what the smallest set has of each; none of a style that one lacks, and the only one of a style always."""
    sets = [torch.tensor([0] * 10 + [1] * 4 + [2] * 3 + [3]), torch.tensor([3, 0, 0, 0, 0, 0, 0, 1, 3])]
    counts = counts_alike(sets)

    assert counts == [3, 1, 0, 1]
    for draws in (list(draw_alike(sets, counts, seed=0, draws=3)), list(draw_alike(sets, counts, seed=0, draws=3))):
        for chosen in draws:
            assert [ids[rows].tolist() for ids, rows in zip(sets, chosen, strict=True)] == [[0, 0, 0, 1, 3]] * 2
            assert all(len(set(rows.tolist())) == 5 for rows in chosen)
    assert [c.tolist() for c in draws[0]] != [c.tolist() for c in draws[1]]


def test_large_sets_are_drawn_in_part() -> None:
    """No more than about a thousand at once."""
    ids = torch.arange(8).repeat_interleave(1000)

    assert counts_alike([ids, ids]) == [128] * 8


def test_measures_are_those_of_the_formulas() -> None:
    """The kernel distance is the mean over styles with two pictures and more."""
    real, other = (torch.randn(9, 4, generator=torch.Generator().manual_seed(seed)) for seed in (0, 1))
    statistics = FeatureStatistics(), FeatureStatistics()
    for one, features in zip(statistics, (real, other), strict=True):
        one.update(features)

    found = measure(real, other, [5, 0, 1, 3])

    within = (kernel_distance(real[:5], other[:5]) + kernel_distance(real[6:], other[6:])) / 2
    assert found["kernel"] == pytest.approx(within)
    assert found["frechet"] == frechet_distance(*statistics)
    assert math.isnan(measure(real[:5], other[:5], [5])["coverage"])


def test_errors_are_those_of_the_whole_set() -> None:
    """The deviation over half sets is near that over new sets drawn from the same distribution."""
    style_id = torch.zeros(80, dtype=torch.int64)

    def new(seed: int) -> LabeledFeatures:
        return LabeledFeatures(torch.randn(80, 3, generator=torch.Generator().manual_seed(seed)), style_id)

    whole = torch.tensor([kernel_distance(new(2 * i).features, new(2 * i + 1).features) for i in range(100)])
    errors = [compare_sets(new(i), [new(1000 + i)], draws=20)[0][0]["kernel"].error for i in range(8)]

    assert 0.5 < sum(errors) / len(errors) / float(whole.std()) < 2


def test_draws_that_are_all_the_same_have_no_error() -> None:
    """One picture of each style in every set: the numbers are told, their error is not, instead of exactly 0."""
    draw = torch.Generator().manual_seed(3)
    style_id = torch.arange(3)
    real, other = (LabeledFeatures(torch.randn(3, 4, generator=draw), style_id) for _ in range(2))
    more = LabeledFeatures(torch.randn(9, 4, generator=draw), style_id.repeat(3))

    (alike,), count = compare_sets(real, [other])
    (drawn,), _ = compare_sets(real, [more])

    assert count == 3
    assert math.isfinite(alike["frechet"].value)
    assert all(math.isnan(one.error) for one in alike.values())
    assert drawn["frechet"].error > 0


def test_sets_without_styles_in_common_are_refused() -> None:
    """There is nothing to draw."""
    with pytest.raises(ValueError, match=r"got \[0, 0\] pictures"):
        counts_alike([torch.tensor([0, 0]), torch.tensor([1, 1])])
