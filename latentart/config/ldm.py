"""Settings of the denoiser's diffusion process and training."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from latentart.config.base import StrictConfig
from latentart.config.denoiser import DenoiserConfig, UNetConfig
from latentart.config.optim import Count, LdmRunConfig, OptimizerConfig, Positive, StepsOrEpochs, Width
from latentart.kinds import Target, Timesteps, Weighting

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


class StraightSchedule(StrictConfig):
    """The straight path of rectified flow, Liu et al. 2209.03003, ending in pure noise; its usual target is flow."""

    kind: Literal["straight"] = "straight"
    """Names this curve of ᾱ."""
    shift: Annotated[float, Field(ge=1, le=100)] = 1.0
    """s of Esser et al. 2403.03206, eq. 23: noise against signal is s-fold; theirs is 3 at 1024 px, 1 is no shift."""


NoiseScheduleConfig = Annotated[
    CosineSchedule | LinearSchedule | QuadraticSchedule | SigmoidSchedule | StraightSchedule,
    Field(discriminator="kind"),
]


class DiffusionConfig(StrictConfig):
    """The forward process and what the network learns of it."""

    num_steps: Annotated[int, Field(ge=2, le=100_000)] = 1000
    """T, steps of the forward process (Ho et al.)."""

    schedule: NoiseScheduleConfig = CosineSchedule()
    """How noise grows over the steps; cosine is the seed's."""

    zero_terminal_snr: bool = False
    """Stretches √ᾱ to end at 0, so that training sees the pure noise sampling starts from (Lin et al. 2305.08891,
    algorithm 1); off, as the schedules' papers have it."""

    target: Target = "v"
    """What the network predicts: noise (the seed), clean latents, velocity (Salimans & Ho 2202.00512), or noise minus
    clean latents, the velocity on a straight path (Liu et al. 2209.03003). Where no signal is left, eps is refused."""

    weighting: Weighting = "uniform"
    """Weight of each noise level: all alike, min-SNR-γ (Hang et al. 2303.09556), its smooth kin (Crowson et al.
    2401.11605), or learned from the error of each level (Karras et al. 2312.02696, eq. 21)."""

    min_snr_gamma: Positive = 5.0
    """γ of min_snr and soft_min_snr, a signal-to-noise ratio above which levels gain no weight; min-SNR's own value."""

    min_snr_floor: Annotated[float, Field(ge=0, le=1)] = 0.1
    """Least weight of an error in x0, with min_snr and soft_min_snr; 0 is the papers', which leave v, x0 and flow all
    but untrained in nearly pure noise, where sampling begins: 0.0002 at timestep 990 of 1000. 0.1 is our choice."""

    timesteps: Timesteps = "uniform"
    """How often training meets each timestep: all alike (Ho et al.), or those in the middle more often, so that the
    logit of (t+1)/T is normal (Esser et al. 2403.03206, eq. 19)."""

    timestep_mean: Annotated[float, Field(ge=-10, le=10)] = 0.0
    """Mean of that logit, used by logit_normal alone: above 0 more noise, below 0 less; 0 is Esser et al.'s."""

    timestep_std: Annotated[float, Field(gt=0, le=10)] = 1.0
    """Spread of that logit, used by logit_normal alone: smaller keeps closer to the middle; 1 is Esser et al.'s."""

    @model_validator(mode="after")
    def _can_be_learned(self) -> DiffusionConfig:
        if self.target == "eps" and (self.zero_terminal_snr or self.schedule.kind == "straight"):
            cause = "zero_terminal_snr" if self.zero_terminal_snr else "the straight schedule"
            msg = (
                f"target eps cannot be learned with {cause}, which ends in pure noise, where eps says nothing of the "
                "picture: take v, x0 or flow"
            )
            raise ValueError(msg)
        return self


class LdmTrainingConfig(StepsOrEpochs):
    """The denoiser's training."""

    steps: Count | None = 100_000
    """Optimizer steps."""

    resolution: Annotated[int, Field(ge=1, lt=2**15)] = 256
    """Side of the square pictures whose latents are learned, in pixels."""

    batch_size: Width = 128
    """Latents per optimizer step; the seed's value."""

    micro_batch: Width | Literal["auto"] | None = None
    """Latents that go through the network at once: less memory, and the step is still that of the whole batch. null:
    all; auto: on a GPU the largest of all, a half, a quarter … that its memory has room for at the start."""

    style_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Share of pictures whose style and labels are dropped, which guidance needs (Ho & Salimans 2207.12598). Where
    there are labels, each column is also dropped alone, half as often."""

    optimizer: OptimizerConfig = OptimizerConfig()
    """AdamW or Muon of the denoiser."""

    run: LdmRunConfig = LdmRunConfig()
    """Precision, averages of the weights, checkpoints, previews and log."""


class LdmConfig(StrictConfig):
    """Everything about the denoiser."""

    model: DenoiserConfig = UNetConfig()
    """The network."""

    diffusion: DiffusionConfig = DiffusionConfig()
    """The forward process, and what the network learns to undo it."""

    labels: tuple[str, ...] = ()
    """Columns of the user's table of labels that condition beside the style, such as genre and artist."""

    training: LdmTrainingConfig = LdmTrainingConfig()
    """Its training."""

    @field_validator("labels")
    @classmethod
    def _labels_differ(cls, labels: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(labels)) < len(labels):
            msg = f"each column once: got {', '.join(labels)}"
            raise ValueError(msg)
        return labels
