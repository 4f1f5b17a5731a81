"""Our denoiser beside those of diffusers and lucidrains, in one process.

All have as many parameters, the same latents, batches, loss of time and sampler. They take turns, as the machine may
get busier or calmer.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from statistics import fmean, median

import torch
from torch import nn

from latentart.config.denoiser import UNetConfig
from latentart.config.ldm import DiffusionConfig
from latentart.config.optim import OptimizerConfig
from latentart.core.diffusion.samplers import usual_spacing
from latentart.kinds import Sampler, Spacing
from latentart.model.generate import SamplerSettings
from latentart.planning.rates import matrix_rate, products_of, seconds_of
from latentart.process.devices import Placement
from peers.arena import Arena, Scores
from peers.denoisers import build_ours, build_peers
from peers.figures import Figure
from peers.limits import count_flops, shares_of_matrix_rate, time_in_turns
from peers.setting import count_parameters
from peers.training import (
    NUM_STYLES,
    DenoiserSetting,
    LdmRun,
    build_step,
    held_out_loss,
    noise_batch,
    timed_peer,
    train_in_turns,
    update_often,
)

PEER_RATES = (3e-4, 1e-3, 3e-3, 1e-2)
PILOT_SHARE = 0.25
BATCH_SIZES = (32, 64, 128, 256, 512)
GUIDANCE = 1.5
OUR_TARGET = ", told to learn what ours does"


def bench_speed(setting: DenoiserSetting, placement: Placement, *, rounds: int) -> Iterator[Figure]:
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
    yield Figure(f"{name}, ours over the faster peer", f"{ratio:.2f} times", ratio)
    yield from shares_of_matrix_rate(name, flops, rates, products.rate(of_products))


def bench_batch_sizes(setting: DenoiserSetting, placement: Placement) -> Iterator[Figure]:
    """Measure compiled updates of our denoiser at several batch sizes beside products of large matrices."""
    network = build_ours(setting.model, 4, NUM_STYLES)
    placement.place(network)
    step_fn = build_step(network, DiffusionConfig(), OptimizerConfig(), placement)
    few = noise_batch(replace(setting, batch_size=2), placement)
    per_image = count_flops(partial(update_often, step_fn, few, 1)) / 2
    network.compile()
    for batch_size in BATCH_SIZES:
        batch = noise_batch(replace(setting, batch_size=batch_size), placement)
        update_often(step_fn, batch, 5)
        limit = matrix_rate(products_of(placement))  # in turns, as a chip that gets hot gets slow
        torch.cuda.reset_peak_memory_stats(placement.device)
        rate = 20 * batch_size / seconds_of(partial(update_often, step_fn, batch, 20))
        memory = torch.cuda.max_memory_allocated(placement.device) / 1e9
        share = rate * per_image / limit
        value = f"{rate:.0f} images/s, {share:.0%} of the matrix rate, {memory:.1f} GB"
        numbers = {"images/s": rate, "share of the matrix rate": share, "peak bytes": memory * 1e9}
        yield Figure(f"batch {batch_size}", value, rate, "images/s", numbers)


def bench_quality(arena: Arena, ours: LdmRun) -> Iterator[Figure]:
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
    yield Figure("Fréchet distance, ours over the better peer", f"{ratio:.2f}", ratio)
    ratio = own.frechet / min(found.frechet for found in scores.values())
    yield Figure(f"the same, peers{OUR_TARGET}", f"{ratio:.2f}", number=ratio)
    share = own.recognized / arena.ceiling.recognized
    yield Figure("recognized, ours over real pictures", f"{share:.1%}", share)


def bench_steps(arena: Arena, ours: LdmRun, turns: int) -> Iterator[Figure]:
    """Compare 20 steps of the fast samplers with 100 of DDIM from the same seeds, so many times from others."""
    fast: tuple[Sampler, ...] = ("dpmpp_2m", "unipc")
    contenders = {"DDIM, 100 steps": replace(peer_settings(), steps=100)}
    for sampler in fast:
        settings = replace(peer_settings(), sampler=sampler, spacing=usual_spacing(sampler, 20), steps=20)
        contenders[f"{sampler}, 20 steps"] = settings
    means = []
    for name, settings in contenders.items():
        found = [score(arena, ours, settings, turn) for turn in range(turns)]
        mean = Scores(fmean(one.frechet for one in found), fmean(one.recognized for one in found))
        yield mean.figure(name, ", mean of " + ", ".join(f"{one.frechet:.3f}" for one in found))
        means.append(mean.frechet)
    ratio = min(means[1:]) / means[0]
    yield Figure("Fréchet distance, the better of 20 steps over DDIM", f"{ratio:.3f}", ratio)


def peer_settings() -> SamplerSettings:
    """Return how every contender is sampled."""
    return SamplerSettings(sampler="ddim", steps=25, guidance=GUIDANCE, batch_size=32)


def best_score(arena: Arena, run: LdmRun) -> Scores:
    """Return the scores of steps from pure noise on; what predicts noise may also begin a little below it.

    It can tell no picture from pure noise, so it gets the better of the two.
    """
    spacings: tuple[Spacing, ...] = ("trailing", "leading") if run.step_fn.task.target == "eps" else ("trailing",)
    found = [score(arena, run, replace(peer_settings(), spacing=spacing)) for spacing in spacings]
    return min(found, key=lambda scores: scores.frechet)


def score(arena: Arena, run: LdmRun, settings: SamplerSettings, turn: int = 0) -> Scores:
    """Return the scores of a run's average, from the seeds of a turn."""
    return arena.score(arena.draw(run.step_fn.ema.network, run.step_fn.task, settings, turn))
