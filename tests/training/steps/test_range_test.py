"""The learning-rate range test, on losses whose answer is known."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest

from latentart.training.steps.range_test import RatePoint, find_lowest, find_steepest, range_test, sweep_rates


def descent(curvature: float) -> Callable[[int, float], float]:
    """Return gradient descent on ½ L x² from x = 1: it diverges just where the rate is above 2/L."""
    x = 1.0

    def step(_: int, lr: float) -> float:
        nonlocal x
        loss = 0.5 * curvature * x * x
        x -= lr * curvature * x
        return loss

    return step


def points(losses: list[float]) -> list[RatePoint]:
    """Return points at rates that double."""
    return [RatePoint(2.0**i, loss, loss) for i, loss in enumerate(losses)]


def test_rates_rise_by_one_factor_from_end_to_end() -> None:
    """Four decades in five steps are powers of ten."""
    assert sweep_rates(1e-3, 10.0, 5) == pytest.approx([1e-3, 1e-2, 1e-1, 1.0, 10.0], rel=1e-12)


@pytest.mark.parametrize(
    ("low", "high", "steps"), [(0, 1, 5), (-1, 1, 5), (1, 1, 5), (2, 1, 5), (1, 2, 1), (1, math.inf, 5)]
)
def test_no_range_is_refused(low: float, high: float, steps: int) -> None:
    """A range rises, from above nothing to a number."""
    with pytest.raises(ValueError, match="expected 0 < low < high"):
        sweep_rates(low, high, steps)


@pytest.mark.parametrize("curvature", [0.7, 5.0, 300.0])
def test_a_quadratic_diverges_above_two_over_its_curvature(curvature: float) -> None:
    """Unsmoothed, the loss is lowest before the first update whose rate is above 2/L, and the test ends soon after."""
    rates = sweep_rates(1e-5, 100.0, 400)

    found = range_test(descent(curvature), rates, smoothing=0.0)

    assert found.has_diverged
    assert found.lowest == found.peak == next(lr for lr in rates if lr > 2 / curvature)
    assert found.steepest is not None
    assert found.steepest < 2 / curvature
    assert len(found.points) < len(rates)
    assert found.points[-1].smoothed > 4 * min(point.smoothed for point in found.points)


def test_the_running_mean_is_right_from_its_first_loss() -> None:
    """A constant loss is its own mean at every step; a second value counts as the decay says."""
    constant = range_test(lambda *_: 3.0, sweep_rates(1e-3, 1.0, 30))
    two = range_test(lambda i, _: [1.0, 2.0][i], [0.1, 0.2], smoothing=0.9)

    assert [point.smoothed for point in constant.points] == pytest.approx([3.0] * 30, rel=1e-12)
    assert (constant.peak, constant.steepest, constant.has_diverged) == (None, None, False)
    assert two.points[1].smoothed == pytest.approx((0.9 * 0.1 * 1.0 + 0.1 * 2.0) / (1 - 0.81))


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_loss_that_is_no_number_ends_the_test(bad: float) -> None:
    """The points before it stay."""
    asked = []

    def step(i: int, lr: float) -> float:
        asked.append(lr)
        return bad if i == 12 else 1.0 - 0.01 * i

    found = range_test(step, sweep_rates(1e-3, 1.0, 30))

    assert (len(found.points), len(asked), found.has_diverged) == (12, 13, True)
    assert all(math.isfinite(point.smoothed) for point in found.points)


def test_the_steepest_place_lies_before_the_lowest() -> None:
    """A second, deeper fall after the lowest does not count, nor one in the first tenth."""
    losses = [9.0, 5.0, 5.0, 4.9, 4.8, 4.0, 3.2, 3.1, 3.05, 3.0, 3.5, 9.0, 4.0, 4.0, 4.0, 4.0, 4.0, 4.0, 4.0, 4.0]

    assert find_steepest(points(losses)) == 2.0**5
    assert find_lowest(points(losses)) == 2.0**9


@pytest.mark.parametrize("losses", [[1.0 + 0.1 * i for i in range(20)], [3.0, 2.0, 1.0]])
def test_nothing_is_suggested_without_a_fall(losses: list[float]) -> None:
    """A loss that only rises has no peak to offer, and three points are none."""
    assert find_lowest(points(losses)) is None
    assert find_steepest(points(losses)) is None
