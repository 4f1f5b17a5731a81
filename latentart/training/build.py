"""Config → what a training is: its job, and the steps, networks, optimizers, rates and losses in it."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from latentart.builders import (
    build_autoencoder,
    build_crop,
    build_denoiser,
    build_discriminator,
    build_ema,
    build_task,
    build_tracks,
    count_steps,
    prepare_network,
)
from latentart.config.ldm import LdmConfig
from latentart.config.optim import OptimizerConfig
from latentart.config.sample import SampleConfig
from latentart.config.vae import DiscriminatorConfig, StageConfig, VaeConfig
from latentart.core.diffusion.uncertainty import LearnedUncertainty
from latentart.core.networks.autoencoder import Autoencoder
from latentart.core.networks.discriminator import PatchDiscriminator
from latentart.core.randomness import generator_for, seed_for
from latentart.data.datasets import PictureDataset
from latentart.data.held_out import split_held_out
from latentart.data.index import IndexEntry
from latentart.data.latent_cache import LatentCache
from latentart.layout import Workspace
from latentart.model.folder import load_autoencoder
from latentart.model.generate import SamplerSettings
from latentart.model.labels import ids_in_cache, read_columns
from latentart.model.weights.perceptual import build_perceptual, check_weights
from latentart.process.devices import Placement
from latentart.process.distributed import read_ranks
from latentart.sampling.sample import settings_from
from latentart.scoring.reconstructions import Evaluation
from latentart.training.job import LdmJob, StageJob
from latentart.training.ldm_batches import LatentBatches, load_latent_batches
from latentart.training.ldm_previews import PREVIEW_CALLS
from latentart.training.stages import former_stage, load_pretrained
from latentart.training.steps.adversarial_schedule import AdversarialPlan, AdversarialSchedule
from latentart.training.steps.adversary import Adversary, Game
from latentart.training.steps.ldm_step import LdmStep
from latentart.training.steps.muon import build_muon
from latentart.training.steps.numbers import Numbers
from latentart.training.steps.optim import Learner, RatePlan, build_adamw
from latentart.training.steps.vae_step import VaeStep, VaeTerms
from latentart.training.vae_batches import VaeBatches, order_seed

logger = logging.getLogger(__name__)


def build_stage_job(
    workspace: Workspace,
    stage: StageConfig,
    entries: list[IndexEntry],
    data: Mapping[str, Any],
    placement: Placement,
) -> StageJob:
    """Return a stage with fresh weights, or those of an imported autoencoder; ``data`` describes what it is trained on.

    Raises:
        ConfigError: its resolution does not suit the imported autoencoder.
        UsageError: it does not say what of that is to train, or there is no encoder yet for the decoder to go with.
    """
    config, seed, names = workspace.config, workspace.config.seed, data["style_names"]
    placement = Placement(placement.device, config.vae.run.precision)
    evaluation = Evaluation(workspace, entries, names, stage.resolution, placement)
    pictures = evaluation.training
    num_steps = count_steps(stage, len(pictures), stage.batch_size)
    crop = build_crop(stage.resolution, config.data, order_seed(seed, stage.name), stage.crop)
    pretrained = load_pretrained(workspace, stage, placement)
    network = config.vae.model if pretrained is None else pretrained
    side = stage.resolution // network.factor
    batches = VaeBatches(
        PictureDataset(workspace.data, [entries[i] for i in pictures], names, crop),
        stage.name,
        stage.batch_size,
        (network.latent_channels, side, side),
        seed=seed,
        is_balanced=config.data.balance_styles,
        needs_transform=stage.weights.equivariance > 0,
        ranks=read_ranks(),
    )
    return StageJob(
        step_fn=build_vae_step(config.vae, stage, num_steps, placement, seed, pretrained),
        num_steps=num_steps,
        batch_size=stage.batch_size,
        rate=build_rate_plan(config.vae.optimizer, num_steps, stage.lr, stage.new_cycle_at),
        load=partial(batches.load, placement=placement, names=pictures, workers=config.data.workers),
        pace=config.vae.run,
        saved={"data": data, "config": config.to_json()},
        stage=stage.name,
        placement=placement,
        evaluation=evaluation,
    )


def build_ldm_job(workspace: Workspace, cache: LatentCache, data: Mapping[str, Any], placement: Placement) -> LdmJob:
    """Return the denoiser's training with fresh weights; ``data`` describes what it is trained on.

    Raises:
        ModelError: there is no trained autoencoder.
    """
    config, settings, seed = workspace.config.ldm, workspace.config.ldm.training, workspace.config.seed
    names, columns = data["style_names"], read_columns(data)
    placement = Placement(placement.device, settings.run.precision)
    autoencoder = load_autoencoder(workspace, placement)
    entries, _ = workspace.read_pictures()
    labels = ids_in_cache(cache, entries, names, columns)
    counts = [len(names), *(len(column.values) for column in columns)]
    pictures, held_out = split_held_out(entries, workspace.config.data.held_out)
    num_steps = count_steps(settings, len(pictures), settings.batch_size)
    step_fn = build_ldm_step(config, cache.latent_shape[0], counts, num_steps, placement, seed)
    step_fn.micro_batch = None if settings.micro_batch == "auto" else settings.micro_batch
    task, dropout = build_task(config.diffusion), settings.style_dropout
    load = partial(
        load_latent_batches,
        LatentBatches(cache, labels, counts, task, seed=seed, dropout=dropout, ranks=read_ranks()),
        pictures,
        settings.batch_size,
        placement=placement,
        is_balanced=workspace.config.data.balance_styles,
        workers=workspace.config.data.workers,
    )
    return LdmJob(
        step_fn=step_fn,
        num_steps=num_steps,
        batch_size=settings.batch_size,
        rate=build_rate_plan(settings.optimizer, num_steps, new_cycle_at=settings.new_cycle_at),
        load=load,
        pace=settings.run,
        saved={"data": data, "config": workspace.config.to_json()},
        placement=placement,
        autoencoder=autoencoder,
        cache=cache,
        labels=labels,
        style_names=names,
        columns=columns,
        num_pictures=len(pictures),
        held_out=held_out,
    )


def build_vae_step(
    config: VaeConfig,
    stage: StageConfig,
    num_steps: int,
    placement: Placement,
    seed: int,
    pretrained: Autoencoder | None = None,
) -> VaeStep:
    """Return a stage's update with fresh weights, or those of ``pretrained``, which never ends in tanh."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(generator_for(seed, "vae weights").initial_seed())
        autoencoder = pretrained or build_autoencoder(config.model)
        adversary = _build_adversary(config, stage, num_steps, placement)
    autoencoder.uses_tanh = stage.tanh and pretrained is None
    if stage.trainable == "decoder":
        autoencoder.freeze_encoder()
    placement.place(autoencoder)
    perceptual = None
    if stage.weights.perceptual > 0:
        perceptual = build_perceptual(config.perceptual.backbone, config.perceptual.weights)
        placement.place(perceptual)
    ema = build_ema(autoencoder, config.run.ema)
    plan = build_rate_plan(config.optimizer, num_steps, stage.lr, stage.new_cycle_at)
    for network in (autoencoder.encoder, autoencoder.decoder):
        prepare_network(network, config.run)
    return VaeStep(
        Learner(autoencoder, ema, build_optimizer(autoencoder, config.optimizer), first_beta=plan.first_beta),
        build_terms(stage, config.optimizer.clip_norm, former_stage(config.stages, stage)),
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
    plan = build_rate_plan(settings.optimizer, num_steps, new_cycle_at=settings.new_cycle_at)
    return LdmStep(
        Learner(denoiser, ema, build_optimizer(denoiser, settings.optimizer), tracks, plan.first_beta),
        task,
        placement,
        clip_norm=settings.optimizer.clip_norm,
        seed=seed,
        uncertainty=uncertainty,
        numbers=Numbers("denoiser", min(settings.run.max_skipped, num_steps)),
    )


def build_optimizer(network: nn.Module, config: OptimizerConfig) -> torch.optim.Optimizer:
    """Return AdamW over a network's weights, or Muon with AdamW for the weights that are not its."""
    if config.kind == "muon":
        muon_lr = config.muon_lr or config.lr
        return build_muon(network, lr=config.lr, muon_lr=muon_lr, betas=config.betas, weight_decay=config.weight_decay)
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
        Game(
            lr=lr,
            loss=config.loss,
            adaptive_limit=config.adaptive_limit,
            r1=config.r1,
            r1_every=config.r1_every,
        ),
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


def build_rate_plan(
    config: OptimizerConfig, total_steps: int, peak: float | None = None, new_cycle_at: int = 0
) -> RatePlan:
    """Return the rate over a run of ``total_steps``; ``peak`` takes the place of the config's."""
    schedule = config.schedule.model_dump()
    return RatePlan(peak=peak or config.lr, total_steps=total_steps, new_cycle_at=new_cycle_at, **schedule)


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


def require_perceptual_weights(config: VaeConfig, stages: Sequence[StageConfig]) -> None:
    """Refuse to start where a stage, even a later one, will want LPIPS weights that are not here, or not whole.

    Raises:
        DownloadError: they are missing, cut, damaged, or another network's.
    """
    perceptual = config.perceptual
    if not any(stage.weights.perceptual > 0 for stage in stages):
        return
    if perceptual.backbone == "random":
        logger.info("LPIPS runs on the 'random' backbone: untrained features, a stand-in that needs no download")
        return
    check_weights(perceptual.backbone, Path(perceptual.weights).expanduser() if perceptual.weights else None)


def preview_settings(config: SampleConfig) -> SamplerSettings:
    """Return the config's sampling settings with no more steps than a page of previews may take."""
    calls = 2 if config.sampler == "heun" else 1
    return settings_from(config, {"steps": min(PREVIEW_CALLS // calls, config.steps)})
