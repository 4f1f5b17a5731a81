"""Moments and latents: inverses, the draw, the divergence against torch's, statistics against counting."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.distributions import Normal, kl_divergence

from latentart.core.latents import (
    LatentNormalizer,
    LatentStatistics,
    join_moments,
    kl_per_image,
    sample_posterior,
    split_moments,
)


def draw(*shape: int, seed: int = 0) -> Tensor:
    """Return normal float32 numbers."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_join_is_the_inverse_of_split() -> None:
    """Mean is the first half of the channels, logvar the second."""
    moments = draw(2, 6, 3, 5)

    mean, logvar = split_moments(moments)

    assert torch.equal(mean, moments[:, :3])
    assert torch.equal(logvar, moments[:, 3:])
    assert torch.equal(join_moments(mean, logvar), moments)


def test_logvar_is_clamped_and_mean_is_not() -> None:
    """What a wild encoder says about the variance stays within e^-30 … e^20."""
    moments = torch.tensor([1e6, -1e6, 1e6, -1e6]).view(1, 4, 1, 1)

    mean, logvar = split_moments(moments)

    assert mean.flatten().tolist() == [1e6, -1e6]
    assert logvar.flatten().tolist() == [20.0, -30.0]


def test_moments_are_split_in_float32() -> None:
    """Half precision in, float32 out."""
    assert {part.dtype for part in split_moments(draw(1, 4, 2, 2).bfloat16())} == {torch.float32}


def test_draw_is_mean_plus_deviation_times_noise() -> None:
    """It is z = mean + exp(logvar / 2) noise; no noise gives the mean."""
    moments, noise = draw(2, 6, 3, 5), draw(2, 3, 3, 5, seed=1)
    mean, logvar = moments.chunk(2, dim=1)

    z = sample_posterior(moments, noise)

    torch.testing.assert_close(z, mean + torch.exp(logvar / 2) * noise, atol=1e-6, rtol=1e-6)
    assert torch.equal(sample_posterior(moments, torch.zeros_like(noise)), mean)


def test_divergence_is_the_closed_form_of_torch() -> None:
    """The divergence from N(0, 1) equals torch.distributions', as a mean over each image's elements."""
    moments = draw(4, 6, 3, 5)
    mean, logvar = moments.chunk(2, dim=1)

    result = kl_per_image(moments)

    expected = kl_divergence(Normal(mean, (logvar / 2).exp()), Normal(0.0, 1.0)).flatten(1).mean(1)
    torch.testing.assert_close(result, expected, atol=1e-6, rtol=1e-5)


def test_divergence_of_known_gaussians() -> None:
    """N(0, 1) has none; N(2, 1) has 2 nats; N(0, 4) has 3/2 - ln 2."""
    moments = torch.tensor([[0.0, 0.0], [2.0, 0.0], [0.0, math.log(4)]]).view(3, 2, 1, 1)

    expected = torch.tensor([0.0, 2.0, 1.5 - math.log(2)])
    torch.testing.assert_close(kl_per_image(moments), expected, atol=1e-6, rtol=1e-6)


def test_divergence_does_not_depend_on_resolution() -> None:
    """The same moments on four times as many places weigh the same."""
    moments = draw(2, 6, 2, 2)

    torch.testing.assert_close(kl_per_image(moments.repeat(1, 1, 2, 2)), kl_per_image(moments), atol=1e-6, rtol=1e-6)


def test_denormalize_is_the_inverse_of_normalize() -> None:
    """(z - mean) / std for each channel, and back."""
    normalizer = LatentNormalizer((1.0, -2.0, 0.0), (0.5, 4.0, 1.0))
    z = draw(2, 3, 4, 5)

    latents = normalizer.normalize(z)

    torch.testing.assert_close(latents[:, 1], (z[:, 1] + 2) / 4, atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(normalizer.denormalize(latents), z, atol=1e-5, rtol=1e-5)


def test_statistics_are_those_of_posterior_draws() -> None:
    """Mean and deviation from moments alone equal those measured on many draws of z."""
    moments = torch.cat([draw(8, 3, 4, 4) * 2 + 1, draw(8, 3, 4, 4, seed=1) * 0.5 - 1], dim=1)
    statistics = LatentStatistics()
    statistics.update(moments)

    normalizer = statistics.normalizer()

    z = torch.cat([sample_posterior(moments, draw(8, 3, 4, 4, seed=2 + i)) for i in range(400)])
    measured = z.transpose(0, 1).flatten(1)
    torch.testing.assert_close(torch.tensor(normalizer.mean), measured.mean(1), atol=0.01, rtol=0)
    torch.testing.assert_close(torch.tensor(normalizer.std), measured.std(1), atol=0.01, rtol=0)


def test_normalized_draws_have_mean_0_and_deviation_1() -> None:
    """What the denoiser learns from is of unit scale in every channel."""
    moments = torch.cat([draw(8, 2, 8, 8) * 3 + 1, torch.full((8, 2, 8, 8), -20.0)], dim=1)
    statistics = LatentStatistics()
    statistics.update(moments)

    latents = statistics.normalizer().normalize(sample_posterior(moments, draw(8, 2, 8, 8, seed=1)))

    channels = latents.transpose(0, 1).flatten(1)
    torch.testing.assert_close(channels.mean(1), torch.zeros(2), atol=1e-4, rtol=0)
    torch.testing.assert_close(channels.std(1, correction=0), torch.ones(2), atol=1e-4, rtol=0)


def test_statistics_do_not_depend_on_how_the_set_is_cut() -> None:
    """Batches of any size add up to the same numbers."""
    moments = draw(10, 6, 3, 5)
    whole, parts = LatentStatistics(), LatentStatistics()

    whole.update(moments)
    for part in (moments[:1], moments[1:3], moments[3:]):
        parts.update(part)

    assert parts.normalizer().mean == pytest.approx(whole.normalizer().mean, abs=1e-12)
    assert parts.normalizer().std == pytest.approx(whole.normalizer().std, abs=1e-12)


def test_statistics_of_a_constant_are_exact() -> None:
    """Without any variance the mean is the constant and the deviation a small positive floor, never zero or NaN."""
    statistics = LatentStatistics()
    for _ in range(3):
        statistics.update(join_moments(torch.full((2, 1, 4, 4), 3.0), torch.full((2, 1, 4, 4), -30.0)))

    normalizer = statistics.normalizer()

    assert normalizer.mean == (3.0,)
    assert normalizer.std == pytest.approx((1e-6,))
    assert torch.equal(normalizer.normalize(torch.full((1, 1, 2, 2), 3.0)), torch.zeros(1, 1, 2, 2))


def test_statistics_of_nothing_are_refused() -> None:
    """Without a batch there is no mean."""
    with pytest.raises(ValueError, match="got no moments"):
        LatentStatistics().normalizer()
