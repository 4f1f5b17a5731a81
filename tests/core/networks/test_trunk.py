"""The trunk of both networks: what is in a picture's mean and contrast must reach the output from the first step."""

from __future__ import annotations

import torch

from latentart.builders import build_autoencoder
from latentart.config.vae import AutoencoderConfig


def build(seed: int) -> torch.nn.Module:
    """A small autoencoder with fresh weights."""
    torch.manual_seed(seed)
    return build_autoencoder(
        AutoencoderConfig(widths=(8, 16), attention=("none", "none"), groups=4, head_channels=8, latent_channels=4)
    )


@torch.no_grad()
def test_a_fresh_autoencoder_keeps_contrast() -> None:
    """Twice the contrast gives latents of twice the size: no normalization stands between picture and latents."""
    network = build(0)
    images = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(1)) - 0.5

    once, twice = (network.encode(scale * images)[:, :4] for scale in (1.0, 2.0))

    torch.testing.assert_close(twice, 2 * once, atol=1e-5, rtol=1e-5)
    assert float(once.std()) > 0.05


@torch.no_grad()
def test_a_fresh_posterior_is_nearly_certain() -> None:
    """Every posterior starts with a spread of 0.05, whatever the picture."""
    images = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(1)) * 2 - 1

    logvar = build(0).encode(images)[:, 4:]

    torch.testing.assert_close((0.5 * logvar).exp(), torch.full_like(logvar, 0.05))
