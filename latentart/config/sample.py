"""Settings of sampling."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, field_validator

from latentart.config.base import StrictConfig
from latentart.config.optim import Count, Positive, Share, Width
from latentart.kinds import Precision, Sampler, Spacing


class SampleConfig(StrictConfig):
    """How latents are drawn from the denoiser."""

    sampler: Sampler = "ddim"
    """How steps are made. With noise: ddim (Song et al. 2010.02502) by its η, ddpm (Ho et al. 2006.11239). Without:
    euler is ddim at η = 0; heun (Karras et al. 2206.00364) calls the network twice a step; dpmpp_2m (Lu et al.
    2211.01095) and unipc (Zhao et al. 2302.04867) are made for few steps."""

    steps: Count = 50
    """N, denoising steps, at most T."""

    spacing: Spacing | None = None
    """Which of the T timesteps are visited: trailing begins at pure noise (Lin et al. 2305.08891); log_snr is even in
    the log of signal over noise, from noise_limit on (Lu et al. 2206.00927). null is log_snr for 12 and more steps of
    dpmpp_2m and unipc, which come nearest so, and trailing for fewer and for the others."""

    eta: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Noise added at each DDIM step: 0 is deterministic, 1 is DDPM. No other sampler takes it."""

    guidance: Annotated[float, Field(ge=0)] = 1.5
    """Classifier-free guidance scale: 1 is none, more is truer to the style and less varied."""

    guidance_interval: tuple[Share, Share] = (0.0, 1.0)
    """Noise levels that are guided, as shares of T: 0 is clean, 1 pure noise. The others are faster, at half the work,
    and keep more variety (Kynkäänniemi et al. 2404.07724). By default all."""

    guidance_rescale: Share = 0.0
    """How far guided predictions go back to the contrast of unguided ones, against glare at a large scale; 0 is off,
    0.7 the value of Lin et al. 2305.08891."""

    autoguidance: Annotated[float, Field(ge=0)] | None = None
    """Takes the place of guidance: how far from an early average of the same run (Karras et al. 2406.02507). null is
    off, 1 none, 2 a good beginning. The run must have kept ldm.training.run.ema.tracks."""

    x0_limit: Positive | None = 5.0
    """Predicted clean latents are clamped to this many standard deviations; null leaves them alone."""

    noise_limit: Positive | None = 164.0
    """Where the network predicts noise (eps), drawing begins at a timestep of no more noise against signal than this:
    that many times as large is an error of its in the picture. So it does with log_snr, whose steps would else all be
    noise. 164 = e^5.1 is where Lu et al. 2206.00927 begin on the cosine schedule, which goes on to 20,291; Ho et al.'s
    linear one ends at 157. null: at the last timestep."""

    batch_size: Width = 16
    """Pictures made at once; it changes speed and memory, not the pictures."""

    precision: Precision = "auto"
    """Type of the network's forward pass."""

    compile: bool = False
    """Compile the denoiser first (torch.compile), which takes a minute: for many pictures on a GPU."""

    mark: bool = True
    """Pictures and movies say in their metadata (XMP) that a trained network made them, in the words of the IPTC
    (DigitalSourceType trainedAlgorithmicMedia), which platforms look for. Settings are inside in any case."""

    @field_validator("guidance_interval")
    @classmethod
    def _interval_rises(cls, interval: tuple[float, float]) -> tuple[float, float]:
        if interval[0] > interval[1]:
            msg = f"the interval begins at {interval[0]}, beyond its end {interval[1]}"
            raise ValueError(msg)
        return interval
