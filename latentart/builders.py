"""Config → flat arguments → objects: the only module that knows both sides."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from latentart.config.data import DataConfig
from latentart.config.denoiser import DenoiserConfig, DiTConfig
from latentart.config.ldm import DiffusionConfig
from latentart.config.optim import EmaConfig, LdmEmaConfig, OptimizerConfig, RunConfig, StepsOrEpochs
from latentart.config.vae import AutoencoderConfig, DiscriminatorConfig, PerceptualConfig, StageConfig
from latentart.core.diffusion.schedules import NoiseSchedule, make_betas, straight_alpha_bar
from latentart.core.ema import Ema
from latentart.core.networks.autoencoder import Autoencoder, Decoder, Encoder
from latentart.core.networks.blocks import BlockShape, set_recompute
from latentart.core.networks.conditioning import Denoiser
from latentart.core.networks.discriminator import PatchDiscriminator
from latentart.core.networks.dit import DiT
from latentart.core.networks.perceptual import PerceptualDistance, build_random_slices
from latentart.core.networks.quantizer import VectorQuantizer
from latentart.core.networks.unet import UNet
from latentart.core.randomness import generator_for, seed_for
from latentart.data.datasets import Crop, CropSet
from latentart.model.weights.perceptual import load_perceptual
from latentart.process.devices import Placement
from latentart.training.steps.adversarial_schedule import AdversarialPlan, AdversarialSchedule
from latentart.training.steps.adversary import Adversary
from latentart.training.steps.muon import build_muon
from latentart.training.steps.optim import build_adamw, learning_rate
from latentart.training.steps.vae_step import VaeTerms

CACHE_CROP = (0.8, 1.0)  # the shares that the presets' autoencoders are trained with


def build_autoencoder(config: AutoencoderConfig) -> Autoencoder:
    """Return an autoencoder with fresh weights."""
    shape = BlockShape(config.groups, config.head_channels, config.dropout)
    encoder = Encoder(
        config.latent_channels,
        config.widths,
        num_blocks=config.blocks_per_stage,
        attention=config.attention,
        middle_attention=config.middle_attention,
        downsampling=config.downsampling,
        shape=shape,
        has_spread=config.kind == "kl",
    )
    decoder = Decoder(
        config.latent_channels,
        config.widths,
        num_blocks=config.blocks_per_stage,
        attention=config.attention,
        middle_attention=config.middle_attention,
        upsampling=config.upsampling,
        shape=shape,
    )
    quantizer = None
    if config.kind == "vq":
        quantizer = VectorQuantizer(config.num_codes, config.latent_channels, decay=config.codebook_decay)
    return Autoencoder(
        encoder, decoder, latent_channels=config.latent_channels, factor=config.factor, quantizer=quantizer
    )


def build_discriminator(config: DiscriminatorConfig) -> PatchDiscriminator:
    """Return a discriminator with fresh weights."""
    return PatchDiscriminator(config.base_channels, config.num_layers, config.groups)


def build_perceptual(config: PerceptualConfig) -> PerceptualDistance:
    """Return the LPIPS network of the chosen backbone.

    Raises:
        DownloadError: the backbone's weight file is not here, or not that backbone's.
    """
    if config.backbone == "random":
        slices = build_random_slices(generator_for(0, "perceptual"))
        widths = [part[-2].out_channels for part in slices if isinstance(part, nn.Sequential)]
        return PerceptualDistance(slices, [torch.full((int(width),), 1.0) for width in widths])  # type: ignore[arg-type]
    return load_perceptual(config.backbone, Path(config.weights).expanduser() if config.weights else None)


def build_denoiser(config: DenoiserConfig, latent_channels: int, num_labels: Sequence[int]) -> Denoiser:
    """Return a denoiser with fresh weights; ``num_labels`` counts the styles, then the labels of other columns."""
    if isinstance(config, DiTConfig):
        return DiT(
            latent_channels,
            num_labels,
            config.width,
            depth=config.depth,
            patch_size=config.patch_size,
            mlp_width=config.mlp_width,
            shape=BlockShape(
                head_channels=config.head_channels,
                dropout=config.dropout,
                conditioning_channels=config.embedding_channels,
            ),
        )
    shape = BlockShape(config.groups, config.head_channels, config.dropout, config.embedding_channels)
    return UNet(
        latent_channels,
        num_labels,
        config.widths,
        num_blocks=config.blocks_per_stage,
        attention=config.attention,
        middle_attention=config.middle_attention,
        downsampling=config.downsampling,
        upsampling=config.upsampling,
        shape=shape,
    )


def build_schedule(config: DiffusionConfig) -> NoiseSchedule:
    """Return the noise schedule."""
    if config.schedule.kind == "straight":
        return NoiseSchedule.from_alpha_bar(straight_alpha_bar(config.num_steps, config.schedule.shift))
    values: dict[str, Any] = config.schedule.model_dump(exclude={"kind"})
    if "offset" in values:
        values["cosine_offset"] = values.pop("offset")
    schedule = NoiseSchedule.from_betas(make_betas(config.schedule.kind, config.num_steps, **values))
    return schedule.to_zero_terminal_snr() if config.zero_terminal_snr else schedule


def build_optimizer(network: nn.Module, config: OptimizerConfig) -> torch.optim.Optimizer:
    """Return AdamW over a network's weights, or Muon with AdamW for the weights that are not its."""
    if config.kind == "muon":
        return build_muon(
            network,
            lr=config.lr,
            muon_lr=config.muon_lr or config.lr,
            betas=config.betas,
            weight_decay=config.weight_decay,
        )
    return build_adamw(network.parameters(), lr=config.lr, betas=config.betas, weight_decay=config.weight_decay)


def build_adversary(
    discriminator: PatchDiscriminator,
    config: DiscriminatorConfig,
    stage: StageConfig,
    num_steps: int,
    placement: Placement,
    betas: tuple[float, float],
) -> Adversary:
    """Return a stage's adversary; its optimizer shares the autoencoder's betas."""
    lr = stage.discriminator_lr or config.lr
    optimizer = build_adamw(discriminator.parameters(), lr=lr, betas=betas, weight_decay=config.weight_decay)
    return Adversary(
        discriminator,
        optimizer,
        AdversarialSchedule(build_adversarial_plan(config, stage, num_steps)),
        placement,
        lr=lr,
        kind=config.loss,
        adaptive_limit=config.adaptive_limit,
        r1=config.r1,
        r1_every=config.r1_every,
    )


def build_adversarial_plan(config: DiscriminatorConfig, stage: StageConfig, num_steps: int) -> AdversarialPlan:
    """Return when the discriminator of a stage of ``num_steps`` begins, and how its influence grows."""
    start = stage.discriminator_start
    return AdversarialPlan(
        start=None if start == "plateau" else round(start * num_steps) if isinstance(start, float) else start,
        warmup=stage.discriminator_warmup,
        ramp=stage.ramp,
        plateau_steps=config.plateau_steps,
        plateau_gain=config.plateau_gain,
        is_guarded=config.guard.enabled,
        tolerance=config.guard.tolerance,
        max_gap=config.guard.max_gap,
        window=config.guard.window,
        max_pause=config.guard.max_pause,
    )


def prepare_network(network: nn.Module, config: RunConfig) -> None:
    """Switch a network's recomputation of activations and its compilation as the run wants them."""
    set_recompute(network, config.recompute)
    if config.compile:
        import torch._functorch.config

        torch._functorch.config.donated_buffer = False  # the adaptive weight goes backward twice
        network.compile()


def build_ema(network: nn.Module, config: EmaConfig) -> Ema:
    """Return an average that starts at the network's weights."""
    return Ema(network, relative_std=config.relative_std, decay=config.decay)


def build_tracks(network: nn.Module, config: LdmEmaConfig) -> list[Ema]:
    """Return the averages from whose snapshots others can be made."""
    return [Ema(network, relative_std=relative_std) for relative_std in config.tracks]


@dataclass(frozen=True)
class RatePlan:
    """The learning rate as a pure function of the step."""

    settings: dict[str, Any]
    peak: float
    total_steps: int

    def __call__(self, step: int) -> float:
        """Return the rate of update ``step``, counted from 0."""
        return learning_rate(step, peak=self.peak, total_steps=self.total_steps, **self.settings)


def build_rate_plan(config: OptimizerConfig, total_steps: int, peak: float | None = None) -> RatePlan:
    """Return the rate over a run of ``total_steps``; ``peak`` takes the place of the config's."""
    return RatePlan(config.schedule.model_dump(), peak or config.lr, total_steps)


def build_terms(stage: StageConfig, clip_norm: float, former: StageConfig | None = None) -> VaeTerms:
    """Return a stage's loss as plain numbers; LPIPS ramps where the former stage had none."""
    is_new = former is None or former.weights.perceptual == 0
    return VaeTerms(
        reconstruction_kind=stage.reconstruction,
        reconstruction=stage.weights.reconstruction,
        kl=stage.weights.kl,
        commitment=stage.weights.commitment,
        adversarial=stage.weights.adversarial,
        perceptual=stage.weights.perceptual,
        equivariance=stage.weights.equivariance,
        perceptual_ramp=stage.ramp if is_new else 0,
        clip_norm=clip_norm,
    )


def build_crop(
    resolution: int, data: DataConfig, seed: int, shares: tuple[float, float] = (1.0, 1.0), *, is_random: bool = True
) -> Crop:
    """Return how a picture becomes a square of ``resolution``; without chance it is the largest one in the middle."""
    return Crop(resolution, seed, *shares, flip=data.flip and is_random, is_random=is_random)


def build_cache_crops(resolution: int, data: DataConfig, seed: int) -> CropSet:
    """Return what the latent cache holds of a picture: the square in its middle, then random ones, none mirrored."""
    plain = data.model_copy(update={"flip": False})
    random = [
        build_crop(resolution, plain, seed_for(seed, "cache crop", number), CACHE_CROP)
        for number in range(data.cache_crops)
    ]
    return CropSet((build_crop(resolution, plain, seed, is_random=False), *random))


def count_steps(length: StepsOrEpochs, num_pictures: int, batch_size: int) -> int:
    """Return a length in optimizer steps; an epoch rounds up to whole batches."""
    if length.steps is not None:
        return length.steps
    batches = (length.epochs or 0) * num_pictures / batch_size
    return max(1, math.ceil(round(batches, 6)))  # 0.07 · 100 is 7.000000000000001
