"""Settings that both trainings share: optimizer, learning-rate schedule, averages, precision, checkpoints."""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from latentart.config.base import StrictConfig
from latentart.kinds import Precision

Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1, lt=2**31)]  # of steps, which cost time alone
Width = Annotated[int, Field(ge=1, le=2**16)]  # of channels, and of pictures in a batch: they cost memory


class OneCycle(StrictConfig):
    """Warm-up to the peak, then cosine to nearly nothing (Smith 1803.09820): the seed's super-convergence."""

    kind: Literal["onecycle"] = "onecycle"
    """Names this way of moving the rate."""
    warmup_share: Annotated[float, Field(gt=0, lt=1)] = 0.3
    """Share of the steps spent rising; PyTorch's default."""
    div_factor: Annotated[float, Field(ge=1)] = 25.0
    """The first rate is the peak divided by this; PyTorch's default."""
    final_div_factor: Annotated[float, Field(ge=1)] = 1e4
    """The last rate is the first divided by this; PyTorch's default."""
    cycle_momentum: bool = False
    """Whether Adam's β1 goes from 0.95 to 0.85 at the peak and back, as in PyTorch unless it is told not to. Off: β1 is
    that of betas."""


class MultiStep(StrictConfig):
    """The peak, multiplied by gamma at each milestone: the seed's other choice."""

    kind: Literal["multistep"] = "multistep"
    """Names this way of moving the rate."""
    milestones: tuple[Share, ...] = (0.5, 0.75)
    """Shares of the steps at which the rate drops."""
    gamma: Positive = 0.1
    """Factor at each milestone; PyTorch's default."""


class Cosine(StrictConfig):
    """A linear warm-up, then cosine to zero."""

    kind: Literal["cosine"] = "cosine"
    """Names this way of moving the rate."""
    warmup_steps: Annotated[int, Field(ge=0, lt=2**31)] = 500
    """Steps spent rising."""


class Constant(StrictConfig):
    """A linear warm-up, then the peak to the end."""

    kind: Literal["constant"] = "constant"
    """Names this way of moving the rate."""
    warmup_steps: Annotated[int, Field(ge=0, lt=2**31)] = 500
    """Steps spent rising."""


LearningRateSchedule = Annotated[OneCycle | MultiStep | Cosine | Constant, Field(discriminator="kind")]


class OptimizerConfig(StrictConfig):
    """The optimizer and its learning rate."""

    kind: Literal["adamw", "muon"] = "adamw"
    """adamw (Loshchilov & Hutter 1711.05101); or muon (Jordan et al. 2024) for the matrices and kernels inside the
    network, with adamw for biases, norms, embeddings, first and last layers. Its updates take time that does not grow
    with the batch: on one CPU core a step of the demo's denoiser lasts 2.5 times as long."""

    muon_lr: Positive | None = None
    """With muon: peak learning rate of its part; null takes lr, for its updates are scaled to AdamW's (2502.16982)."""

    lr: Positive = 2e-4
    """Peak learning rate, used as it stands: it is never scaled by batch size or number of GPUs."""

    betas: tuple[Annotated[float, Field(ge=0, lt=1)], Annotated[float, Field(ge=0, lt=1)]] = (0.9, 0.99)
    """Decay of the first and second moment. The seed found (0.5, 0.9) best."""

    weight_decay: Annotated[float, Field(ge=0)] = 1e-4
    """Decoupled weight decay, on matrices and kernels only. The seed: 1e-4 or 1e-5 allows large rates."""

    schedule: LearningRateSchedule = OneCycle()
    """How the rate moves over the steps."""

    clip_norm: Annotated[float, Field(ge=0)] = 1.0
    """Gradients are scaled down to this norm; 0 leaves them alone."""


class EmaConfig(StrictConfig):
    """The average of the weights that previews, models and samples are made with."""

    relative_std: Annotated[float, Field(gt=0, lt=0.288)] = 0.1
    """Width of the power-function average, as a share of the run (Karras et al. 2312.02696)."""

    decay: Annotated[float, Field(gt=0, lt=1)] | None = None
    """A constant decay instead, as in the ema-pytorch that the seed names, but at every step, not every tenth; null
    takes the power function."""


class LdmEmaConfig(EmaConfig):
    """The denoiser's averages: one to make results with, and others whose snapshots make it anew in any width."""

    tracks: Annotated[tuple[Annotated[float, Field(ge=0.01, le=0.25)], ...], Field(max_length=4)] = ()
    """Widths of averages of which snapshots are kept for `latentart ema` and for autoguidance; (0.05, 0.1) are those
    of Karras et al. 2312.02696. Each costs memory for one more network; by default none."""

    snapshot_every: Count | None = None
    """Steps between snapshots, each as large as a model of float32; null makes 24 of a run. Our choice."""

    @field_validator("tracks")
    @classmethod
    def _tracks_rise(cls, tracks: tuple[float, ...]) -> tuple[float, ...]:
        if any(later - earlier < 0.005 for earlier, later in pairwise(tracks)):
            msg = f"widths must rise, each by 0.005 at least: got {', '.join(map(str, tracks))}"
            raise ValueError(msg)
        return tracks

    def snapshot_interval(self, num_steps: int) -> int:
        """Return the steps between snapshots in a run of ``num_steps``."""
        return self.snapshot_every or -(-num_steps // 24)


class RunConfig(StrictConfig):
    """What happens once in a while in a run."""

    precision: Precision = "auto"
    """Type of the forward pass; auto takes bf16 where the device multiplies it faster, weights stay float32."""

    recompute: bool = False
    """Whether activations are computed again in the backward pass: a third more time, far less memory."""

    compile: bool = False
    """Whether the networks go through torch.compile: minutes at the start, faster steps on a GPU."""

    ema: EmaConfig = EmaConfig()
    """The average of the weights that results are made with."""

    max_skipped: Count = 10
    """Updates in a row that may be left out because loss or gradient is not finite. Then the run goes back once to its
    last checkpoint with half the rate. One or two come from a rare batch or bf16, ten from the weights. Our choice."""

    checkpoint_every: Count = 1000
    """Steps between checkpoints."""

    keep_checkpoints: Annotated[int, Field(ge=2, lt=2**31)] = 2
    """How many of the newest checkpoints stay."""

    milestone_every: Count | None = None
    """Steps between checkpoints that stay for good, besides; null keeps none but those at the ends of the autoencoder's
    stages. Each is as large as any other."""

    preview_every: Count = 1000
    """Steps between preview grids."""

    log_every: Count = 50
    """Steps between lines in metrics.jsonl."""

    def is_checkpoint_due(self, step: int) -> bool:
        """Tell whether a checkpoint is due by count: one of the newest, or one that stays for good."""
        return step % self.checkpoint_every == 0 or step in self.milestones(step - 1, step)

    def milestones(self, first: int, last: int) -> range:
        """Return the steps after ``first``, up to ``last``, whose checkpoints stay for good."""
        every = self.milestone_every
        return range(every * (first // every + 1), last + 1, every) if every else range(0)


class LdmRunConfig(RunConfig):
    """What happens once in a while in the denoiser's run."""

    ema: LdmEmaConfig = LdmEmaConfig()
    """The averages of the weights that results are made with."""

    evaluate_every: Count = 1000
    """Steps between measurements of the average's loss on held-out pictures."""

    verdict: bool = True
    """Whether every preview is judged: learning, stalled, overfitting, memorizing or diverging, with the evidence. For
    that a small judge is trained once on the held-out pictures, in half a minute, and kept in the cache."""


class StepsOrEpochs(StrictConfig):
    """A length, in optimizer steps or in epochs: exactly one of them."""

    steps: Count | None = None
    """Optimizer steps."""

    epochs: Annotated[float, Field(gt=0, le=10**6)] | None = None
    """Passes over the data set, in place of steps."""

    new_cycle_at: Annotated[int, Field(ge=0, lt=2**31)] = 0
    """Step from which the learning rate begins its schedule anew, warm-up and all: the one at which a run, or
    a stage, ended that is made longer. 0: one schedule over all steps."""

    fitted_minutes: Positive | None = None
    """What `--minutes` fitted the steps to, the last time; null: to nothing."""

    @model_validator(mode="after")
    def _exactly_one(self) -> StepsOrEpochs:
        if (self.steps is None) == (self.epochs is None):
            msg = "give either steps or epochs, and set the other to null"
            raise ValueError(msg)
        return self
