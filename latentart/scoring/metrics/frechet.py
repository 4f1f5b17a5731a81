"""The Fréchet distance between two sets of features, each taken for a Gaussian."""

from __future__ import annotations

import torch
from torch import Tensor


class FeatureStatistics:
    """The mean and covariance of features that come in batches, in float64 and constant memory.

    The scatter about the mean is carried on, not the sum of products, so that a large mean costs no digits:
    ``S = S_a + S_b + δ δᵀ n_a n_b / (n_a + n_b)``, δ the difference of the means (Chan et al. 1983, Algorithms for
    Computing the Sample Variance, eq. 2.1).

    Attributes:
        count: how many features came.
    """

    def __init__(self) -> None:
        self.count = 0
        self._mean = torch.zeros(0, dtype=torch.float64)
        self._scatter = torch.zeros(0, 0, dtype=torch.float64)

    def update(self, features: Tensor) -> None:
        """Take in features ``[n, d]`` of any dtype on any device.

        Raises:
            ValueError: the shape is another one than before, or a number is not finite.
        """
        if features.ndim != 2 or (self.count and features.shape[1] != len(self._mean)):
            expected = f"[n, {len(self._mean)}]" if self.count else "[n, d]"
            raise ValueError(f"features: got shape {list(features.shape)}, expected {expected}")
        new = features.detach().cpu().double()
        if not new.isfinite().all():
            raise ValueError("features: got numbers that are not finite")
        if not len(new):
            return
        if not self.count:
            self._mean, self._scatter = new.new_zeros(new.shape[1]), new.new_zeros(new.shape[1], new.shape[1])
        new_mean = new.mean(0)
        centered = new - new_mean
        delta = new_mean - self._mean
        total = self.count + len(new)
        self._scatter = self._scatter + centered.T @ centered + delta.outer(delta) * (self.count * len(new) / total)
        self._mean = self._mean + delta * (len(new) / total)
        self.count = total

    @property
    def mean(self) -> Tensor:
        """The mean, ``[d]`` float64."""
        return self._mean

    @property
    def covariance(self) -> Tensor:
        """The unbiased covariance ``S / (n - 1)``, ``[d, d]`` float64.

        Raises:
            ValueError: there are fewer than two features.
        """
        if self.count < 2:
            raise ValueError(f"count: got {self.count}, expected at least 2 features")
        return self._scatter / (self.count - 1)


def frechet_distance(a: FeatureStatistics, b: FeatureStatistics) -> float:
    """Return ``|μ_a - μ_b|² + tr(C_a + C_b - 2 (C_a C_b)^½)`` (Heusel et al. 1706.08500, eq. 6), never below 0.

    With ``C = R Rᵀ`` the last trace is the sum of the singular values of ``R_aᵀ R_b``, which are the roots of the
    eigenvalues of ``C_a^½ C_b C_a^½``: finite, and as exact, where a covariance is singular, as it is of fewer
    features than dimensions. Sets of few features seem far apart: compare only distances of sets of equal size.

    Raises:
        ValueError: the dimensions differ, or there are fewer than two features in a set.
    """
    covariance_a, covariance_b = a.covariance, b.covariance
    if len(a.mean) != len(b.mean):
        raise ValueError(f"features: got {len(a.mean)} and {len(b.mean)} dimensions, expected the same")
    mixed = torch.linalg.svdvals(_root(covariance_a).T @ _root(covariance_b)).sum()
    distance = (a.mean - b.mean).square().sum() + covariance_a.trace() + covariance_b.trace() - 2 * mixed
    return max(distance.item(), 0.0)


def _root(covariance: Tensor) -> Tensor:
    """Return ``R [d, d]`` with ``R Rᵀ`` the covariance; eigenvalues that are rounding, below or above 0, become 0."""
    values, vectors = torch.linalg.eigh(covariance)
    rounding = len(values) * torch.finfo(values.dtype).eps * values[-1]
    return vectors * values.where(values > rounding, 0.0).sqrt()
