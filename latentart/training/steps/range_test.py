"""The learning-rate range test (Smith 1506.01186, 1803.09820): the loss while the rate rises exponentially."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

MIN_POINTS = 10  # of fewer no slope is worth a word
LEAST_FALL = 0.02  # of the loss: less may be chance


@dataclass(frozen=True)
class RatePoint:
    """One step of the test: its rate, its loss, and the smoothed loss; a loss that is not finite ends the test."""

    lr: float
    loss: float
    smoothed: float


@dataclass(frozen=True)
class RangeResult:
    """What a test found.

    Attributes:
        steepest: the rate at which the smoothed loss falls fastest over the logarithm of the rate.
        lowest: the rate at which the smoothed loss is lowest.
        has_diverged: whether the test ended because the loss rose; else the range ended first.
    """

    points: tuple[RatePoint, ...]
    steepest: float | None
    lowest: float | None
    has_diverged: bool

    @property
    def peak(self) -> float | None:
        """The rate suggested as the peak of OneCycle: the one at which the smoothed loss is lowest.

        Smith takes as the upper bound of a cycle the rate at which the score stops to improve (1506.01186, section
        3.3), and OneCycle comes to its peak slowly, stays there shortly, and gains from large rates (1803.09820). A
        tenth of it, the habit of other tools, is for rates that stay: after 300 steps of the demo it left the
        autoencoder with a quarter and the denoiser with two thirds more error. The steepest place is shown too, but in
        a noisy loss it wanders by a decade from test to test.
        """
        return self.lowest


def sweep_rates(low: float, high: float, steps: int) -> list[float]:
    """Return ``steps`` rates from ``low`` to ``high``, each the same factor above the one before.

    Raises:
        ValueError: not 0 < ``low`` < ``high``, or fewer than two steps.
    """
    if not 0 < low < high < math.inf or steps < 2:
        raise ValueError(f"low, high, steps: got {low}, {high}, {steps}, expected 0 < low < high and at least 2 steps")
    return [low * (high / low) ** (i / (steps - 1)) for i in range(steps)]


def range_test(
    step: Callable[[int, float], float],
    rates: list[float],
    *,
    smoothing: float = 0.9,
    divergence: float = 4.0,
) -> RangeResult:
    """Make an update at each rate until the loss diverges, and look at the curve.

    Args:
        step: makes update i at a rate and returns the loss before it.
        rates: those of the updates, rising.
        smoothing: decay of the running mean of the loss, corrected for its start as in Adam.
        divergence: the test ends where the smoothed loss is more than so many times its best.
    """
    points: list[RatePoint] = []
    mean, best, has_diverged = 0.0, math.inf, False
    for i, lr in enumerate(rates):
        loss = step(i, lr)
        mean = smoothing * mean + (1 - smoothing) * loss
        smoothed = mean / (1 - smoothing ** (i + 1))
        if not math.isfinite(smoothed) or (i > 0 and smoothed > divergence * best):
            has_diverged = True
            if math.isfinite(smoothed):
                points.append(RatePoint(lr, loss, smoothed))
            break
        points.append(RatePoint(lr, loss, smoothed))
        best = min(best, smoothed)
    return RangeResult(tuple(points), find_steepest(points), find_lowest(points), has_diverged)


def find_steepest(points: list[RatePoint]) -> float | None:
    """Return the rate at which the smoothed loss falls fastest over log(lr); None where it never falls.

    Only what comes before its lowest is looked at. The slope at a point is that between its neighbors; the first tenth,
    where the mean is still of few losses, is left out.
    """
    if (lowest := _place_of_lowest(points)) is None:
        return None
    slopes = {
        i: (points[i + 1].smoothed - points[i - 1].smoothed) / math.log(points[i + 1].lr / points[i - 1].lr)
        for i in range(max(1, len(points) // 10), min(lowest + 1, len(points) - 1))
    }
    steepest = min(slopes, key=slopes.__getitem__)
    return points[steepest].lr if slopes[steepest] < 0 else None


def find_lowest(points: list[RatePoint]) -> float | None:
    """Return the rate with the lowest smoothed loss; None where that never falls clearly below its start."""
    lowest = _place_of_lowest(points)
    return None if lowest is None else points[lowest].lr


def _place_of_lowest(points: list[RatePoint]) -> int | None:
    """Return where the loss is lowest, if that is after the first tenth and a fall worth the name."""
    if len(points) < MIN_POINTS:
        return None
    first = len(points) // 10
    lowest = min(range(len(points)), key=lambda i: points[i].smoothed)
    has_fallen = points[lowest].smoothed < (1 - LEAST_FALL) * points[first].smoothed
    return lowest if lowest > first and has_fallen else None
