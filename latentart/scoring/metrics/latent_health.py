"""Whether an autoencoder's latents are fit to be learned: which channels carry something, and something their own."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from einops import rearrange
from torch import Tensor

from latentart.core.latents import kl_per_image, split_moments
from latentart.scoring.metrics.frechet import FeatureStatistics

ACTIVE_VARIANCE = 0.01  # of the posterior's mean (Burda et al. 1509.00519, section 5.2)

POINT_VARIANCE = 1e-9


@dataclass(frozen=True)
class LatentChannel:
    """One channel: mean and std of z, std of its posterior, and whether its mean hardly follows the picture."""

    mean: float
    std: float
    posterior_std: float
    is_dead: bool


@dataclass(frozen=True)
class LatentHealth:
    """All channels, the mean KL per element in nats, and the greatest correlation of two channels' means, 0…1.

    ``kl`` is None where posteriors are points, as a quantizer's: nothing draws them to a Gaussian.
    """

    channels: list[LatentChannel]
    kl: float | None
    correlation: float

    @property
    def dead(self) -> int:
        """How many channels carry nothing."""
        return sum(channel.is_dead for channel in self.channels)


class LatentExamination:
    """Takes moments in batches, in constant memory."""

    def __init__(self) -> None:
        self._means = FeatureStatistics()
        self._variance = torch.zeros(0, dtype=torch.float64)
        self._kl, self._images = 0.0, 0

    def update(self, moments: Tensor) -> None:
        """Add moments ``[B, 2Z, h, w]``."""
        mean, logvar = split_moments(moments.detach().cpu())
        self._means.update(rearrange(mean, "b z h w -> (b h w) z"))
        variance = logvar.double().exp().sum((0, 2, 3))
        self._variance = self._variance + variance if len(self._variance) else variance
        self._kl += float(kl_per_image(moments.detach().cpu()).double().sum())
        self._images += len(moments)

    def result(self) -> LatentHealth:
        """Return what was found: ``Var z = Var mean + E posterior variance``.

        Raises:
            ValueError: fewer than two latent places were seen.
        """
        covariance, posterior = self._means.covariance, self._variance / self._means.count
        active = covariance.diagonal()
        std = active.clamp_min(1e-12).sqrt()
        correlation = (covariance / std.outer(std)).abs().fill_diagonal_(0.0)
        columns = (self._means.mean, (active + posterior).sqrt(), posterior.sqrt(), active < ACTIVE_VARIANCE)
        channels = [LatentChannel(*row) for row in zip(*(column.tolist() for column in columns), strict=True)]
        kl = None if float(posterior.max()) < POINT_VARIANCE else self._kl / self._images
        return LatentHealth(channels, kl, float(correlation.max()))
