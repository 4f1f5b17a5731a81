"""What `latentart plan` times: the trainings themselves, cut short, on some of the real pictures, in a folder apart.

A rehearsal calls the same recipes as `latentart train`, logs every step, and reads from the log how long steps,
previews, evaluations and checkpoints last. Where a step at the real batch would take too long, smaller batches are
tried, and the rest is a straight line through them.
"""

from __future__ import annotations

import gc
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import torch
from pydantic import BaseModel

from latentart.layout import Workspace
from latentart.planning.estimate import (
    FORWARD_SHARE,
    LEAST_STEPS,
    Layout,
    Occasions,
    Part,
    Rehearsal,
    Timings,
    line_through,
    plan_layout,
    read_timings,
)
from latentart.process.devices import Placement, choose_device
from latentart.process.host_memory import available_bytes, file_bytes, peak_bytes
from latentart.scoring.run_history import METRICS, MetricsReader
from latentart.storage.checkpoints import list_checkpoints
from latentart.storage.disk import folder_bytes
from latentart.training.encode import encode
from latentart.training.survival.resuming import Call
from latentart.training.train_ldm import train_ldm
from latentart.training.train_vae import train_vae

NEVER = 10**9
WARMING = "few"  # the folder of pictures that a denoiser's trial encodes first
GROWTH = 4  # from one batch that is tried to the next
ENDING_SHARE = 1.0  # of a trial's time that a training's end may take besides

Settings = TypeVar("Settings", bound=BaseModel)


@dataclass(frozen=True)
class Trial:
    """What is to be tried: a workspace apart, and one stage of the autoencoder, or the denoiser where that is None.

    Attributes:
        seconds: how long it may last, about. parts: those of the stage that are still to come.
        occasions: what happens before the real run's end, and how often.
        ending: images that pass the network at the end, or as many as that is like.
        libraries: bytes of memory that a command's libraries take; a process born with them counts fewer.
    """

    workspace: Workspace
    stage: str | None
    device: str | None
    seconds: float
    parts: tuple[Part, ...] = ("whole",)
    occasions: Occasions = field(default_factory=Occasions)
    ending: float = 0.0
    libraries: int = 0

    @property
    def name(self) -> str:
        """What the phase is called."""
        return "ldm" if self.stage is None else f"vae {self.stage}"

    @property
    def batch_size(self) -> int:
        """The real batch."""
        config = self.workspace.config
        sizes = {stage.name: stage.batch_size for stage in config.vae.stages}
        return config.ldm.training.batch_size if self.stage is None else sizes[self.stage]


def try_training(trial: Trial) -> Timings:
    """Rehearse a stage or the denoiser; to be called in a process of its own, whose peak of memory is measured.

    Raises:
        ResourceError: memory is out.
    """
    placement = Placement(choose_device(trial.device), trial.workspace.config.ldm.training.run.precision)
    available = available_bytes(placement.device)
    base = peak_bytes(placement.device) or 0
    uncounted = max(0, trial.libraries - file_bytes()) if placement.device.type == "cpu" else 0
    encoding = time_encoding(trial, placement) if trial.stage is None else 0.0
    tried, deadline = [_probe(trial, 1, placement)], time.monotonic() + trial.seconds
    while not _is_enough(trial, tried, deadline - time.monotonic()):
        tried.append(_probe(trial, min(trial.batch_size, GROWTH * tried[-1].batch_size), placement))
    left, per_step = deadline - time.monotonic(), tried[-1].longest * trial.batch_size / tried[-1].batch_size
    is_reached = tried[-1].batch_size == trial.batch_size  # then three times as many steps are no great matter
    if is_reached or per_step * LEAST_STEPS * len(trial.parts) <= left:
        layout = plan_layout(trial.parts, per_step, left / 2)
        is_whole = FORWARD_SHARE * per_step / trial.batch_size * trial.ending <= ENDING_SHARE * trial.seconds
        timings = _rehearse_laid_out(trial, layout, placement, is_whole=is_whole)
        timings.memory = peak_bytes(placement.device)
    else:
        timings = extrapolate(tried, trial.batch_size)
    _measure_disk(trial, timings)
    if timings.memory is not None:
        timings.memory += uncounted
    timings.encode, timings.available = encoding, available + base if available is not None else None
    return timings


@dataclass(frozen=True)
class Probe:
    """What a few steps with so many pictures took: seconds of each part, and the peak of memory since the start."""

    batch_size: int
    step: dict[Part, float]
    memory: int | None

    @property
    def longest(self) -> float:
        """The longest step."""
        return max(self.step.values())


def _is_enough(trial: Trial, tried: Sequence[Probe], left: float) -> bool:
    """Tell whether the real batch can be rehearsed now, or no larger one can be tried in the time that is left."""
    last, num_parts = tried[-1], len(trial.parts)
    ratio = trial.batch_size / last.batch_size
    if ratio == 1 or last.longest * ratio * LEAST_STEPS * num_parts <= left:
        return True
    following = 2 * num_parts * last.longest * min(GROWTH, ratio)
    return following > left and (len(tried) > 1 or following > 2 * trial.seconds)


def extrapolate(tried: Sequence[Probe], batch_size: int) -> Timings:
    """Return steps and memory at ``batch_size`` by a straight line through the last two batches that were tried.

    After a single one the steps are in proportion, and nothing is known of the memory, most of which may be torch's.
    """
    small, large = tried[-2] if len(tried) > 1 else None, tried[-1]
    steps = {
        part: line_through(
            (small.batch_size, small.step[part]) if small else None, (large.batch_size, seconds), batch_size
        )
        for part, seconds in large.step.items()
    }
    memory = None
    if small is not None and small.memory is not None and large.memory is not None:
        memory = round(line_through((small.batch_size, small.memory), (large.batch_size, large.memory), batch_size))
    sizes = tuple(probe.batch_size for probe in tried[-2:])
    return Timings(step=steps, tried=sizes, is_whole=False, memory=memory)


def time_encoding(trial: Trial, placement: Placement) -> float:
    """Encode the pictures there are, which the denoiser needs, and return the seconds of one.

    Some in a folder of their own come first, as a process is slow at first; the last time finds all of it done, and
    shows what is no picture's.
    """
    seconds = []
    for root in (WARMING, "data", "data"):
        config = changed(trial.workspace.config, {"data.root": root})
        workspace = Workspace(trial.workspace.folder, config)
        began = time.monotonic()
        encode(workspace, placement, quiet=True)
        seconds.append(time.monotonic() - began)
    return max(0.0, seconds[1] - seconds[2]) / len(workspace.read_pictures()[0])


def _probe(trial: Trial, batch_size: int, placement: Placement) -> Probe:
    """Make two steps of each part with so many pictures, of which the second counts."""
    layout = Layout(dict.fromkeys(trial.parts, 2))
    bare = replace(trial, occasions=Occasions())
    done = _rehearse(bare, layout, batch_size, placement, is_whole=False)
    steps = {part: done.interval(2 * i + 1) for i, part in enumerate(trial.parts)}
    return Probe(batch_size, steps, peak_bytes(placement.device))


def _rehearse_laid_out(trial: Trial, layout: Layout, placement: Placement, *, is_whole: bool) -> Timings:
    """Train with the real batch by a layout; to the training's end only where that does not last too long."""
    done = _rehearse(trial, layout, trial.batch_size, placement, is_whole=is_whole)
    return replace(read_timings(done, layout), is_whole=is_whole)


def _rehearse(trial: Trial, layout: Layout, batch_size: int, placement: Placement, *, is_whole: bool) -> Rehearsal:
    """Train from the start, in place of an earlier rehearsal; the log has a line for every step."""
    workspace = rehearsal_workspace(trial, layout, batch_size, is_whole=is_whole)
    run = workspace.vae_run if trial.stage else workspace.ldm_run
    shutil.rmtree(run, ignore_errors=True)
    gc.collect()  # or the peak is that of two
    call, began = Call(max_steps=None if is_whole else layout.num_steps), time.time()
    if trial.stage is None:
        train_ldm(workspace, placement, call, quiet=True)
    else:
        train_vae(workspace, trial.stage, placement, call, quiet=True)
    if placement.device.type == "cuda":
        torch.cuda.synchronize(placement.device)
    ended = time.time()
    return Rehearsal(began, ended, [line for line in MetricsReader(run / METRICS).read() if "time" in line])


def rehearsal_workspace(trial: Trial, layout: Layout, batch_size: int, *, is_whole: bool) -> Workspace:
    """Return the trial's workspace with everything that happens once in a while where the layout has it.

    Where it is not whole there are more steps than will be made, so that the training's end is not reached.
    """
    config, at, lengths = trial.workspace.config, layout.preview_at, layout.lengths
    run = "ldm.training.run" if trial.stage is None else "vae.run"
    changes: dict[str, Any] = {
        f"{run}.log_every": 1,
        f"{run}.preview_every": at if trial.occasions.previews else NEVER,
        f"{run}.evaluate_every": at + 2 if trial.occasions.evaluations else NEVER,
        f"{run}.checkpoint_every": at + 3 if layout.num_steps > at + 3 else NEVER,
    }
    sizes = {"steps": layout.num_steps if is_whole else NEVER, "epochs": None, "batch_size": batch_size}
    if trial.stage is None:
        changes |= {f"ldm.training.{name}": value for name, value in sizes.items()}
        changes["ldm.training.run.ema.snapshot_every"] = NEVER
    else:
        has_entry = "warm-up" in lengths or "whole" in lengths
        adversarial = {
            "discriminator_start": lengths.get("before", 0) if has_entry else NEVER,
            "discriminator_warmup": lengths.get("warm-up", 0) if "whole" in lengths else NEVER,
            "ramp": 0,
        }
        stages = [changed(stage, sizes | adversarial) for stage in config.vae.stages if stage.name == trial.stage]
        changes |= {"vae.stages": tuple(stages), "vae.discriminator.guard.enabled": False}
    return Workspace(trial.workspace.folder, changed(config, changes))


def changed(settings: Settings, changes: Mapping[str, Any]) -> Settings:
    """Return a copy of settings with others under their dotted names; they are not checked."""
    for name, value in changes.items():
        first, _, rest = name.partition(".")
        settings = settings.model_copy(
            update={first: changed(getattr(settings, first), {rest: value}) if rest else value}
        )
    return settings


def _measure_disk(trial: Trial, timings: Timings) -> None:
    """Look at what a rehearsal left on disk."""
    run = trial.workspace.vae_run if trial.stage else trial.workspace.ldm_run
    checkpoints = list_checkpoints(run)
    timings.checkpoint_bytes = folder_bytes(checkpoints[-1]) if checkpoints else 0
    timings.model_bytes = folder_bytes(run / "model")
    previews = [path.stat().st_size for path in (run / "previews").glob("*.png")]
    timings.preview_bytes = max(previews, default=0)
    metrics = (run / METRICS).read_bytes()
    timings.line_bytes = len(metrics) // max(1, metrics.count(b"\n"))
