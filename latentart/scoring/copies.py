"""Samples that are copies of training pictures, and how much samples of one style differ."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

NEAREST_QUANTILE = 0.01  # of the held-out pictures: so many samples count as copies by chance
RATIO_QUANTILE = 0.05
NEIGHBORS = 20  # to which the nearest is compared; Carlini et al. take 50 of many more
LEAST_PICTURES = 16  # on either side: fewer say nothing of what is near
QUERIES = 128  # that are compared at once


class CopyFinder:
    """Finds samples that lie nearer to one training picture than held-out pictures ever do.

    A copy is near, and much nearer to one picture than to the next 20 (the idea of Carlini et al. 2301.13188, section
    5.1): a blurred sample is near to many. Both limits are quantiles of what held-out pictures show, so that one of a
    hundred is taken for a copy by chance.

    Args:
        training: float ``[N, variants, D]``, descriptors of the training pictures; the nearest variant counts.
        held_out: float ``[M, D]``.

    Raises:
        ValueError: there are fewer than 16 of either.
    """

    def __init__(self, training: Tensor, held_out: Tensor) -> None:
        if min(len(training), len(held_out)) < LEAST_PICTURES:
            raise ValueError(
                f"copies: got {len(training)} training and {len(held_out)} held-out pictures, expected at least "
                f"{LEAST_PICTURES} of each"
            )
        self._mean = training.mean((0, 1))
        self._training = functional.normalize(training - self._mean, dim=-1)
        nearest, ratio = self.measure(held_out)
        self.nearest_limit = float(torch.quantile(nearest, NEAREST_QUANTILE))
        self.ratio_limit = float(torch.quantile(ratio, RATIO_QUANTILE))

    def measure(self, descriptors: Tensor) -> tuple[Tensor, Tensor]:
        """Return of each ``[n, D]`` the distance to the nearest training picture, 0…2, and its ratio to the next 20.

        Distances are between descriptors without their mean and of length 1, so that contrast does not matter.
        """
        nearest, ratio = [], []
        for part in torch.split(functional.normalize(descriptors - self._mean, dim=-1), QUERIES):
            likeness = torch.einsum("nd,pvd->npv", part, self._training).amax(2)
            best = likeness.topk(min(NEIGHBORS + 1, likeness.shape[1]), dim=1).values
            distances = (2 - 2 * best).clamp_min(0).sqrt()
            nearest.append(distances[:, 0])
            ratio.append(distances[:, 0] / distances[:, 1:].mean(1).clamp_min(1e-6))
        return torch.cat(nearest), torch.cat(ratio)

    def find(self, descriptors: Tensor) -> Tensor:
        """Return which of the samples ``[n, D]`` are copies, bool [n]."""
        nearest, ratio = self.measure(descriptors)
        return (nearest < self.nearest_limit) & (ratio < self.ratio_limit)


def relative_spread(features: Tensor, style_id: Tensor, real: Tensor, real_style: Tensor) -> float | None:
    """Return the mean distance between samples of one style as a share of that between real pictures of it.

    ``features`` ``[n, D]`` and ``real`` ``[m, D]`` are taken in units of the real ones' deviation. Only styles with
    two of each count; None where there are none, or where real pictures do not differ.
    """
    scale = real.std(0, correction=0).clamp_min(1e-6)
    shares = []
    for style in sorted(set(style_id.tolist())):
        ours, theirs = features[style_id == style] / scale, real[real_style == style] / scale
        if min(len(ours), len(theirs)) > 1 and (usual := float(functional.pdist(theirs).mean())) > 0:
            shares.append(float(functional.pdist(ours).mean()) / usual)
    return sum(shares) / len(shares) if shares else None
