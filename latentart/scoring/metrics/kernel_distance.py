"""The kernel distance between two sets of features: unbiased, so that small sets do not seem far apart."""

from __future__ import annotations

import torch
from torch import Tensor


def kernel_distance(a: Tensor, b: Tensor) -> float:
    """Return the unbiased squared maximum mean discrepancy of features ``[n, d]`` and ``[m, d]``.

    ``1/(n(n-1)) Σ_{i≠j} k(a_i, a_j) + 1/(m(m-1)) Σ_{i≠j} k(b_i, b_j) - 2/(nm) Σ_ij k(a_i, b_j)`` with the cubic kernel
    ``k(x, y) = (xᵀy / d + 1)³`` (Bińkowski et al. 1801.01401, eq. 4 and section 4); over Inception's features this is
    KID. Of two sets from one distribution it is 0 on average, so that it may well be a little below.

    Raises:
        ValueError: there are fewer than two features in a set, or the dimensions differ.
    """
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1] or min(len(a), len(b)) < 2:
        msg = f"features: got shapes {list(a.shape)} and {list(b.shape)}, expected [n, d] and [m, d] of 2 and more"
        raise ValueError(msg)
    a, b = a.double(), b.double()
    within = _mean_of_others(_kernel(a, a)) + _mean_of_others(_kernel(b, b))
    return float(within - 2 * _kernel(a, b).mean())


def _kernel(a: Tensor, b: Tensor) -> Tensor:
    return (a @ b.T / a.shape[1] + 1) ** 3


def _mean_of_others(kernel: Tensor) -> Tensor:
    """Return the mean of a square matrix without its diagonal."""
    count = len(kernel)
    return (kernel.sum() - torch.trace(kernel)) / (count * (count - 1))
