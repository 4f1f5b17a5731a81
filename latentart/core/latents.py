"""Moments ↔ latents: the posterior's draw and divergence, and the normalization the denoiser works in."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

_LOGVAR_RANGE = (-30.0, 20.0)


def split_moments(moments: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and logvar, each ``[B, Z, h, w]`` float32; the one place where logvar is clamped."""
    mean, logvar = moments.float().chunk(2, dim=1)
    return mean, logvar.clamp(*_LOGVAR_RANGE)


def join_moments(mean: Tensor, logvar: Tensor) -> Tensor:
    """Return moments ``[B, 2Z, h, w]``: mean ⊕ logvar on dim 1; the inverse of ``split_moments``."""
    return torch.cat([mean, logvar], dim=1)


def point_moments(mean: Tensor) -> Tensor:
    """Return the moments of a posterior that is a point, ``[B, 2Z, h, w]``: the least logvar, a std of 3e-7."""
    return join_moments(mean, torch.full_like(mean, _LOGVAR_RANGE[0]))


def sample_posterior(moments: Tensor, noise: Tensor) -> Tensor:
    """Return ``z = mean + std · noise`` (Kingma & Welling 1312.6114, section 2.4), noise ``[B, Z, h, w]`` ~ N(0, 1)."""
    mean, logvar = split_moments(moments)
    return mean + (0.5 * logvar).exp() * noise


def kl_per_image(moments: Tensor) -> Tensor:
    """Return the divergence from N(0, 1) per image, ``[B]``, as a mean over the latent's elements, in nats.

    ``½ (mean² + exp(logvar) - 1 - logvar)`` (Kingma & Welling, appendix B). Differs from the paper: mean, not sum,
    over elements, so that its weight survives a change of resolution.
    """
    mean, logvar = split_moments(moments)
    return 0.5 * (mean.square() + logvar.exp() - 1.0 - logvar).flatten(1).mean(1)


@dataclass(frozen=True)
class LatentNormalizer:
    """Per-channel statistics of z, measured on the data: makes latents of mean 0 and standard deviation 1.

    Attributes:
        mean: Z floats. std: Z floats, positive.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def normalize(self, z: Tensor) -> Tensor:
        """Return latents ``(z - mean) / std``."""
        return (z - self._channels(self.mean, z)) / self._channels(self.std, z)

    def denormalize(self, latents: Tensor) -> Tensor:
        """Return ``z = latents · std + mean``; the inverse of ``normalize``."""
        return latents * self._channels(self.std, latents) + self._channels(self.mean, latents)

    @staticmethod
    def _channels(values: tuple[float, ...], like: Tensor) -> Tensor:
        return torch.tensor(values, dtype=torch.float32, device=like.device).view(1, -1, 1, 1)


class LatentStatistics:
    """Accumulates per-channel mean and variance of z over any number of batches, in constant memory.

    The variance of a posterior draw is the variance of the means plus the mean posterior variance, so no draw is
    needed: ``Var z = Var mean + E exp(logvar)``.
    """

    def __init__(self) -> None:
        self.count = 0
        self.total = torch.zeros(0, dtype=torch.float64)
        self.total_square = torch.zeros(0, dtype=torch.float64)

    def update(self, moments: Tensor) -> None:
        """Add moments ``[B, 2Z, h, w]``."""
        mean, logvar = (part.double().cpu() for part in split_moments(moments))
        if not self.count:
            self.total = torch.zeros(mean.shape[1], dtype=torch.float64)
            self.total_square = torch.zeros(mean.shape[1], dtype=torch.float64)
        self.count += mean.numel() // mean.shape[1]
        self.total += mean.sum((0, 2, 3))
        self.total_square += (mean.square() + logvar.exp()).sum((0, 2, 3))

    def normalizer(self) -> LatentNormalizer:
        """Return the statistics so far.

        Raises:
            ValueError: nothing was added.
        """
        if not self.count:
            msg = "latent statistics: got no moments, expected at least one batch"
            raise ValueError(msg)
        mean = self.total / self.count
        std = (self.total_square / self.count - mean.square()).clamp_min(1e-12).sqrt()
        # to 12 digits, as the last bits depend on the order in which sums were taken
        return LatentNormalizer(*(tuple(float(f"{value:.12g}") for value in part.tolist()) for part in (mean, std)))
