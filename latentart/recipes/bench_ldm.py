"""`latentart bench ldm`: our denoiser beside those of diffusers and lucidrains, in one process.

All have as many parameters, the same latents, batches, loss of time and sampler. They take turns, as the machine may
get busier or calmer.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from statistics import median

import torch
from torch import Tensor, nn

from latentart.builders import build_ema, build_optimizer, build_rate_plan
from latentart.config.denoiser import UNetConfig
from latentart.config.ldm import DiffusionConfig, LdmConfig
from latentart.config.optim import EmaConfig, OptimizerConfig
from latentart.config.workspace import resolve
from latentart.core.diffusion.objective import DiffusionTask
from latentart.core.diffusion.process import draw_timesteps
from latentart.core.diffusion.uncertainty import LearnedUncertainty
from latentart.errors import TrainingDivergedError
from latentart.recipes.bench_arena import Arena, Scores, build_arena, describe_arena
from latentart.recipes.bench_denoisers import build_ours, build_peers, count_parameters, find_peers
from latentart.recipes.bench_figures import Figure, seconds_of
from latentart.recipes.bench_vae import time_in_turns, wait_for
from latentart.recipes.generate import SamplerSettings
from latentart.recipes.ldm_batches import HeldOutLoss, LatentBatches
from latentart.recipes.model import build_task
from latentart.training.devices import Placement
from latentart.training.ldm_step import LdmBatch, LdmStep
from latentart.training.randomness import epoch_order, normal_for, position, sample_numbers, uniform_for

PEER_RATES = (1e-4, 3e-4, 1e-3, 3e-3)
PILOT_SHARE = 0.25
CLOCK_STEPS = 10_000
NUM_STYLES = 27  # of the speed part: WikiArt's
SPEED_RATE = 1e-4  # all only have to keep finite
GUIDANCE = 1.5
# what the peers' own examples do: predict noise, all timesteps alike
PEER_DIFFUSION = DiffusionConfig(target="eps", weighting="uniform")


@dataclass(frozen=True)
class Setting:
    """A denoiser's size and what it is fed with: latents 4 x side x side."""

    name: str
    model: UNetConfig
    side: int
    batch_size: int


@dataclass
class TimedRun:
    """A denoiser in training, whose rate follows the clock, so that its cycle ends just when its time does.

    Attributes:
        limit: seconds of training in all. seconds: what it has had of them.
    """

    name: str
    step_fn: LdmStep
    batches: Callable[[int], LdmBatch]
    optimizer: OptimizerConfig
    limit: float
    seconds: float = 0.0
    steps: int = 0
    is_broken: bool = False

    def __post_init__(self) -> None:
        self.plan = build_rate_plan(self.optimizer, CLOCK_STEPS)

    def advance(self, until: float) -> None:
        """Train until it has had so many seconds; what its batches take does not count."""
        while self.seconds < min(until, self.limit):
            batch = self.batches(self.steps)
            rate = self.plan(int(self.seconds / self.limit * CLOCK_STEPS))
            try:
                self.seconds += seconds_of(partial(update, self.step_fn, batch, self.steps, rate))
            except TrainingDivergedError:  # it is judged by its last sound average
                self.seconds, self.is_broken = self.limit, True
            self.steps += 1


def bench_ldm(parts: Sequence[str], placement: Placement, pictures: Path | None, *, is_quick: bool) -> Iterator[Figure]:
    """Yield the figures of the given parts: speed, quality, steps, recipes; ``pictures`` is the user's own folder.

    Raises:
        UsageError: a library to compare with is not installed.
        DataError: there is no such folder, or it holds too few pictures.
    """
    if {"speed", "quality"} & set(parts):
        find_peers()
    threads = f", {torch.get_num_threads()} threads of {os.cpu_count()}" if placement.device.type == "cpu" else ""
    yield Figure("runs on", f"{placement.device}{threads}, {placement.precision}")
    if "speed" in parts:
        yield from bench_speeds(placement, is_quick=is_quick)
    rest = [part for part in parts if part != "speed"]
    if not rest:
        return
    with tempfile.TemporaryDirectory(prefix="latentart-bench-") as folder:
        arena = build_arena(Path(folder), pictures, placement, is_quick=is_quick)
        yield from describe_arena(arena)
        if "quality" in rest or "steps" in rest:
            ours = timed(arena, "latentart", arena.workspace.config.ldm, seconds=6.0 if is_quick else 180.0)
            if "quality" in rest:
                yield from bench_quality(arena, ours)
            train_in_turns([ours])
            if "steps" in rest:
                yield from bench_steps(arena, ours)
        if "recipes" in rest:
            from latentart.recipes.bench_recipes import bench_recipes

            yield from bench_recipes(arena, seconds=4.0 if is_quick else 120.0)


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
        from latentart.recipes.bench_gpu import bench_matrix_rate

        yield from bench_matrix_rate(settings[1], placement)


def bench_speed(setting: Setting, placement: Placement, *, rounds: int) -> Iterator[Figure]:
    """Measure whole updates on latents of noise, each denoiser in its turn; on CUDA all are compiled."""
    on_gpu = placement.device.type == "cuda"
    ours = build_ours(setting.model, 4, NUM_STYLES)
    peers = build_peers(count_parameters(ours), 4, setting.side, NUM_STYLES, len(setting.model.widths))
    networks: dict[str, nn.Module] = {"latentart": ours, **peers}
    batch = noise_batch(setting, placement)
    works = []
    for network in networks.values():
        placement.place(network)
        step_fn = build_step(network, DiffusionConfig(), OptimizerConfig(), placement)
        if on_gpu:
            network.compile()
        works.append(partial(update_often, step_fn, batch, 10 if on_gpu else 1))
        update_often(step_fn, batch, 5 if on_gpu else 1)
    times = time_in_turns(works, rounds)
    rates = {
        name: setting.batch_size * (10 if on_gpu else 1) / median(seconds)
        for name, seconds in zip(networks, times, strict=True)
    }
    name = f"{setting.name}, 4 x {setting.side} x {setting.side}, batch {setting.batch_size}"
    counts = ", ".join(f"{other} {count_parameters(network) / 1e6:.2f} M" for other, network in networks.items())
    yield Figure(f"{name}, parameters", counts)
    compiled = ", all compiled" if on_gpu else ""
    value = ", ".join(f"{other} {rate:.1f}" for other, rate in rates.items())
    yield Figure(f"{name}, training", f"{value} images/s{compiled}")
    ratio = rates.pop("latentart") / max(rates.values())
    yield Figure(f"{name}, ours over the faster peer", f"{ratio:.2f} times", "at least 1.5", ratio >= 1.5)


def bench_quality(arena: Arena, ours: TimedRun) -> Iterator[Figure]:
    """Train all from scratch for the same time on the same latents, and compare their samples with real pictures."""
    shape, stages = arena.cache.latent_shape, len(arena.workspace.config.ldm.model.widths)  # type: ignore[union-attr]
    build = partial(build_peers, count_parameters(ours.step_fn.denoiser), shape[0], shape[1], arena.num_styles, stages)
    runs = [ours]
    for name in build():
        pilots = [timed_peer(arena, name, build()[name], rate, PILOT_SHARE * ours.limit) for rate in PEER_RATES]
        train_in_turns(pilots)
        losses = {run.optimizer.lr: held_out_loss(arena, run) for run in pilots}
        best = min(losses, key=losses.__getitem__)
        tried = ", ".join(f"{loss:.4f} at {rate:g}" for rate, loss in losses.items())
        yield Figure(
            f"learning rate of {name}", f"{best:g}, as {PILOT_SHARE * ours.limit:g} s each left a loss of {tried}"
        )
        runs.append(timed_peer(arena, name, build()[name], best, ours.limit))
    train_in_turns(runs)
    yield Figure(f"updates in {ours.limit:g} s each", ", ".join(f"{run.name} {run.steps}" for run in runs))
    scores = {run.name: score(arena, run, peer_settings()) for run in runs}
    for name, found in scores.items():
        yield Figure(name, str(found))
    own = scores.pop("latentart")
    ratio = own.frechet / min(other.frechet for other in scores.values())
    yield Figure("Fréchet distance, ours over the better peer", f"{ratio:.2f}", "at most 0.5", ratio <= 0.5)
    share = own.recognized / arena.ceiling.recognized
    yield Figure("recognized, ours over real pictures", f"{share:.1%}", "at least 95 %", share >= 0.95)


def bench_steps(arena: Arena, ours: TimedRun) -> Iterator[Figure]:
    """Compare 20 steps of the fast samplers with 100 of DDIM, from the same seeds."""
    slow = score(arena, ours, replace(peer_settings(), steps=100))
    yield Figure("DDIM, 100 steps", str(slow))
    found = {}
    for sampler in ("dpmpp_2m", "unipc"):
        settings = replace(peer_settings(), sampler=sampler, steps=20)
        found[sampler] = score(arena, ours, settings)
        yield Figure(f"{sampler}, 20 steps", str(found[sampler]))
    best = min(scores.frechet for scores in found.values())
    ratio = best / slow.frechet
    yield Figure("Fréchet distance, the better of 20 steps over DDIM", f"{ratio:.3f}", "at most 1", ratio <= 1)


def peer_settings() -> SamplerSettings:
    """Return how every contender is sampled."""
    return SamplerSettings(sampler="ddim", steps=50, guidance=GUIDANCE, batch_size=32)


def score(arena: Arena, run: TimedRun, settings: SamplerSettings) -> Scores:
    """Return the scores of a run's average."""
    return arena.score(arena.draw(run.step_fn.ema.network, run.step_fn.task, settings))


def held_out_loss(arena: Arena, run: TimedRun) -> float:
    """Return the plain loss of a run's average on the latents of pictures held out; infinite where it diverged."""
    if run.is_broken:
        return float("inf")
    cache, task = arena.cache, run.step_fn.task
    loss = HeldOutLoss(cache, arena.held_out, cache.style_id, task, arena.placement, seed=0, batch_size=32)
    return float(loss(run.step_fn.ema.network)["held_out_loss"] or 0.0)


def timed(arena: Arena, name: str, config: LdmConfig, seconds: float) -> TimedRun:
    """Return a run of ours by a config, from scratch."""
    network = build_ours(config.model, arena.cache.latent_shape[0], arena.num_styles)
    arena.placement.place(network)
    training = config.training
    step_fn = build_step(network, config.diffusion, training.optimizer, arena.placement, training.run.ema)
    batches = batches_of(arena, step_fn.task, training.batch_size, training.style_dropout)
    return TimedRun(name, step_fn, batches, training.optimizer, seconds)


def timed_peer(arena: Arena, name: str, network: nn.Module, rate: float, seconds: float) -> TimedRun:
    """Return a run of a peer at one learning rate, with our optimizer, average and cycle of the rate."""
    training = arena.workspace.config.ldm.training
    optimizer = training.optimizer.model_copy(update={"lr": rate, "kind": "adamw"})
    arena.placement.place(network)
    step_fn = build_step(network, PEER_DIFFUSION, optimizer, arena.placement, training.run.ema)
    batches = batches_of(arena, step_fn.task, training.batch_size, training.style_dropout)
    return TimedRun(name, step_fn, batches, optimizer, seconds)


def build_step(
    network: nn.Module,
    diffusion: DiffusionConfig,
    optimizer: OptimizerConfig,
    placement: Placement,
    ema: EmaConfig | None = None,
) -> LdmStep:
    """Return the update of a denoiser that is on its device."""
    task = build_task(diffusion).to(placement.device)
    uncertainty = LearnedUncertainty().to(placement.device) if task.weighting == "learned" else None
    return LdmStep(
        network,  # type: ignore[arg-type]  # a peer keeps the contract without being a Denoiser
        build_ema(network, ema or EmaConfig()),
        build_optimizer(network, optimizer),
        task,
        placement,
        clip_norm=optimizer.clip_norm,
        uncertainty=uncertainty,
    )


def batches_of(arena: Arena, task: DiffusionTask, batch_size: int, dropout: float) -> Callable[[int], LdmBatch]:
    """Return the batch of every step, on the device: each picture once in an epoch, the same for all contenders."""
    cache, training, send = arena.cache, arena.training, arena.placement.send
    batches = LatentBatches(cache, cache.style_id, [arena.num_styles], task, seed=0, dropout=dropout)

    def batch_at(step: int) -> LdmBatch:
        places = [position(number, len(training)) for number in sample_numbers(step, batch_size)]
        indexes = [training[int(epoch_order(0, epoch, len(training))[place])] for epoch, place in places]
        batch = batches[step, indexes]
        return LdmBatch(send(batch.x0), send(batch.eps), send(batch.t), send(batch.style_id))

    return batch_at


def noise_batch(setting: Setting, placement: Placement) -> LdmBatch:
    """Return a batch of noise as latents, with styles and timesteps."""
    numbers, shape = range(setting.batch_size), (4, setting.side, setting.side)
    x0, eps = (placement.send(normal_for(0, purpose, numbers, shape)) for purpose in ("bench x0", "bench eps"))
    t = draw_timesteps(uniform_for(0, "bench t", numbers), DiffusionConfig().num_steps)
    style_id: Tensor = torch.arange(setting.batch_size) % (NUM_STYLES + 1)
    return LdmBatch(x0, eps, placement.send(t), placement.send(style_id))


def update(step_fn: LdmStep, batch: LdmBatch, step: int, rate: float) -> None:
    """Make one update and wait until the device has done it."""
    step_fn(batch, step, rate)
    wait_for(step_fn.placement.device)


def update_often(step_fn: LdmStep, batch: LdmBatch, steps: int) -> None:
    """Make updates on one batch, and wait until the device has done them."""
    for step in range(steps):
        step_fn(batch, step, SPEED_RATE)
    wait_for(step_fn.placement.device)


def train_in_turns(runs: Sequence[TimedRun], at_a_time: float = 5.0) -> None:
    """Train all to their limits, each for some seconds before the next has its turn."""
    until = 0.0
    while any(run.seconds < run.limit for run in runs):
        until += at_a_time
        for run in runs:
            run.advance(until)
