"""`--minutes`: how many updates a training gets, fitted to the time that one has by trying some of them first.

What is tried is thrown away: a training with the steps that were chosen is the same wherever they came from. They are
written into the workspace's config, so that a call without the option goes on by the same schedule.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any, Literal, TypeVar

from latentart.builders import count_steps
from latentart.config.base import apply_override
from latentart.config.optim import StepsOrEpochs
from latentart.config.vae import StageConfig
from latentart.config.workspace import Config, load_config
from latentart.data.held_out import split_held_out
from latentart.data.index import write_lines
from latentart.data.latent_cache import LatentCache
from latentart.data.loading import prefetch
from latentart.errors import ResourceError, UsageError
from latentart.layout import Workspace
from latentart.model.run_data import describe_latents, describe_pictures, new_names
from latentart.process.devices import Placement
from latentart.process.distributed import read_ranks
from latentart.scoring.reconstructions import vae_passes
from latentart.storage.checkpoints import Checkpoint
from latentart.training.build import build_ldm_job, build_stage_job, preview_settings
from latentart.training.encode import encode
from latentart.training.job import Job
from latentart.training.ldm_batches import HELD_OUT_DRAWS
from latentart.training.ldm_previews import page_passes
from latentart.training.loop import train
from latentart.training.stages import choose_stages, stages_done
from latentart.training.survival.resuming import Kind, find_start

logger = logging.getLogger(__name__)

Batch = TypeVar("Batch")

NEVER = 10**9
FEWEST_TRIED, MOST_TRIED, TRYING = 3, 9, 1.0  # updates of a kind, and the seconds after which no more are tried
SHARE_ADDED = 0.25  # of the steps that were made, for styles that are added
FEWEST = 20  # updates of a training, however little time there is
FORWARD = 1 / 3  # of an update: the backward pass takes about twice as long
JUDGE = 30.0  # seconds until the first verdict has its judge
MOST_WARMUP = 0.1  # of a training


@dataclass(frozen=True, kw_only=True)
class TimeGiven:
    """The time that one has.

    Attributes:
        minutes: as they were asked for; asked for once more, nothing is fitted anew. seconds: what is left of them.
        drawn: times that a picture passes the denoiser afterwards. path: the config's file, else the usual one.
    """

    minutes: float
    seconds: float | None = None
    drawn: int = 0
    path: Path | None = None

    @property
    def left(self) -> float:
        """Seconds."""
        return 60 * self.minutes if self.seconds is None else self.seconds


@dataclass(frozen=True)
class Length:
    """How long a training lasts, in seconds: by its updates, as many as its config has, and however many there are."""

    updates: float
    fixed: float


def fit_factor(lengths: Sequence[Length], seconds: float) -> float:
    """Return the factor of the updates with which trainings last so many seconds in all; 0 where time is too short."""
    return max(0.0, seconds - sum(one.fixed for one in lengths)) / sum(one.updates for one in lengths)


def scale_stage(stage: StageConfig, num_steps: int, factor: float) -> dict[str, Any]:
    """Return the steps of a stage that had ``num_steps``, and where in them its discriminator now comes in."""
    steps, start = max(FEWEST, round(num_steps * factor)), stage.discriminator_start
    ratio = steps / num_steps
    return {
        "steps": steps,
        "epochs": None,
        "discriminator_start": round(start * ratio) if type(start) is int else start,
        "discriminator_warmup": round(stage.discriminator_warmup * ratio),
        "ramp": round(stage.ramp * ratio),
    }


def stretch(done: int, num_steps: int, factor: float) -> dict[str, Any]:
    """Return the steps of a denoiser of which some are done; the rate begins anew there, so that it never leaps."""
    return {"steps": done + max(FEWEST, round(num_steps * factor)), "epochs": None, "new_cycle_at": done}


def seconds_spent(length: StepsOrEpochs, num_steps: int, done: int) -> float:
    """Return the seconds that a training has had, as far as they were fitted."""
    return 60 * (length.fitted_minutes or 0.0) * min(1.0, done / num_steps)


def fit_vae(workspace: Workspace, stage_name: str, placement: Placement, given: TimeGiven) -> Workspace:
    """Return a workspace whose stages that have not begun last as long as there is time; its file says so too.

    Raises:
        UsageError: no such stage, or there are many processes.
        DataError: there are no clean pictures.
        DownloadError: a stage needs LPIPS weights that are not here.
    """
    began, config = time.monotonic(), workspace.config
    checkpoint = _find(workspace.vae_run, "vae")
    chosen = choose_stages(config.vae.stages, stage_name)
    begun = {*stages_done(checkpoint), checkpoint.state["stage"] if checkpoint else ""}
    stages = [stage for stage in chosen if stage.name not in begun]
    if not stages or any(stage.fitted_minutes == given.minutes for stage in chosen):
        return workspace
    lengths, counts = [], []
    for stage in stages:
        length, num_steps = _try_stage(workspace, stage, placement)
        lengths.append(length)
        counts.append(num_steps)
    factor = fit_factor(lengths, given.left - (time.monotonic() - began))
    changes: dict[str, Any] = {}
    for stage, num_steps in zip(stages, counts, strict=True):
        changed = scale_stage(stage, num_steps, factor) | {"fitted_minutes": given.minutes}
        changes |= {f"vae.stages.{stage.name}.{name}": value for name, value in changed.items()}
    return _record_fitted(workspace, changes, given)


def fit_ldm(workspace: Workspace, placement: Placement, given: TimeGiven) -> Workspace:
    """Return a workspace whose denoiser is trained for as long as there is time, or longer than it was.

    Raises:
        UsageError: there are many processes.
        ModelError: there is no trained autoencoder.
    """
    began, settings = time.monotonic(), workspace.config.ldm.training
    checkpoint = _find(workspace.ldm_run, "ldm")
    if settings.fitted_minutes == given.minutes:
        return workspace
    cache = LatentCache.open(encode(workspace, placement, quiet=True))
    job = build_ldm_job(workspace, cache, describe_latents(workspace), placement)
    update, done = time_update(job), checkpoint.step if checkpoint else 0
    forward, run = FORWARD * update / job.batch_size, settings.run
    page = page_passes(preview_settings(workspace.config.sample), len(job.style_names)) * forward
    held_out = HELD_OUT_DRAWS * forward if job.held_out else 0.0
    fixed = page + held_out + given.drawn * forward + (JUDGE if run.verdict else 0.0)
    more = page / run.preview_every + held_out / run.evaluate_every
    length = Length(job.num_steps * (update + more), fixed)
    spent = seconds_spent(settings, job.num_steps, done) + time.monotonic() - began
    factor = fit_factor([length], given.left - spent)
    if not factor and done >= job.num_steps:
        return workspace
    changes = stretch(done, job.num_steps, factor)
    changes["fitted_minutes"] = given.minutes
    if (warmup := getattr(settings.optimizer.schedule, "warmup_steps", 0)) > MOST_WARMUP * changes["steps"]:
        logger.info("the rate rises over a tenth of the steps, no longer over %d of them", warmup)
        changes["optimizer.schedule.warmup_steps"] = round(MOST_WARMUP * changes["steps"])
    changes = {f"ldm.training.{name}": value for name, value in changes.items()}
    return _record_fitted(workspace, changes, given)


def add_steps(workspace: Workspace, resume: Path | Literal["auto", "never"], path: Path | None) -> Workspace:
    """Return a workspace whose denoiser goes on for styles that it has no rows for, at a rate that begins anew.

    They get a quarter of the steps that it has made, unless the config has a cycle from there on; its file says so too.

    Raises:
        ResourceError: the config's file cannot be written.
    """
    checkpoint, settings = find_start(workspace.ldm_run, resume, "ldm"), workspace.config.ldm.training
    if checkpoint is None or not new_names(checkpoint.state["data"], describe_latents(workspace)):
        return workspace
    pictures, _ = split_held_out(workspace.read_pictures()[0], workspace.config.data.held_out)
    done, num_steps = checkpoint.step, count_steps(settings, len(pictures), settings.batch_size)
    if settings.new_cycle_at == done < num_steps:
        return workspace
    longer = {**stretch(done, done, SHARE_ADDED), "fitted_minutes": None}
    longer["steps"] = max(longer["steps"], num_steps)
    changes = {f"ldm.training.{name}": value for name, value in longer.items()}
    return _record(workspace, changes, path, f"more steps for what is new, from step {done:,} on")


def time_update(job: Job[Batch]) -> float:
    """Return the seconds of one update of a job, which is of no use afterwards."""
    began = last = time.perf_counter()
    seconds: list[float] = []
    with closing(prefetch(job.batches(0))) as batches:
        count = min(MOST_TRIED, job.num_steps)
        made = train(job.step_fn, batches, job.rate, first_step=0, last_step=count, batch_size=job.batch_size)
        for report in made:
            float(report.scalars["loss"])  # a GPU is waited for
            now = time.perf_counter()
            seconds.append(now - last)
            last = now
            if len(seconds) >= FEWEST_TRIED and now - began > TRYING:
                break
    return median(seconds[len(seconds) // 3 :])


def _try_stage(workspace: Workspace, stage: StageConfig, placement: Placement) -> tuple[Length, int]:
    """Return how long a stage lasts, from updates before and after the discriminator's entry, and its steps."""
    entries, names = workspace.read_pictures()
    data = describe_pictures(entries, names, workspace.config.data.held_out)
    sizes = [len(part) for part in split_held_out(entries, workspace.config.data.held_out)]
    num_steps, start = count_steps(stage, sizes[0], stage.batch_size), stage.discriminator_start
    start = 0.5 if start == "plateau" else start
    entry = min(num_steps, round(start * num_steps) if isinstance(start, float) else start)
    entry = entry if stage.weights.adversarial > 0 else num_steps
    updates = setup = 0.0
    for first, count in ((NEVER, entry), (0, num_steps - entry)):
        if count == 0:
            continue
        plain = {"steps": NEVER, "epochs": None, "discriminator_warmup": 0, "ramp": 0}
        began = time.perf_counter()
        tried = stage.model_copy(update=plain | {"discriminator_start": first})
        job = build_stage_job(workspace, tried, entries, data, placement)
        setup = time.perf_counter() - began
        updates += count * time_update(job)
    run, passes, began = workspace.config.vae.run, vae_passes(sizes[0], sizes[1]), time.perf_counter()
    job.evaluation.error(job.step_fn.ema.network)
    forward = (time.perf_counter() - began) / passes[0]
    updates += num_steps * forward * (passes[0] / run.evaluate_every + passes[3] / run.preview_every)
    return Length(updates, setup + sum(passes) * forward), num_steps


def _find(run: Path, kind: Kind) -> Checkpoint | None:
    """Return a run's newest checkpoint.

    Raises:
        UsageError: there are many processes, each of which would find another speed.
    """
    if not read_ranks().is_alone:
        msg = "--minutes is for one process."
        raise UsageError(msg, "Set the steps in the config; `latentart train` takes --max-time too.")
    return find_start(run, "auto", kind)


def _record_fitted(workspace: Workspace, changes: Mapping[str, Any], given: TimeGiven) -> Workspace:
    """Record what was fitted; say so where the time will not do."""
    if any(name.endswith(".steps") and value <= FEWEST for name, value in changes.items()):
        logger.warning("%.3g minutes are too few on this machine: they will be exceeded", given.minutes)
    return _record(workspace, changes, given.path, f"fitted to {given.minutes:.3g} minutes")


def _record(workspace: Workspace, changes: Mapping[str, Any], path: Path | None, reason: str) -> Workspace:
    """Write changed settings into the config's file, which is complete then, and return the workspace with them.

    Of many processes the first alone writes and speaks.

    Raises:
        ResourceError: the file cannot be written.
    """
    path = path or workspace.config_path
    workspace = replace(workspace, config=_changed(workspace.config, changes))
    if not read_ranks().is_first:
        return workspace
    try:
        write_lines(path, _changed(load_config(path), changes).to_text().splitlines())
    except OSError as error:
        msg = f"{path} cannot be written: {error.strerror or error}."
        raise ResourceError(msg, "Set the steps yourself, or check who may use that file.") from None
    steps = ", ".join(f"{name.removesuffix('.steps')} {n:,}" for name, n in changes.items() if name.endswith(".steps"))
    logger.info("%s, as %s says from now on: steps of %s", reason, path, steps)
    return workspace


def _changed(config: Config, changes: Mapping[str, Any]) -> Config:
    tree = config.to_json()
    for name, value in changes.items():
        tree = apply_override(tree, f"{name}={json.dumps(value)}")
    return Config.model_validate(tree)
