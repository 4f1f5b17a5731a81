"""Config → what a training moves: steps with their networks, optimizers, rates and losses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from latentart.builders import (
    build_autoencoder,
    build_denoiser,
    build_discriminator,
    build_ema,
    build_task,
    build_tracks,
    prepare_network,
)
from latentart.config.ldm import LdmConfig
from latentart.config.optim import OptimizerConfig
from latentart.config.vae import DiscriminatorConfig, StageConfig, VaeConfig
from latentart.core.diffusion.uncertainty import LearnedUncertainty
from latentart.core.networks.discriminator import PatchDiscriminator
from latentart.core.randomness import generator_for, seed_for
from latentart.model.weights.perceptual import build_perceptual
from latentart.process.devices import Placement
from latentart.training.stages import former_stage
from latentart.training.steps.adversarial_schedule import AdversarialPlan, AdversarialSchedule
from latentart.training.steps.adversary import Adversary
from latentart.training.steps.ldm_step import LdmStep
from latentart.training.steps.muon import build_muon
from latentart.training.steps.numbers import Numbers
from latentart.training.steps.optim import build_adamw, learning_rate
from latentart.training.steps.vae_step import VaeStep, VaeTerms


def build_vae_step(config: VaeConfig, stage: StageConfig, num_steps: int, placement: Placement, seed: int) -> VaeStep:
    """Return a stage's update with fresh weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(generator_for(seed, "vae weights").initial_seed())
        autoencoder = build_autoencoder(config.model)
        adversary = _build_adversary(config, stage, num_steps, placement)
    autoencoder.uses_tanh = stage.tanh
    placement.place(autoencoder)
    perceptual = None
    if stage.weights.perceptual > 0:
        perceptual = build_perceptual(config.perceptual.backbone, config.perceptual.weights)
        placement.place(perceptual)
    ema = build_ema(autoencoder, config.run.ema)
    for network in (autoencoder.encoder, autoencoder.decoder):
        prepare_network(network, config.run)
    return VaeStep(
        autoencoder,
        ema,
        build_optimizer(autoencoder, config.optimizer),
        build_terms(stage, config.optimizer.clip_norm, former_stage(config, stage)),
        placement,
        adversary=adversary,
        perceptual=perceptual,
        seed=seed_for(seed, f"vae step {stage.name}"),
        numbers=Numbers(f"autoencoder in stage {stage.name}", min(config.run.max_skipped, num_steps)),
    )


def _build_adversary(config: VaeConfig, stage: StageConfig, num_steps: int, placement: Placement) -> Adversary | None:
    """Build the discriminator's side where any stage has one: its weights go from stage to stage."""
    if not any(stage.weights.adversarial > 0 for stage in config.stages):
        return None
    discriminator = build_discriminator(config.discriminator)
    placement.place(discriminator)
    return build_adversary(discriminator, config.discriminator, stage, num_steps, placement, config.optimizer.betas)


def build_ldm_step(
    config: LdmConfig, latent_channels: int, counts: Sequence[int], num_steps: int, placement: Placement, seed: int
) -> LdmStep:
    """Return the denoiser's update with fresh weights; ``counts`` are those of the styles and of each column."""
    settings = config.training
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(generator_for(seed, "denoiser weights").initial_seed())
        denoiser = build_denoiser(config.model, latent_channels, counts)
    placement.place(denoiser)
    task = build_task(config.diffusion).to(placement.device)
    ema, tracks = build_ema(denoiser, settings.run.ema), build_tracks(denoiser, settings.run.ema)
    uncertainty = LearnedUncertainty().to(placement.device) if task.weighting == "learned" else None
    prepare_network(denoiser, settings.run)
    return LdmStep(
        denoiser,
        ema,
        build_optimizer(denoiser, settings.optimizer),
        task,
        placement,
        clip_norm=settings.optimizer.clip_norm,
        seed=seed,
        tracks=tracks,
        uncertainty=uncertainty,
        numbers=Numbers("denoiser", min(settings.run.max_skipped, num_steps)),
    )


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
