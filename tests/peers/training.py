"""Networks in training, each for its time in its turn: a run of any, and denoisers' own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, Protocol, TypeVar

import torch
from torch import Tensor, nn

from latentart.builders import build_ema, build_task
from latentart.config.denoiser import UNetConfig
from latentart.config.ldm import DiffusionConfig, LdmConfig
from latentart.config.optim import EmaConfig, OptimizerConfig
from latentart.core.diffusion.objective import DiffusionTask
from latentart.core.diffusion.process import draw_timesteps
from latentart.core.diffusion.uncertainty import LearnedUncertainty
from latentart.core.randomness import epoch_order, normal_for, position, sample_numbers, uniform_for
from latentart.errors import TrainingDivergedError
from latentart.planning.rates import seconds_of, wait_for
from latentart.process.devices import Placement
from latentart.training.build import build_optimizer, build_rate_plan
from latentart.training.ldm_batches import HeldOutLoss, LatentBatches
from latentart.training.steps.ldm_step import LdmBatch, LdmStep
from latentart.training.steps.optim import Learner
from peers.arena import Arena
from peers.denoisers import build_ours
from peers.setting import Setting

CLOCK_STEPS = 10_000
NUM_STYLES = 27  # of the speed part: WikiArt's
SPEED_RATE = 1e-4  # all only have to keep finite
# what the peers do by default: predict noise, all timesteps alike
PEER_DIFFUSION = DiffusionConfig(target="eps", weighting="uniform")


DenoiserSetting = Setting[UNetConfig]


class Step(Protocol):
    """One update of some network, on a batch of its own kind at a learning rate."""

    @property
    def placement(self) -> Placement:
        """Where it runs."""

    def __call__(self, batch: Any, step: int, rate: float, /) -> object:
        """Update."""


StepT = TypeVar("StepT", bound=Step)


@dataclass
class TimedRun(Generic[StepT]):
    """A network in training, whose rate follows the clock, so that its cycle ends just when its time does.

    Attributes:
        limit: seconds of training in all. seconds: what it has had of them.
    """

    name: str
    step_fn: StepT
    batches: Callable[[int], Any]
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
            wait_for(self.step_fn.placement.device)
            try:
                self.seconds += seconds_of(partial(update, self.step_fn, batch, self.steps, rate))
            except TrainingDivergedError:  # it is judged by its last sound weights
                self.seconds, self.is_broken = self.limit, True
            self.steps += 1


LdmRun = TimedRun[LdmStep]


def held_out_loss(arena: Arena, run: LdmRun) -> float:
    """Return the plain loss of a run's average on the latents of pictures held out; infinite where it diverged."""
    if run.is_broken:
        return float("inf")
    cache, task = arena.cache, run.step_fn.task
    loss = HeldOutLoss(cache, arena.held_out, cache.style_id, task, arena.placement, seed=0, batch_size=32)
    return float(loss(run.step_fn.ema.network)["held_out_loss"] or 0.0)


def timed(arena: Arena, name: str, config: LdmConfig, seconds: float) -> LdmRun:
    """Return a run of ours by a config, from scratch."""
    network = build_ours(config.model, arena.cache.latent_shape[0], arena.num_styles)
    arena.placement.place(network)
    training = config.training
    step_fn = build_step(network, config.diffusion, training.optimizer, arena.placement, training.run.ema)
    batches = batches_of(arena, step_fn.task, training.batch_size, training.style_dropout)
    return TimedRun(name, step_fn, batches, training.optimizer, seconds)


def timed_peer(
    arena: Arena,
    name: str,
    network: nn.Module,
    rate: float,
    seconds: float,
    diffusion: DiffusionConfig = PEER_DIFFUSION,
) -> LdmRun:
    """Return a run of a peer at one learning rate, with our optimizer, average and cycle of the rate."""
    training = arena.workspace.config.ldm.training
    optimizer = training.optimizer.model_copy(update={"lr": rate, "kind": "adamw"})
    arena.placement.place(network)
    step_fn = build_step(network, diffusion, optimizer, arena.placement, training.run.ema)
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
        # a peer keeps the contract without being a Denoiser
        Learner(network, build_ema(network, ema or EmaConfig()), build_optimizer(network, optimizer)),  # type: ignore[arg-type]
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


def noise_batch(setting: DenoiserSetting, placement: Placement) -> LdmBatch:
    """Return a batch of noise as latents, with styles and timesteps."""
    numbers, shape = range(setting.batch_size), (4, setting.side, setting.side)
    x0, eps = (placement.send(normal_for(0, purpose, numbers, shape)) for purpose in ("bench x0", "bench eps"))
    t = draw_timesteps(uniform_for(0, "bench t", numbers), DiffusionConfig().num_steps)
    style_id: Tensor = torch.arange(setting.batch_size) % (NUM_STYLES + 1)
    return LdmBatch(x0, eps, placement.send(t), placement.send(style_id))


def update(step_fn: Step, batch: Any, step: int, rate: float) -> None:
    """Make one update and wait until the device has done it."""
    step_fn(batch, step, rate)
    wait_for(step_fn.placement.device)


def update_often(step_fn: Step, batch: Any, steps: int) -> None:
    """Make updates on one batch, and wait until the device has done them."""
    for step in range(steps):
        step_fn(batch, step, SPEED_RATE)
    wait_for(step_fn.placement.device)


def train_in_turns(runs: Sequence[TimedRun[Any]], at_a_time: float = 5.0) -> None:
    """Train all to their limits, each for some seconds before the next has its turn."""
    until = 0.0
    while any(run.seconds < run.limit for run in runs):
        until += at_a_time
        for run in runs:
            run.advance(until)
