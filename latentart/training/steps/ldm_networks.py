"""What the denoiser's training moves: the network, its averages and its optimizer."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from latentart.builders import build_denoiser, build_ema, build_optimizer, build_tracks, prepare_network
from latentart.config.ldm import LdmConfig
from latentart.core.diffusion.uncertainty import LearnedUncertainty
from latentart.core.randomness import generator_for
from latentart.model.folder import build_task
from latentart.process.devices import Placement
from latentart.training.steps.ldm_step import LdmStep
from latentart.training.steps.numbers import Numbers


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
