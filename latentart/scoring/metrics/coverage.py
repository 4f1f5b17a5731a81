"""How true and how varied samples are: what share of one set lies among the other's neighbors."""

from __future__ import annotations

import torch
from torch import Tensor


def precision_and_recall(real: Tensor, fake: Tensor, k: int = 3) -> tuple[float, float]:
    """Return the share of fakes near a real picture, and of real pictures near a fake.

    Near is what lies in the ball around a feature that reaches to its k-th nearest neighbor in its own set
    (Kynkäänniemi et al. 1904.06991, eq. 1 and 2). Features are ``[n, d]`` and ``[m, d]``.

    Raises:
        ValueError: a set has no more than k features.
    """
    distances = torch.cdist(fake.double(), real.double())
    precision = (distances <= neighbor_radii(real, k)).any(1).double().mean()
    recall = (distances <= neighbor_radii(fake, k)[:, None]).any(0).double().mean()
    return float(precision), float(recall)


def density_and_coverage(real: Tensor, fake: Tensor, k: int = 5) -> tuple[float, float]:
    """Return ``1/(kM) Σ_j #{i: y_j in B(x_i)}`` and ``1/N #{i: some y_j in B(x_i)}``.

    Balls are around the N real features ``[N, d]`` alone (Naeem et al. 2002.09797, eq. 4 and 5): one odd picture among
    the M fakes ``[M, d]`` moves neither number far. Of two like sets the density is 1 on average, and the coverage
    near ``1 - 0.5^k``.

    Raises:
        ValueError: there are no more than k real features.
    """
    is_near = torch.cdist(fake.double(), real.double()) <= neighbor_radii(real, k)
    return float(is_near.double().sum(1).mean() / k), float(is_near.any(0).double().mean())


def neighbor_radii(features: Tensor, k: int) -> Tensor:
    """Return of each feature ``[n, d]`` the distance to the k-th nearest other one, float64 [n].

    Raises:
        ValueError: there are no k others.
    """
    if not 1 <= k < len(features):
        raise ValueError(f"k: got {k} of {len(features)} features, expected at least 1 and fewer than there are")
    distances = torch.cdist(features.double(), features.double())
    distances.fill_diagonal_(torch.inf)
    return distances.kthvalue(k, dim=1).values
