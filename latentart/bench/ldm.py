"""`latentart bench ldm`: our denoiser beside those of diffusers and lucidrains, in one process.

All have as many parameters, the same latents, batches, loss of time and sampler. They take turns, as the machine may
get busier or calmer.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import fmean, median

import torch
from torch import nn

from latentart.bench.arena import Arena, Scores, build_arena, describe_arena
from latentart.bench.denoisers import build_ours, build_peers, count_parameters, find_peers
from latentart.bench.figures import Figure, time_in_turns
from latentart.bench.limits import bench_limits, count_flops, products_of, shares_of_matrix_rate
from latentart.bench.training import (
    NUM_STYLES,
    Setting,
    TimedRun,
    build_step,
    held_out_loss,
    noise_batch,
    timed,
    timed_peer,
    train_in_turns,
    update_often,
)
from latentart.config.denoiser import UNetConfig
from latentart.config.ldm import DiffusionConfig
from latentart.config.optim import OptimizerConfig
from latentart.config.workspace import resolve
from latentart.core.diffusion.samplers import usual_spacing
from latentart.kinds import Sampler, Spacing
from latentart.model.generate import SamplerSettings
from latentart.process.devices import Placement

PEER_RATES = (3e-4, 1e-3, 3e-3, 1e-2)
PILOT_SHARE = 0.25
GUIDANCE = 1.5
OUR_TARGET = ", told to learn what ours does"


def bench_ldm(
    parts: Sequence[str], placement: Placement, pictures: Path | None, *, seconds: float, is_quick: bool
) -> Iterator[Figure]:
    """Yield the figures of the given parts: speed, quality, steps, recipes; ``pictures`` is the user's own folder.

    For quality and steps each denoiser trains for so many ``seconds``, a twentieth of them if it has to be quick.

    Raises:
        UsageError: a library to compare with is not installed.
        DataError: there is no such folder, or it holds too few pictures.
    """
    if {"speed", "quality"} & set(parts):
        find_peers()
    threads = f", {torch.get_num_threads()} threads of {os.cpu_count()}" if placement.device.type == "cpu" else ""
    yield Figure("runs on", f"{placement.device}{threads}, {placement.precision}")
    if "speed" in parts:
        yield from bench_limits(placement)
        yield from bench_speeds(placement, is_quick=is_quick)
    rest = [part for part in parts if part != "speed"]
    if not rest:
        return
    with tempfile.TemporaryDirectory(prefix="latentart-bench-") as folder:
        arena = build_arena(Path(folder), pictures, placement, is_quick=is_quick)
        yield from describe_arena(arena)
        if "quality" in rest or "steps" in rest:
            ours = timed(arena, "latentart", arena.workspace.config.ldm, seconds / 20 if is_quick else seconds)
            if "quality" in rest:
                yield from bench_quality(arena, ours)
            train_in_turns([ours])
            if "steps" in rest:
                yield from bench_steps(arena, ours, turns=1 if is_quick else 3)
        if "recipes" in rest:
            from latentart.bench.recipes import bench_recipes

            yield from bench_recipes(arena, seconds=4.0 if is_quick else 75.0)


def bench_speeds(placement: Placement, *, is_quick: bool) -> Iterator[Figure]:
    """Measure updates of two sizes: the demo's, and the recommended one."""
    small = resolve({"preset": "demo"}).ldm.model
    large = resolve({"preset": "wikiart-256"}).ldm.model
    assert isinstance(small, UNetConfig)
    assert isinstance(large, UNetConfig)
    on_gpu = placement.device.type == "cuda"
    settings = [Setting("demo", small, 16, 16), Setting("wikiart-256", large, 32, 128 if on_gpu else 4)]
    for setting, rounds in zip(settings, (3, 1) if is_quick else (15, 5), strict=True):
        yield from bench_speed(setting, placement, rounds=rounds)
    if on_gpu:
        from latentart.bench.gpu import bench_batch_sizes

        yield from bench_batch_sizes(settings[1], placement)


def bench_speed(setting: Setting, placement: Placement, *, rounds: int) -> Iterator[Figure]:
    """Measure whole updates on latents of noise, each denoiser in its turn; on CUDA all are compiled.

    Products of matrices have their turn too, so that the share of their rate holds on a busy machine.
    """
    on_gpu = placement.device.type == "cuda"
    ours = build_ours(setting.model, 4, NUM_STYLES)
    peers = build_peers(count_parameters(ours), 4, setting.side, NUM_STYLES, len(setting.model.widths))
    networks: dict[str, nn.Module] = {"latentart": ours, **peers}
    batch, few = noise_batch(setting, placement), noise_batch(replace(setting, batch_size=2), placement)
    works, flops = [], {}
    for name, network in networks.items():
        placement.place(network)
        step_fn = build_step(network, DiffusionConfig(), OptimizerConfig(), placement)
        flops[name] = count_flops(partial(update_often, step_fn, few, 1)) / 2
        if on_gpu:
            network.compile()
        works.append(partial(update_often, step_fn, batch, 10 if on_gpu else 1))
        update_often(step_fn, batch, 5 if on_gpu else 1)
    products = products_of(placement)
    *times, of_products = time_in_turns([*works, products], rounds)
    rates = {
        name: setting.batch_size * (10 if on_gpu else 1) / median(seconds)
        for name, seconds in zip(networks, times, strict=True)
    }
    name = f"{setting.name}, 4 x {setting.side} x {setting.side}, batch {setting.batch_size}"
    counts: dict[str, float] = {other: count_parameters(network) for other, network in networks.items()}
    value = ", ".join(f"{other} {count / 1e6:.2f} M" for other, count in counts.items())
    yield Figure(f"{name}, parameters", value, number=counts["latentart"], numbers=counts)
    compiled = ", all compiled" if on_gpu else ""
    value = ", ".join(f"{other} {rate:.1f}" for other, rate in rates.items())
    own = rates["latentart"]
    yield Figure(f"{name}, training", f"{value} images/s{compiled}", number=own, unit="images/s", numbers=rates)
    ratio = own / max(rate for other, rate in rates.items() if other != "latentart")
    yield Figure(f"{name}, ours over the faster peer", f"{ratio:.2f} times", "at least 1.5", ratio >= 1.5, ratio)
    yield from shares_of_matrix_rate(name, flops, rates, products.rate(of_products))


def bench_quality(arena: Arena, ours: TimedRun) -> Iterator[Figure]:
    """Train all from scratch for the same time on the same latents, and compare their samples with real pictures.

    The peers learn noise, as they do by default, and then once more what ours learns.
    """
    config, shape = arena.workspace.config.ldm, arena.cache.latent_shape
    stages = len(config.model.widths) if isinstance(config.model, UNetConfig) else 3
    build = partial(build_peers, count_parameters(ours.step_fn.denoiser), shape[0], shape[1], arena.num_styles, stages)
    runs = [ours]
    for name in build():
        pilots = [timed_peer(arena, name, build()[name], rate, PILOT_SHARE * ours.limit) for rate in PEER_RATES]
        train_in_turns(pilots)
        losses = {run.optimizer.lr: held_out_loss(arena, run) for run in pilots}
        best = min(losses, key=losses.__getitem__)
        tried = ", ".join(f"{loss:.4f} at {rate:g}" for rate, loss in losses.items())
        value = f"{best:g}, as {PILOT_SHARE * ours.limit:g} s each left a loss of {tried}"
        yield Figure(f"learning rate of {name}", value, number=best)
        runs.append(timed_peer(arena, name, build()[name], best, ours.limit))
        runs.append(timed_peer(arena, name + OUR_TARGET, build()[name], best, ours.limit, config.diffusion))
    train_in_turns(runs)
    updates: dict[str, float] = {run.name: run.steps for run in runs}
    value = ", ".join(f"{name} {count}" for name, count in updates.items())
    yield Figure(f"updates in {ours.limit:g} s each", value, number=ours.steps, numbers=updates)
    scores = {}
    for run in runs:
        scores[run.name] = best_score(arena, run)
        yield scores[run.name].figure(run.name)
    own = scores.pop("latentart")
    ratio = own.frechet / min(found.frechet for name, found in scores.items() if not name.endswith(OUR_TARGET))
    yield Figure("Fréchet distance, ours over the better peer", f"{ratio:.2f}", "at most 0.5", ratio <= 0.5, ratio)
    ratio = own.frechet / min(found.frechet for found in scores.values())
    yield Figure(f"the same, peers{OUR_TARGET}", f"{ratio:.2f}", number=ratio)
    share = own.recognized / arena.ceiling.recognized
    yield Figure("recognized, ours over real pictures", f"{share:.1%}", "at least 95 %", share >= 0.95, share)


def bench_steps(arena: Arena, ours: TimedRun, turns: int) -> Iterator[Figure]:
    """Compare 20 steps of the fast samplers with 100 of DDIM from the same seeds, so many times from others."""
    fast: tuple[Sampler, ...] = ("dpmpp_2m", "unipc")
    contenders = {"DDIM, 100 steps": replace(peer_settings(), steps=100)}
    for sampler in fast:
        settings = replace(peer_settings(), sampler=sampler, spacing=usual_spacing(sampler), steps=20)
        contenders[f"{sampler}, 20 steps"] = settings
    means = []
    for name, settings in contenders.items():
        found = [score(arena, ours, settings, turn) for turn in range(turns)]
        mean = Scores(fmean(one.frechet for one in found), fmean(one.recognized for one in found))
        yield mean.figure(name, ", mean of " + ", ".join(f"{one.frechet:.3f}" for one in found))
        means.append(mean.frechet)
    ratio = min(means[1:]) / means[0]
    yield Figure("Fréchet distance, the better of 20 steps over DDIM", f"{ratio:.3f}", "at most 1", ratio <= 1, ratio)


def peer_settings() -> SamplerSettings:
    """Return how every contender is sampled."""
    return SamplerSettings(sampler="ddim", steps=25, guidance=GUIDANCE, batch_size=32)


def best_score(arena: Arena, run: TimedRun) -> Scores:
    """Return the scores of steps from pure noise on; what predicts noise may also begin a little below it.

    It can tell no picture from pure noise, so it gets the better of the two.
    """
    spacings: tuple[Spacing, ...] = ("trailing", "leading") if run.step_fn.task.target == "eps" else ("trailing",)
    found = [score(arena, run, replace(peer_settings(), spacing=spacing)) for spacing in spacings]
    return min(found, key=lambda scores: scores.frechet)


def score(arena: Arena, run: TimedRun, settings: SamplerSettings, turn: int = 0) -> Scores:
    """Return the scores of a run's average, from the seeds of a turn."""
    return arena.score(arena.draw(run.step_fn.ema.network, run.step_fn.task, settings, turn))
