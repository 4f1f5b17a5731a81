"""Series of noisy numbers: their noise, their trend, and whether they have come back over their best."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

Series = Sequence[tuple[int, float | None]]  # (step, value) by rising step; None was not finite

MIN_POINTS = 5  # a line, its error and two points to spare
SURE = 3.0  # standard errors: by chance one run in 700
NOISES = 4.0  # deviations over the best: the best of 100 measurements lies 2.5 below their mean by chance alone
LEAST_NOISE = 0.001  # of the level: the same noise and timesteps are drawn each time, so nearly nothing is chance
LEAST_RISE = 0.01  # of the best loss: a hundredth cannot be seen in samples


@dataclass(frozen=True)
class Trend:
    """A straight line through points: its change over them and the standard error of that, its value at their end."""

    change: float
    error: float
    level: float

    @property
    def falls(self) -> bool:
        """Tell whether it falls beyond chance."""
        return self.change < -SURE * self.error


def fit_trend(points: Sequence[tuple[float, float]]) -> Trend:
    """Return the least-squares line through at least three points (x, y), x rising.

    Raises:
        ValueError: there are fewer, or all stand at one x.
    """
    if len(points) < 3 or points[0][0] == points[-1][0]:
        raise ValueError(f"points: got {points}, expected at least 3 and not all at one x")
    xs, ys = zip(*points, strict=True)
    middle, mean = statistics.fmean(xs), statistics.fmean(ys)
    spread = sum((x - middle) ** 2 for x in xs)
    slope = sum((x - middle) * (y - mean) for x, y in points) / spread
    left = sum((y - mean - slope * (x - middle)) ** 2 for x, y in points)
    span = xs[-1] - xs[0]
    return Trend(slope * span, math.sqrt(left / (len(points) - 2) / spread) * span, mean + slope * (xs[-1] - middle))


def measure_noise(values: Sequence[float]) -> float:
    """Return the standard deviation about a smooth curve, from second differences; 0 for fewer than three values."""
    bends = [abs(a - 2 * b + c) for a, b, c in zip(values, values[1:], values[2:], strict=False)]
    # the median of |N(0, 1)| is 0.6745, and a second difference has the variance 1 + 4 + 1
    return statistics.median(bends) / (0.6745 * math.sqrt(6)) if bends else 0.0


@dataclass(frozen=True)
class Best:
    """The least mean of three measurements in a row, the mean of the last three, and the noise of one."""

    step: int
    value: float
    last: float
    noise: float
    points_since: int

    @property
    def rise(self) -> float:
        """Return by how much of the best the last lies over it; 0 where that may be chance."""
        over = self.last - self.value
        return over / self.value if over > max(NOISES * self.noise, LEAST_RISE * self.value) else 0.0


def find_best(series: Series) -> Best | None:
    """Return what is the best of a series; None for fewer than five finite values."""
    points = finite(series)
    if len(points) < MIN_POINTS:
        return None
    values = [value for _, value in points]
    means = [statistics.fmean(values[i : i + 3]) for i in range(len(values) - 2)]
    place = min(range(len(means)), key=means.__getitem__)
    noise = max(measure_noise(values), LEAST_NOISE * abs(means[place]))
    return Best(points[place + 1][0], means[place], means[-1], noise, len(points) - place - 2)


def finite(series: Series) -> list[tuple[int, float]]:
    """Return the points that are numbers."""
    return [(step, value) for step, value in series if value is not None and math.isfinite(value)]


def last_third(series: Series) -> Series:
    """Return the points in the last third of the steps."""
    if not series:
        return series
    first, last = series[0][0], series[-1][0]
    return [point for point in series if point[0] >= last - (last - first) / 3]
