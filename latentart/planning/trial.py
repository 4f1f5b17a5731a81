"""What `latentart plan` times: the trainings themselves, cut short, on some of the real pictures, in a folder apart.

A rehearsal calls the same recipes as `latentart train`, logs every step, and reads from the log how long steps,
previews, evaluations and checkpoints last. Where a step at the real batch would take too long, smaller batches are
tried, and the rest is a straight line through them.
"""

from __future__ import annotations

import gc
import json
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from latentart.config.vae import StageConfig
from latentart.config.workspace import Config
from latentart.layout import Workspace
from latentart.planning.layout import (
    LEAST_STEPS,
    Layout,
    Part,
    Rehearsal,
    Timings,
    line_through,
    plan_layout,
    read_timings,
)
from latentart.process.devices import Placement, choose_device
from latentart.process.host_memory import available_bytes, file_bytes, peak_bytes
from latentart.storage.checkpoints import list_checkpoints
from latentart.storage.disk import folder_bytes
from latentart.training.encode import encode
from latentart.training.survival.resuming import Call
from latentart.training.train_ldm import train_ldm
from latentart.training.train_vae import train_vae

NEVER = 10**9
WARMING = "few"  # the folder of pictures that a denoiser's trial encodes first
GROWTH = 4  # from one batch that is tried to the next
FORWARD_SHARE = 1 / 3  # of a step: the backward pass takes about twice as long
ENDING_SHARE = 1.0  # of a trial's time that a training's end may take besides


@dataclass(frozen=True)
class Trial:
    """What is to be tried: a workspace apart, and one stage of the autoencoder, or the denoiser where that is None.

    Attributes:
        parts: those of the stage that are still to come. seconds: how long it may last, about.
        has_previews, has_evaluations: whether the real run has any before its end.
        ending: images that pass the network at the end, or as many as that is like.
        libraries: bytes of memory that a command's libraries take; a process born with them counts fewer.
    """

    folder: Path
    config: Config
    stage: StageConfig | None
    device: str | None
    seconds: float
    parts: tuple[Part, ...] = ("whole",)
    has_previews: bool = False
    has_evaluations: bool = False
    ending: float = 0.0
    libraries: int = 0

    @property
    def batch_size(self) -> int:
        """The real batch."""
        return self.stage.batch_size if self.stage else self.config.ldm.training.batch_size


def try_training(trial: Trial) -> Timings:
    """Rehearse a stage or the denoiser; to be called in a process of its own, whose peak of memory is measured.

    Raises:
        ResourceError: memory is out.
    """
    placement = Placement(choose_device(trial.device), trial.config.ldm.training.run.precision)
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
        data = trial.config.data.model_copy(update={"root": root})
        workspace = Workspace(trial.folder, trial.config.model_copy(update={"data": data}))
        began = time.monotonic()
        encode(workspace, placement, quiet=True)
        seconds.append(time.monotonic() - began)
    return max(0.0, seconds[1] - seconds[2]) / len(workspace.read_pictures()[0])


def _probe(trial: Trial, batch_size: int, placement: Placement) -> Probe:
    """Make two steps of each part with so many pictures, of which the second counts."""
    layout = Layout(dict.fromkeys(trial.parts, 2))
    bare = replace(trial, has_previews=False, has_evaluations=False)
    done = _rehearse(bare, layout, batch_size, placement, is_whole=False)
    steps = {part: done.interval(2 * i + 1) for i, part in enumerate(trial.parts)}
    return Probe(batch_size, steps, peak_bytes(placement.device))


def _rehearse_laid_out(trial: Trial, layout: Layout, placement: Placement, *, is_whole: bool) -> Timings:
    """Train with the real batch by a layout; to the training's end only where that does not last too long."""
    done = _rehearse(trial, layout, trial.batch_size, placement, is_whole=is_whole)
    return replace(read_timings(done, layout), is_whole=is_whole)


def _rehearse(trial: Trial, layout: Layout, batch_size: int, placement: Placement, *, is_whole: bool) -> Rehearsal:
    """Train from the start, in place of an earlier rehearsal; the log has a line for every step."""
    workspace = Workspace(trial.folder, rehearsal_config(trial, layout, batch_size, is_whole=is_whole))
    run = workspace.vae_run if trial.stage else workspace.ldm_run
    shutil.rmtree(run, ignore_errors=True)
    gc.collect()  # or the peak is that of two
    call, began = Call(max_steps=None if is_whole else layout.num_steps), time.time()
    if trial.stage is None:
        train_ldm(workspace, placement, call, quiet=True)
    else:
        train_vae(workspace, trial.stage.name, placement, call, quiet=True)
    if placement.device.type == "cuda":
        torch.cuda.synchronize(placement.device)
    ended = time.time()
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    return Rehearsal(began, ended, [line for line in lines if "time" in line])


def rehearsal_config(trial: Trial, layout: Layout, batch_size: int, *, is_whole: bool) -> Config:
    """Return the trial's config with everything that happens once in a while where the layout has it.

    Where it is not whole there are more steps than will be made, so that the training's end is not reached.
    """
    config, at, steps = trial.config, layout.preview_at, layout.num_steps if is_whole else NEVER
    happens: dict[str, Any] = {
        "log_every": 1,
        "preview_every": at if trial.has_previews else NEVER,
        "evaluate_every": at + 2 if trial.has_evaluations else NEVER,
        "checkpoint_every": at + 3 if layout.num_steps > at + 3 else NEVER,
    }
    sizes = {"steps": steps, "epochs": None, "batch_size": batch_size}
    if trial.stage is None:
        training = config.ldm.training
        ema = training.run.ema.model_copy(update={"snapshot_every": NEVER})
        run = training.run.model_copy(update={**happens, "ema": ema})
        ldm = config.ldm.model_copy(update={"training": training.model_copy(update={**sizes, "run": run})})
        return config.model_copy(update={"ldm": ldm})
    has_entry = "warm-up" in layout.lengths or "whole" in layout.lengths
    adversarial = {
        "discriminator_start": layout.lengths.get("before", 0) if has_entry else NEVER,
        "discriminator_warmup": layout.lengths.get("warm-up", 0) if "whole" in layout.lengths else NEVER,
        "ramp": 0,
    }
    stage = trial.stage.model_copy(update={**sizes, **adversarial})
    guard = config.vae.discriminator.guard.model_copy(update={"enabled": False})
    discriminator = config.vae.discriminator.model_copy(update={"guard": guard})
    run_config = config.vae.run.model_copy(update=happens)
    changes = {"stages": (stage,), "run": run_config, "discriminator": discriminator}
    return config.model_copy(update={"vae": config.vae.model_copy(update=changes)})


def _measure_disk(trial: Trial, timings: Timings) -> None:
    """Look at what a rehearsal left on disk."""
    workspace = Workspace(trial.folder, trial.config)
    run = workspace.vae_run if trial.stage else workspace.ldm_run
    checkpoints = list_checkpoints(run)
    timings.checkpoint_bytes = folder_bytes(checkpoints[-1]) if checkpoints else 0
    timings.model_bytes = folder_bytes(run / "model")
    previews = [path.stat().st_size for path in (run / "previews").glob("*.png")]
    timings.preview_bytes = max(previews, default=0)
    metrics = (run / "metrics.jsonl").read_bytes()
    timings.line_bytes = len(metrics) // max(1, metrics.count(b"\n"))
