"""Precision, recall, density and coverage: points on a line by hand, the definitions in loops, and what each tells."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from latentart.scoring.metrics.coverage import density_and_coverage, neighbor_radii, precision_and_recall


def draw(seed: int, count: int, scale: float = 1.0, dimensions: int = 4) -> Tensor:
    """Draw normal features."""
    return scale * torch.randn(count, dimensions, generator=torch.Generator().manual_seed(seed))


def on_a_line(*places: float) -> Tensor:
    """Return features of one dimension."""
    return torch.tensor(places)[:, None]


def test_radii_reach_to_the_kth_other() -> None:
    """A point is not its own neighbor."""
    points = on_a_line(0, 1, 3, 7)

    assert neighbor_radii(points, 1).tolist() == [1, 1, 2, 4]
    assert neighbor_radii(points, 2).tolist() == [3, 2, 3, 6]


def test_points_on_a_line_by_hand() -> None:
    """Real 0, 1, 3, 7 with k = 1 cover -1…1, 0…2, 1…5, 3…11; fakes 0.5, 1.5, 20 cover -0.5…1.5, 0.5…2.5, 1.5…38.5."""
    real, fake = on_a_line(0, 1, 3, 7), on_a_line(0.5, 1.5, 20)

    assert precision_and_recall(real, fake, k=1) == pytest.approx((2 / 3, 4 / 4))
    assert density_and_coverage(real, fake, k=1) == pytest.approx((4 / 3, 3 / 4))


def test_they_are_their_definitions() -> None:
    """Written out in loops over drawn features."""
    real, fake, k = draw(0, 30), draw(1, 20, scale=1.4), 3
    real_radii, fake_radii = neighbor_radii(real, k), neighbor_radii(fake, k)
    inside = [[float((y - x).norm()) <= float(r) for x, r in zip(real, real_radii, strict=True)] for y in fake]
    covered = [[float((x - y).norm()) <= float(r) for y, r in zip(fake, fake_radii, strict=True)] for x in real]

    assert precision_and_recall(real, fake, k) == pytest.approx(
        (sum(map(any, inside)) / 20, sum(map(any, covered)) / 30)
    )
    columns = [any(row[i] for row in inside) for i in range(30)]
    assert density_and_coverage(real, fake, k) == pytest.approx((sum(map(sum, inside)) / (k * 20), sum(columns) / 30))


def test_equal_sets_are_covered_and_true() -> None:
    """Every picture lies in its own ball."""
    real = draw(0, 40)

    assert precision_and_recall(real, real) == (1.0, 1.0)
    assert density_and_coverage(real, real)[1] == 1.0


def test_collapse_is_seen_in_recall_and_coverage() -> None:
    """Samples that all look like one real picture are precise, and cover hardly anything."""
    real = draw(0, 100)
    fake = real[:1] + 1e-3 * draw(1, 100)

    precision, recall = precision_and_recall(real, fake)
    density, coverage = density_and_coverage(real, fake)

    assert precision == 1.0
    assert recall <= 0.02
    assert coverage <= 0.2
    assert density > 0


def test_garbage_is_seen_in_precision_and_density() -> None:
    """Samples far from all real pictures."""
    real, fake = draw(0, 100), draw(1, 100) + 50

    assert precision_and_recall(real, fake)[0] == 0.0
    assert density_and_coverage(real, fake) == (0.0, 0.0)


@pytest.mark.parametrize(("count", "k"), [(3, 3), (3, 0), (0, 1)])
def test_too_few_for_their_neighbors_are_refused(count: int, k: int) -> None:
    """There must be k others."""
    with pytest.raises(ValueError, match=f"k: got {k} of {count} features"):
        neighbor_radii(draw(0, count), k)
