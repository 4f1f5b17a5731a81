"""Settings of the autoencoder: network, discriminator, perceptual distance, optimizer and stages."""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from latentart.config.base import PathText, StrictConfig, require_divisor
from latentart.config.optim import Count, OptimizerConfig, Positive, RunConfig, StepsOrEpochs, Width
from latentart.kinds import Adversarial, AttentionKind, Downsampling, PerceptualKind, Reconstruction, Upsampling

Weight = Annotated[float, Field(ge=0)]
CropShare = Annotated[float, Field(gt=0, le=1)]
Start = int | float | Literal["plateau"]


class BlocksConfig(StrictConfig):
    """What the autoencoder's and the denoiser's stacks have in common."""

    widths: Annotated[tuple[Width, ...], Field(min_length=1, max_length=8)]
    """Channels of each stage, the finest first; every stage after the first halves height and width."""

    blocks_per_stage: Annotated[int, Field(ge=1, le=64)] = 1
    """ResNet blocks in each stage."""

    attention: tuple[AttentionKind, ...]
    """Attention at the end of each stage, the finest first: none, linear or full."""

    middle_attention: AttentionKind = "linear"
    """Attention between the two ResNet blocks of the middle."""

    downsampling: Downsampling = "average"
    """How a stage halves the size; strided is legacy and leaves checkerboards."""

    upsampling: Upsampling = "nearest"
    """The method of torch.nn.Upsample; transposed is a legacy convolution that leaves checkerboards."""

    groups: Width = 8
    """Groups of each normalization; must divide every width."""

    head_channels: Width = 32
    """Channels of one attention head; must divide every width that has attention."""

    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of features dropped in each ResNet block."""

    @model_validator(mode="after")
    def _fits(self) -> BlocksConfig:
        if len(self.attention) != len(self.widths):
            msg = f"attention has {len(self.attention)} entries, widths has {len(self.widths)}: give one for each stage"
            raise ValueError(msg)
        for width in self.widths:
            require_divisor("groups", self.groups, "width", width, 32)
        attended = [width for width, kind in zip(self.widths, self.attention, strict=True) if kind != "none"]
        if self.middle_attention != "none":
            attended.append(self.widths[-1])
        for width in attended:
            require_divisor("head_channels", self.head_channels, "the width", width, 64)
        return self

    @property
    def legacy(self) -> list[str]:
        """Remarks on the resamplers that are kept for old recipes, where one is set."""
        chosen = {"downsampling": self.downsampling, "upsampling": self.upsampling}
        why = "is kept for old recipes: it tends to leave checkerboard patterns"
        return [f"{name} '{kind}' {why}" for name, kind in chosen.items() if kind in ("strided", "transposed")]


class AutoencoderConfig(BlocksConfig):
    """The autoencoder's network."""

    kind: Literal["kl", "vq"] = "kl"
    """kl: a Gaussian posterior per latent element (the seed found it better at few latent channels); vq: a codebook."""

    num_codes: Annotated[int, Field(ge=2, lt=2**20)] = 4096
    """Size of the codebook, with vq. Our choice; latent diffusion takes 8,192 to 16,384."""

    codebook_decay: Annotated[float, Field(ge=0, lt=1)] = 0.99
    """Decay of the averages that the codes are, per step, with vq (van den Oord et al. 1711.00937)."""

    latent_channels: Width = 4
    """Z, channels of the latents; 4 is latent diffusion's choice at f = 8."""

    widths: Annotated[tuple[Width, ...], Field(min_length=1, max_length=8)] = (64, 128, 256, 256)
    """Channels of each stage, the finest first; four stages make f = 8, as in latent diffusion."""

    attention: tuple[AttentionKind, ...] = ("none", "none", "none", "linear")
    """Attention at the end of each stage, the finest first: none, linear or full. Only the coarsest can afford it."""

    patch_size: Annotated[int, Field(ge=1, le=16)] = 1
    """Side of the square of pixels that becomes one place of the first stage; 1 is the seed's, 2 saves the layers at
    full size, which are slow on a CPU and hold few weights."""

    @property
    def factor(self) -> int:
        """f: image height over latent height."""
        return int(self.patch_size * 2 ** (len(self.widths) - 1))


class GuardConfig(StrictConfig):
    """Watches reconstruction error and logits, and pauses the adversarial term where it harms."""

    enabled: bool = True
    """Whether it acts."""

    tolerance: Annotated[float, Field(gt=0)] = 0.08
    """The term pauses when the smoothed reconstruction error is this share above its best. Our choice."""

    max_gap: Positive = 4.0
    """The discriminator waits when real logits exceed fake ones by more; hinge margins are 2 apart. Our choice."""

    window: Count = 100
    """Steps over which error and logits are smoothed."""

    max_pause: Count = 500
    """After so many steps the term comes back even so: an error that did not fall without it is not its doing."""


class DiscriminatorConfig(StrictConfig):
    """The PatchGAN discriminator."""

    base_channels: Width = 64
    """Channels of its first layer, doubled at each further one (pix2pix)."""

    num_layers: Annotated[int, Field(ge=1, le=16)] = 3
    """Strided layers; 3 make patches of 70 px (pix2pix)."""

    groups: Width = 8
    """Groups of each normalization; must divide base_channels."""

    lr: Positive = 1e-4
    """Its learning rate, where a stage names no other; the seed's value."""

    weight_decay: Annotated[float, Field(ge=0)] = 1e-5
    """Decoupled weight decay."""

    loss: Adversarial = "hinge"
    """The game both sides play; hinge is latent diffusion's."""

    adaptive_limit: Positive | None = 10.0
    """Bound of the factor that equals the adversarial gradient to the others' (VQGAN); null: no such factor."""

    r1: Weight = 0.0
    """γ of the R1 penalty on the slope at real pictures; 0 leaves it out. Our choice; StyleGAN2 takes 10 at 1024 px."""

    r1_every: Count = 16
    """Steps between two R1 penalties, which then count that much more (StyleGAN2)."""

    plateau_steps: Count = 1000
    """With discriminator_start plateau: steps over which two means of the reconstruction error are taken."""

    plateau_gain: Annotated[float, Field(gt=0, lt=1)] = 0.02
    """With discriminator_start plateau: a mean that fell by less than this share is a plateau."""

    guard: GuardConfig = GuardConfig()
    """What keeps it from ruining the reconstruction."""

    @model_validator(mode="after")
    def _fits(self) -> DiscriminatorConfig:
        require_divisor("groups", self.groups, "base_channels", self.base_channels, 32)
        return self


class PerceptualConfig(StrictConfig):
    """The LPIPS distance."""

    backbone: PerceptualKind = "vgg16"
    """The network whose features are compared; random needs no weights and is only a stand-in for trying the tool."""

    weights: PathText | None = None
    """The backbone's weight file; null looks in the torch hub cache (TORCH_HOME)."""


class LossWeights(StrictConfig):
    """The factor of each term; a term of weight 0 is not built."""

    reconstruction: Annotated[float, Field(gt=0)] = 1.0
    """Of the mean absolute (or squared) difference."""

    kl: Weight = 1e-6
    """Of the divergence from N(0, 1), a mean over elements: just enough to keep the latents' scale in bounds."""

    adversarial: Weight = 0.0
    """Of the discriminator's term, on top of the factor that equals its gradient to the reconstruction's."""

    perceptual: Weight = 0.0
    """Of the LPIPS distance."""

    commitment: Weight = 0.25
    """Of the squared distance of latents and codes, with vq (van den Oord et al. 1711.00937)."""

    equivariance: Weight = 0.0
    """Of the error at turned and reduced latents: latents that are easier to diffuse (EQ-VAE, 2502.09509)."""


class StageConfig(StepsOrEpochs):
    """One stage of the autoencoder's training: a value, not a branch."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,40}$")]
    """How `--stage` asks for it."""

    resolution: Annotated[int, Field(ge=16, lt=2**15)]
    """Side of the square training pictures, in pixels; a multiple of f."""

    batch_size: Width = 16
    """Pictures per optimizer step."""

    reconstruction: Reconstruction = "l1"
    """Absolute difference, squared, or √(d² + 1e-3²)."""

    weights: LossWeights = LossWeights()
    """The factor of each loss term."""

    discriminator_start: Start = 0
    """When the discriminator begins to train: a step of this stage, a share of it, or "plateau"."""

    discriminator_warmup: Annotated[int, Field(ge=0, lt=2**31)] = 0
    """Steps that it then trains, on detached reconstructions, before its verdict moves the autoencoder."""

    ramp: Annotated[int, Field(ge=0, lt=2**31)] = 0
    """Steps over which the adversarial and the perceptual term grow from nothing to their weight."""

    discriminator_lr: Positive | None = None
    """The discriminator's learning rate in this stage; null takes its own."""

    start_from: Literal["ema", "raw"] = "ema"
    """Which weights of the stage before this one goes on from: their average, or the last ones as they are."""

    keep_optimizer: bool = False
    """Whether the autoencoder's optimizer goes on with the moments of the stage before."""

    keep_discriminator: bool = True
    """Whether discriminator and its optimizer go on, or begin anew in this stage."""

    trainable: Literal["all", "decoder"] | None = None
    """What of the network trains: all, or the decoder alone, by which latents stay as they are. null means all, but
    leaves alone an autoencoder that was imported from diffusers."""

    tanh: bool = False
    """Whether the decoder ends in tanh. The seed: from the first step on it leaves blobs, so switch it on later."""

    lr: Positive | None = None
    """Peak learning rate in this stage; null takes the optimizer's."""

    crop: tuple[CropShare, CropShare] = (1.0, 1.0)
    """Smallest and largest side of the random square crop, as shares of the picture's shorter side."""

    @field_validator("discriminator_start", mode="before")
    @classmethod
    def _is_a_start(cls, start: object) -> object:
        is_step, is_share = type(start) is int and start >= 0, type(start) is float and 0 < start < 1
        if not (is_step or is_share or start == "plateau"):
            msg = 'give a step (0, 1, 2 …), a share of the stage (above 0, below 1) or "plateau"'
            raise ValueError(msg)
        return start

    @field_validator("crop")
    @classmethod
    def _crop_rises(cls, crop: tuple[float, float]) -> tuple[float, float]:
        if crop[0] > crop[1]:
            msg = f"the smallest side {crop[0]} is larger than the largest {crop[1]}"
            raise ValueError(msg)
        return crop


class VaeRunConfig(RunConfig):
    """What happens once in a while in the autoencoder's run."""

    evaluate_every: Count = 1000
    """Steps between measurements of the reconstruction error on held-out pictures."""


class VaeConfig(StrictConfig):
    """Everything about the autoencoder."""

    model: AutoencoderConfig = AutoencoderConfig()
    """The network."""

    discriminator: DiscriminatorConfig = DiscriminatorConfig()
    """The PatchGAN that judges reconstructions."""

    perceptual: PerceptualConfig = PerceptualConfig()
    """The network behind the LPIPS distance."""

    optimizer: OptimizerConfig = OptimizerConfig()
    """AdamW of encoder and decoder."""

    run: VaeRunConfig = VaeRunConfig()
    """Precision, average of the weights, checkpoints, previews and log."""

    stages: Annotated[tuple[StageConfig, ...], Field(min_length=1, max_length=1000)]
    """The stages of the training, in order; each goes on from the one before it."""

    @field_validator("stages")
    @classmethod
    def _names_differ(cls, stages: tuple[StageConfig, ...]) -> tuple[StageConfig, ...]:
        names = [stage.name for stage in stages]
        if len(set(names)) < len(names) or "all" in names:
            msg = f"stage names must differ, and none may be 'all': got {', '.join(names)}"
            raise ValueError(msg)
        return stages

    @model_validator(mode="after")
    def _resolutions_divide(self) -> VaeConfig:
        factor = self.model.factor
        for former, stage in pairwise(self.stages):
            if stage.keep_optimizer and (former.trainable == "decoder") != (stage.trainable == "decoder"):
                raise ValueError(f"stage {stage.name}: keep_optimizer, but {former.name} trains other weights")
        for stage in self.stages:
            if stage.trainable == "decoder" and self.model.kind == "vq":
                raise ValueError(f"stage {stage.name}: trainable decoder is for kl; a codebook hangs on both sides")
            if stage.resolution % factor:
                near = max(factor, round(stage.resolution / factor) * factor)
                msg = f"stage {stage.name}: resolution {stage.resolution} is no multiple of f = {factor}: {near} is"
                raise ValueError(msg)
            deepest = (stage.resolution // 3).bit_length() - 1  # three patches each way are left of the picture
            if stage.weights.adversarial > 0 and self.discriminator.num_layers > deepest:
                msg = (
                    f"discriminator.num_layers {self.discriminator.num_layers} are too many for the "
                    f"{stage.resolution} px of stage {stage.name}: at most {deepest} would do"
                )
                raise ValueError(msg)
        return self
