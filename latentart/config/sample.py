"""Settings of sampling."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from latentart.config.base import StrictConfig
from latentart.config.optim import Count, Positive


class SampleConfig(StrictConfig):
    """How latents are drawn from the denoiser."""

    sampler: Literal["ddim", "ddpm"] = "ddim"
    """DDIM (Song et al. 2010.02502) with η, or DDPM's ancestral steps (Ho et al. 2006.11239)."""

    steps: Count = 50
    """N, denoising steps, at most T."""

    spacing: Literal["trailing", "leading", "linspace"] = "trailing"
    """Which of the T timesteps are visited; trailing begins at pure noise (Lin et al. 2305.08891)."""

    eta: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Noise added at each DDIM step: 0 is deterministic, 1 is DDPM."""

    guidance: Annotated[float, Field(ge=0)] = 1.5
    """Classifier-free guidance scale: 1 is none, more is truer to the style and less varied."""

    x0_limit: Positive | None = 5.0
    """Predicted clean latents are clamped to this many standard deviations; null leaves them alone."""

    batch_size: Count = 16
    """Pictures made at once; it changes speed and memory, not the pictures."""

    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """Type of the network's forward pass."""
