"""What a stage of the autoencoder trains: its networks and optimizers; what its weights leave out is not built."""

from __future__ import annotations

import torch

from latentart.builders import (
    build_adversary,
    build_autoencoder,
    build_discriminator,
    build_ema,
    build_optimizer,
    build_perceptual,
    build_terms,
    prepare_network,
)
from latentart.config.vae import StageConfig, VaeConfig
from latentart.core.randomness import generator_for, seed_for
from latentart.process.devices import Placement
from latentart.training.log import RunLog
from latentart.training.stages import former_stage
from latentart.training.steps.adversary import Adversary
from latentart.training.steps.numbers import Numbers
from latentart.training.steps.vae_step import VaeStep


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
        perceptual = build_perceptual(config.perceptual)
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


def announce_discriminator(log: RunLog, step: VaeStep, num_steps: int) -> None:
    """Say when the adversarial term will come in, as far as that is known, and whether the stage is long enough."""
    entry = step.adversary.schedule.first_influence() if step.adversary and step.terms.adversarial > 0 else None
    if entry is None:
        return
    if entry >= num_steps:
        log.note("the discriminator moves nothing in this stage: its start and warm-up lie beyond the last step")
    else:
        log.note(f"the discriminator moves the autoencoder from step {entry + 1} of this stage on")
