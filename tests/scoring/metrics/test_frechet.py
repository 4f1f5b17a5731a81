"""The Fréchet distance against closed forms and a slow oracle; statistics do not depend on the batches."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from latentart.scoring.metrics.frechet import FeatureStatistics, frechet_distance


def draw(*shape: int, seed: int = 0) -> Tensor:
    """Return standard normal float64 numbers."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def statistics_of(*batches: Tensor) -> FeatureStatistics:
    """Return the statistics of features that come in these batches."""
    statistics = FeatureStatistics()
    for batch in batches:
        statistics.update(batch)
    return statistics


def white(count: int, dimensions: int, seed: int = 0) -> Tensor:
    """Return features whose sample mean is 0 and whose sample covariance is the identity, to rounding."""
    features = draw(count, dimensions, seed=seed)
    features = features - features.mean(0)
    return features @ torch.linalg.inv(torch.linalg.cholesky(features.T.cov().view(dimensions, -1), upper=True))


def slow_distance(a: Tensor, b: Tensor) -> float:
    """Return the distance with the matrix root by its definition: the eigenvalues of ``C_a C_b``, which is skewed."""
    roots = torch.linalg.eigvals(a.T.cov() @ b.T.cov()).sqrt().real.sum()
    return float((a.mean(0) - b.mean(0)).square().sum() + a.T.cov().trace() + b.T.cov().trace() - 2 * roots)


def test_batches_add_up_to_the_whole() -> None:
    """Batches of any size, one and none among them, give the mean and covariance of all; a large mean costs nothing."""
    features = draw(50, 4) + 1e6

    statistics = statistics_of(features[:1], features[1:1], features[1:20], features[20:])

    assert statistics.count == 50
    torch.testing.assert_close(statistics.mean, features.mean(0))
    torch.testing.assert_close(statistics.covariance, features.T.cov(), atol=1e-8, rtol=0)


def test_features_of_half_precision_are_summed_in_float64() -> None:
    """What comes in bfloat16 with a gradient is held in float64 without one."""
    features = draw(300, 3).bfloat16().requires_grad_()

    statistics = statistics_of(features)

    assert statistics.covariance.dtype == torch.float64
    assert not statistics.mean.requires_grad
    torch.testing.assert_close(statistics.mean, features.detach().double().mean(0))


def test_the_closed_form_of_diagonal_gaussians() -> None:
    """``Σ (μ_a - μ_b)² + (σ_a - σ_b)²``."""
    mean, std_a, std_b = torch.tensor([[1.0, -2.0, 0.0], [0.5, 3.0, 1.0], [2.0, 0.1, 1.0]], dtype=torch.float64)

    distance = frechet_distance(statistics_of(white(40, 3) * std_a), statistics_of(white(60, 3, seed=1) * std_b + mean))

    expected = float(mean.square().sum() + (std_a - std_b).square().sum())
    assert math.isclose(distance, expected, rel_tol=1e-9)


def test_it_is_the_definition_and_symmetric() -> None:
    """Full covariances that do not commute."""
    a = draw(80, 6) @ draw(6, 6, seed=2)
    b = draw(90, 6, seed=1) @ draw(6, 6, seed=3) + 0.3

    there, back = (frechet_distance(statistics_of(x), statistics_of(y)) for x, y in [(a, b), (b, a)])

    assert math.isclose(there, slow_distance(a, b), rel_tol=1e-9)
    assert math.isclose(there, back, rel_tol=1e-12)


@pytest.mark.parametrize(("count", "scale"), [(200, 1.0), (2, 1.0), (5, 1e-6), (7, 1e6)])
def test_the_same_statistics_are_no_distance_apart(count: int, scale: float) -> None:
    """Also where there are fewer features than dimensions."""
    features = scale * draw(count, 16)

    distance = frechet_distance(statistics_of(features), statistics_of(features))

    assert 0 <= distance < 1e-12 * scale**2 * 16


def test_singular_covariances() -> None:
    """Two lines at an angle φ in 32 dimensions: ``2 - 2 |cos φ|``; a constant against a line: the line's variance."""
    line = white(9, 1)
    axis, other = torch.zeros(2, 32, dtype=torch.float64)
    axis[3], other[3], other[7] = 1.0, math.cos(1.0), math.sin(1.0)
    on_axis, on_other, constant = (statistics_of(line * direction) for direction in (axis, other, 0 * axis))

    assert math.isclose(frechet_distance(on_axis, on_other), 2 - 2 * math.cos(1.0), abs_tol=1e-7)
    assert math.isclose(frechet_distance(on_axis, constant), 1.0, abs_tol=1e-9)
    assert frechet_distance(constant, constant) == 0


def test_few_features_in_many_dimensions_move_by_their_mean() -> None:
    """A shift adds its square, whatever the covariance."""
    features = draw(3, 64)

    distance = frechet_distance(statistics_of(features), statistics_of(features + 0.5))

    assert math.isclose(distance, 64 * 0.25, rel_tol=1e-9)


def test_what_has_no_distance_is_refused() -> None:
    """Too few features, other dimensions, other shapes, numbers that are not finite."""
    one, two, wider = statistics_of(draw(1, 3)), statistics_of(draw(2, 3)), statistics_of(draw(2, 4))

    with pytest.raises(ValueError, match="got 1, expected at least 2"):
        frechet_distance(two, one)
    with pytest.raises(ValueError, match="got 0, expected at least 2"):
        frechet_distance(FeatureStatistics(), two)
    with pytest.raises(ValueError, match="got 3 and 4 dimensions"):
        frechet_distance(two, wider)
    with pytest.raises(ValueError, match=r"got shape \[2, 4\], expected \[n, 3\]"):
        two.update(draw(2, 4))
    with pytest.raises(ValueError, match="not finite"):
        two.update(torch.tensor([[0.0, math.nan, 1.0]]))
    assert two.count == 2
