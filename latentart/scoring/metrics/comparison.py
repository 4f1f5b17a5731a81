"""Two sets of pictures compared in a judge's features, with error bars; the same for other real pictures as a floor."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from latentart.scoring.metrics.coverage import density_and_coverage, precision_and_recall
from latentart.scoring.metrics.frechet import FeatureStatistics, frechet_distance
from latentart.scoring.metrics.kernel_distance import kernel_distance

DRAWS = 10
MEASURES = ("frechet", "kernel", "precision", "recall", "density", "coverage")
MOST_NEIGHBORS = 5  # that a measure looks at
MOST_DRAWN = 1024  # of a set at once: more say little more, and take longer


@dataclass(frozen=True)
class LabeledFeatures:
    """Features ``[n, d]`` of pictures and their style_id int64 [n]."""

    features: Tensor
    style_id: Tensor


@dataclass(frozen=True)
class Measured:
    """A number and its standard error, NaN where there are too few pictures to tell it."""

    value: float
    error: float


def compare_sets(
    real: LabeledFeatures, others: Sequence[LabeledFeatures], *, seed: int = 0, draws: int = DRAWS
) -> tuple[list[dict[str, Measured]], int]:
    """Return the measures of each of the other sets against the real one, and how many pictures a draw has.

    In each draw all sets have equally many pictures of every style, half of what the smallest has, so that numbers of
    the sets can be compared with each other. The deviation over draws of half a set estimates the standard error of
    the whole set's number (Shao and Wu 1989, delete-d jackknife, d = n/2).

    Raises:
        ValueError: fewer than two pictures can be drawn.
    """
    found: list[dict[str, list[float]]] = [{name: [] for name in MEASURES} for _ in others]
    counts = counts_alike([one.style_id for one in (real, *others)])
    for chosen in draw_alike([one.style_id for one in (real, *others)], counts, seed=seed, draws=draws):
        base = real.features[chosen[0]]
        for one, rows, values in zip(others, chosen[1:], found, strict=True):
            for name, value in measure(base, one.features[rows], counts).items():
                values[name].append(value)
    summaries = [{name: _summarize(values) for name, values in one.items()} for one in found]
    if all(_is_whole(one.style_id, counts) for one in (real, *others)):  # every draw is the same
        summaries = [{name: replace(one, error=math.nan) for name, one in each.items()} for each in summaries]
    return summaries, sum(counts)


def _is_whole(style_id: Tensor, counts: Sequence[int]) -> bool:
    """Tell whether ``counts`` pictures of the styles are all that a set has of these."""
    present = torch.bincount(style_id, minlength=len(counts)).tolist()
    return all(count in (0, there) for count, there in zip(counts, present, strict=False))


def counts_alike(style_ids: Sequence[Tensor]) -> list[int]:
    """Return how many pictures of each style a draw has: half of the smallest set's; the only one of a style comes.

    Raises:
        ValueError: there are fewer than two.
    """
    num_styles = 1 + max((int(ids.max()) for ids in style_ids if len(ids)), default=0)
    least = torch.stack([torch.bincount(ids, minlength=num_styles) for ids in style_ids]).amin(0)
    counts = torch.where(least > 1, least // 2, least)
    if int(counts.sum()) > MOST_DRAWN:
        counts = (counts * MOST_DRAWN // counts.sum()).clamp_min(1).minimum(counts)
    if int(counts.sum()) < 2:
        raise ValueError(f"style_ids: got {least.tolist()} pictures of each style in all sets, expected 2 at least")
    return [int(count) for count in counts]


def draw_alike(
    style_ids: Sequence[Tensor], counts: Sequence[int], *, seed: int, draws: int = DRAWS
) -> Iterator[list[Tensor]]:
    """Yield rows of each set, drawn so that all have ``counts`` pictures of the styles, one style after the other."""
    generator = torch.Generator().manual_seed(seed)
    for _ in range(draws):
        chosen = []
        for ids in style_ids:
            order = torch.randperm(len(ids), generator=generator)
            chosen.append(torch.cat([order[ids[order] == style][:count] for style, count in enumerate(counts)]))
        yield chosen


def measure(real: Tensor, other: Tensor, counts: Sequence[int]) -> dict[str, float]:
    """Return all measures of features ``[n, d]`` against real ones ``[n, d]``, both with ``counts`` rows of each style.

    The kernel distance is the mean over styles of that between pictures of one style. What cannot be told of so few is
    NaN: that of styles with one picture each, and of 5 pictures and fewer what their neighbors tell.
    """
    statistics = FeatureStatistics(), FeatureStatistics()
    for one, features in zip(statistics, (real, other), strict=True):
        one.update(features)
    found = dict.fromkeys(MEASURES, float("nan"))
    found["frechet"] = frechet_distance(*statistics)
    pairs = zip(*(torch.split(one, list(counts)) for one in (real, other)), strict=True)
    distances = [kernel_distance(a, b) for a, b in pairs if len(a) > 1]
    if distances:
        found["kernel"] = sum(distances) / len(distances)
    if len(real) > MOST_NEIGHBORS:
        found["precision"], found["recall"] = precision_and_recall(real, other)
        found["density"], found["coverage"] = density_and_coverage(real, other)
    return found


def _summarize(values: Sequence[float]) -> Measured:
    found = torch.tensor(values, dtype=torch.float64)
    return Measured(float(found.mean()), float(found.std()) if len(found) > 1 else math.nan)
