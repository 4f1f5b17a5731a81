"""Settings of the denoiser's diffusion process and training."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from latentart.config.base import StrictConfig
from latentart.config.denoiser import UNetConfig
from latentart.config.optim import Count, OptimizerConfig, Positive, RunConfig, StepsOrEpochs

Beta = Annotated[float, Field(gt=0, lt=1)]


class CosineSchedule(StrictConfig):
    """Nichol & Dhariwal 2102.09672, eq. 17."""

    kind: Literal["cosine"] = "cosine"
    """Names this curve of β."""
    offset: Annotated[float, Field(ge=0, lt=1)] = 0.008
    """s of eq. 17, keeps the first steps from being too small."""
    max_beta: Annotated[float, Field(gt=0, lt=1)] = 0.999
    """Largest β, against a singular end."""


class LinearSchedule(StrictConfig):
    """Ho et al. 2006.11239, section 4."""

    kind: Literal["linear"] = "linear"
    """Names this curve of β."""
    beta_start: Beta = 1e-4
    """β of the first step (Ho et al.)."""
    beta_end: Beta = 0.02
    """β of the last step (Ho et al.)."""


class QuadraticSchedule(StrictConfig):
    """Linear in the square root of β: latent diffusion's own "linear"."""

    kind: Literal["quadratic"] = "quadratic"
    """Names this curve of β."""
    beta_start: Beta = 1e-4
    """β of the first step (Ho et al.)."""
    beta_end: Beta = 0.02
    """β of the last step (Ho et al.)."""


class SigmoidSchedule(StrictConfig):
    """β along a logistic curve."""

    kind: Literal["sigmoid"] = "sigmoid"
    """Names this curve of β."""
    beta_start: Beta = 1e-4
    """β of the first step (Ho et al.)."""
    beta_end: Beta = 0.02
    """β of the last step (Ho et al.)."""
    sigmoid_range: Positive = 6.0
    """The curve is taken from minus this to plus this."""


NoiseScheduleConfig = Annotated[
    CosineSchedule | LinearSchedule | QuadraticSchedule | SigmoidSchedule, Field(discriminator="kind")
]


class DiffusionConfig(StrictConfig):
    """The forward process and what the network learns of it."""

    num_steps: Annotated[int, Field(ge=2, le=100_000)] = 1000
    """T, steps of the forward process (Ho et al.)."""

    schedule: NoiseScheduleConfig = CosineSchedule()
    """How noise grows over the steps; cosine is the seed's."""

    target: Literal["eps", "x0", "v"] = "v"
    """What the network predicts: noise (the seed), clean latents, or velocity (Salimans & Ho 2202.00512)."""

    weighting: Literal["uniform", "min_snr"] = "uniform"
    """Weight of each noise level: all alike, or min-SNR-γ (Hang et al. 2303.09556)."""

    min_snr_gamma: Positive = 5.0
    """γ of min-SNR; the paper's value."""


class LdmTrainingConfig(StepsOrEpochs):
    """The denoiser's training."""

    steps: Count | None = 100_000
    """Optimizer steps."""

    resolution: Count = 256
    """Side of the square pictures whose latents are learned, in pixels."""

    batch_size: Count = 128
    """Latents per optimizer step; the seed's value."""

    style_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Share of styles replaced by the null style, which guidance needs (Ho & Salimans 2207.12598)."""

    optimizer: OptimizerConfig = OptimizerConfig()
    """AdamW of the denoiser."""

    run: RunConfig = RunConfig()
    """Precision, average of the weights, checkpoints, previews and log."""


class LdmConfig(StrictConfig):
    """Everything about the denoiser."""

    model: UNetConfig = UNetConfig()
    """The network."""

    diffusion: DiffusionConfig = DiffusionConfig()
    """The forward process, and what the network learns to undo it."""

    training: LdmTrainingConfig = LdmTrainingConfig()
    """Its training."""
