"""Latents by channel: statistics of whole sets, dead channels, channels that say the same."""

from __future__ import annotations

import pytest
import torch

from latentart.core.latents import LatentStatistics, join_moments, kl_per_image
from latentart.scoring.metrics.latent_health import LatentExamination


def draw_moments() -> torch.Tensor:
    """Return moments of 20 pictures: a channel, its negative, an unrelated one, and one that is the prior's."""
    mean = torch.randn(20, 4, 6, 6, generator=torch.Generator().manual_seed(0))
    mean[:, 1] = -2 * mean[:, 0] + 0.5
    mean[:, 3] *= 0.01
    logvar = torch.tensor([-4.0, -2.0, -1.0, 0.0]).view(1, 4, 1, 1).expand_as(mean)
    return join_moments(mean, logvar)


def test_channels_are_measured_over_all_batches() -> None:
    """As all at once: the statistics the denoiser works with, the posterior's deviation, the divergence."""
    moments, examination, statistics = draw_moments(), LatentExamination(), LatentStatistics()
    for part in torch.split(moments, 7):
        examination.update(part)
    statistics.update(moments)

    found, known = examination.result(), statistics.normalizer()

    assert [channel.mean for channel in found.channels] == pytest.approx(known.mean, abs=1e-6)
    assert [channel.std for channel in found.channels] == pytest.approx(known.std, rel=1e-3)
    assert [channel.posterior_std for channel in found.channels] == pytest.approx(
        [torch.tensor(value / 2).exp().item() for value in (-4.0, -2.0, -1.0, 0.0)]
    )
    assert found.kl == pytest.approx(float(kl_per_image(moments).mean()), rel=1e-6)


def test_dead_and_repeated_channels_are_seen() -> None:
    """One carries nothing; two say the same."""
    examination = LatentExamination()
    examination.update(draw_moments())

    found = examination.result()

    assert [channel.is_dead for channel in found.channels] == [False, False, False, True]
    assert found.dead == 1
    assert found.correlation == pytest.approx(1.0)


def test_channels_of_their_own_do_not_correlate() -> None:
    """Of 720 unrelated places each a correlation of 0.2 would be five deviations."""
    examination = LatentExamination()
    examination.update(draw_moments()[:, [0, 2, 4, 6]])

    assert examination.result().correlation < 0.2
