"""Recipes of a denoiser: the seed's beside the recommended one, and each technique left out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from latentart.config.denoiser import UNetConfig
from latentart.config.ldm import LdmConfig
from latentart.config.workspace import resolve
from peers.arena import Arena
from peers.figures import Figure
from peers.ldm import peer_settings, score
from peers.training import LdmRun, timed, train_in_turns

# one technique of the recommended recipe replaced at a time: what it is, what takes its place, and by which settings
REPLACED: dict[str, Sequence[str]] = {
    "velocity target: noise": ["ldm.diffusion.target=eps"],
    "velocity target, cosine: flow, straight": ["ldm.diffusion.target=flow", "ldm.diffusion.schedule.kind=straight"],
    "min-SNR: equal weights": ["ldm.diffusion.weighting=uniform"],
    "min-SNR: learned": ["ldm.diffusion.weighting=learned"],
    "even timesteps: logit-normal": ["ldm.diffusion.timesteps=logit_normal"],
    "power-function average: decay 0.9999": ["ldm.training.run.ema.decay=0.9999"],
    "AdamW: Muon": ["ldm.training.optimizer.kind=muon"],
    "betas 0.9 and 0.99: 0.5 and 0.9": ["ldm.training.optimizer.betas=[0.5,0.9]"],
    "linear attention: none": ['ldm.model.attention=["none","none","none"]', "ldm.model.middle_attention=none"],
}


def bench_recipes(arena: Arena, seconds: float) -> Iterator[Figure]:
    """Train the demo's denoiser by several recipes, for the same time each, and compare their samples."""
    runs = [
        timed(arena, "recommended", arena.workspace.config.ldm, seconds),
        timed(arena, "the seed's", seed_recipe(), seconds),
    ]
    for name, settings in REPLACED.items():
        runs.append(timed(arena, name, resolve({"preset": "demo"}, list(settings)).ldm, seconds))
    train_in_turns(runs)
    for run in runs:
        yield describe(arena, run)
    best = runs[0]
    plain = score(arena, best, replace(peer_settings(), guidance=1.0))
    yield plain.figure("guidance: none")
    narrow = score(arena, best, replace(peer_settings(), guidance_interval=(0.2, 0.8)))
    yield narrow.figure("guidance of all noise levels: of 0.2 to 0.8")


def describe(arena: Arena, run: LdmRun) -> Figure:
    """Return how far a run came."""
    broken = ", diverged" if run.is_broken else ""
    found = score(arena, run, peer_settings())
    return found.figure(run.name, f" after {run.steps} updates in {run.limit:g} s{broken}")


def seed_recipe() -> LdmConfig:
    """Return how the seed trains its denoiser, at the demo's size: process, optimizer, average and attention."""
    seed, demo = (resolve({"preset": preset}).ldm for preset in ("wikiart-256-seed", "demo"))
    assert isinstance(demo.model, UNetConfig)
    attention = {"attention": ("linear",) * len(demo.model.widths), "middle_attention": "linear"}
    run = demo.training.run.model_copy(update={"ema": seed.training.run.ema})
    training = demo.training.model_copy(update={"optimizer": seed.training.optimizer, "run": run})
    model = demo.model.model_copy(update=attention)
    return demo.model_copy(update={"model": model, "diffusion": seed.diffusion, "training": training})
