"""`latentart find-lr`: the range test of the learning rate on the real pictures; no run is touched."""

from __future__ import annotations

import contextlib
import logging
import math
from collections.abc import Iterator
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

from latentart.config.vae import StageConfig
from latentart.data.latent_cache import LatentCache
from latentart.data.loading import prefetch
from latentart.data.pictures.figures import new_figure, save_figure
from latentart.layout import Workspace
from latentart.model.run_data import describe_latents, describe_pictures
from latentart.process.devices import Placement
from latentart.process.progress import Progress
from latentart.storage.checkpoints import checkpoint_folder, find_checkpoint, load_checkpoint
from latentart.training.build import build_ldm_job, build_stage_job, require_perceptual_weights
from latentart.training.encode import encode
from latentart.training.job import Job, StageJob
from latentart.training.stages import choose_stages, former_stage, require_former_stage, stages_done
from latentart.training.steps.range_test import RangeResult, range_test, sweep_rates

Batch = TypeVar("Batch")


@dataclass(frozen=True)
class Sweep:
    """From which rate to which, and in how many steps."""

    low: float = 1e-7
    high: float = 10.0
    steps: int = 200


def find_vae_rate(
    workspace: Workspace, stage_name: str | None, placement: Placement, sweep: Sweep, *, quiet: bool
) -> tuple[RangeResult, StageConfig]:
    """Test the rate on a stage of the autoencoder, by default the first: its loss without the adversarial term.

    A later stage starts from the weights that the one before it ended with, the first from fresh ones. LPIPS has its
    whole weight from the first step.

    Raises:
        UsageError: no such stage.
        ModelError: the stage before it is not finished.
        DataError: there are no clean pictures.
        DownloadError: the stage needs LPIPS weights that are not here.
    """
    config = workspace.config.vae
    stage = choose_stages(config.stages, stage_name or config.stages[0].name)[0]
    workspace.name_outside("vae.perceptual.weights")
    require_perceptual_weights(config, [stage])
    entries, names = workspace.read_pictures()
    data = describe_pictures(entries, names, workspace.config.data.held_out)
    weights = stage.weights.model_copy(update={"adversarial": 0.0})
    tested = stage.model_copy(update={"weights": weights, "ramp": 0, "steps": sweep.steps, "epochs": None})
    job = build_stage_job(_with_stage(workspace, tested), tested, entries, data, placement)
    if former_stage(config.stages, stage) is not None:
        _start_from_former(workspace, stage, job)
    return _test(job, sweep, f"find-lr vae {stage.name}", quiet=quiet), stage


def find_ldm_rate(workspace: Workspace, placement: Placement, sweep: Sweep, *, quiet: bool) -> RangeResult:
    """Test the rate on the denoiser with fresh weights; encodes first where the cache is missing, as training does.

    Raises:
        ModelError: there is no trained autoencoder.
        DataError: there are no clean pictures.
    """
    data = describe_latents(workspace)
    cache = LatentCache.open(encode(workspace, placement, quiet=quiet))
    training = workspace.config.ldm.training.model_copy(update={"steps": sweep.steps, "epochs": None})
    ldm = workspace.config.ldm.model_copy(update={"training": training})
    tested = Workspace(workspace.folder, workspace.config.model_copy(update={"ldm": ldm}))
    job = build_ldm_job(tested, cache, data, placement)
    return _test(job, sweep, "find-lr ldm", quiet=quiet)


def _with_stage(workspace: Workspace, stage: StageConfig) -> Workspace:
    stages = tuple(stage if other.name == stage.name else other for other in workspace.config.vae.stages)
    vae = workspace.config.vae.model_copy(update={"stages": stages})
    return Workspace(workspace.folder, workspace.config.model_copy(update={"vae": vae}))


def _start_from_former(workspace: Workspace, stage: StageConfig, job: StageJob) -> None:
    """Give a stage the weights that it goes on from; the checkpoint is only read."""
    stages, newest = workspace.config.vae.stages, find_checkpoint(workspace.vae_run)
    require_former_stage(workspace.vae_run, stages, stage, newest, "test its first stage")
    former = former_stage(stages, stage)
    assert former is not None
    assert newest is not None
    folder = checkpoint_folder(workspace.vae_run, stages_done(newest)[former.name])
    checkpoint = load_checkpoint(folder) if folder.is_dir() else newest
    job.step_fn.start_from(
        checkpoint.tensors,
        checkpoint.state["optimizers"],
        from_average=stage.start_from == "ema",
        keep_optimizer=stage.keep_optimizer,
        keep_discriminator=False,
    )


def _test(job: Job[Batch], sweep: Sweep, label: str, *, quiet: bool) -> RangeResult:
    with (
        Progress(label, sweep.steps, quiet=quiet) as progress,
        _without_warnings("latentart.training.steps.numbers"),  # that a loss explodes is what is looked for
        closing(prefetch(job.batches(0))) as ahead,
    ):

        def step(i: int, lr: float) -> float:
            loss = float(job.step_fn(next(ahead), i, lr)["loss"])
            progress.update(i + 1, loss=loss)
            return loss

        return range_test(step, sweep_rates(sweep.low, sweep.high, sweep.steps))


@contextlib.contextmanager
def _without_warnings(name: str) -> Iterator[None]:
    noisy = logging.getLogger(name)
    before = noisy.level
    noisy.setLevel(logging.ERROR)
    try:
        yield
    finally:
        noisy.setLevel(before)


def draw_range(result: RangeResult, title: str, path: Path) -> None:
    """Write the curve: the loss over the rate, smoothed and as it was, with both places marked."""
    rates = [point.lr for point in result.points]
    with new_figure(7.0, 3.6) as figure:
        axes = figure.subplots()
        axes.plot(rates, [point.loss for point in result.points], color="C0", alpha=0.3, linewidth=1, label="loss")
        axes.plot(rates, [point.smoothed for point in result.points], color="C0", linewidth=1.6, label="smoothed")
        for name, lr, color in (("steepest", result.steepest, "C2"), ("peak", result.peak, "C3")):
            if lr is not None:
                axes.axvline(lr, color=color, linewidth=1, linestyle="--", label=f"{name}: {lr:.1e}")
        smoothed = [point.smoothed for point in result.points]
        best, first = min(smoothed), smoothed[0]
        top = max(first, best) + 0.35 * (max(first, best) - min(0.9 * best, best)) or 1.0
        axes.set(title=title, xlabel="learning rate", ylabel="loss", xscale="log")
        if math.isfinite(top) and top > best:
            axes.set_ylim(best - 0.1 * (top - best), top)
        axes.legend(frameon=False, fontsize=8)
        save_figure(figure, path)


def describe_range(result: RangeResult, setting: str) -> dict[str, Any]:
    """Return everything that was found, as plain values."""
    return {
        "setting": setting,
        "peak": result.peak,
        "steepest": result.steepest,
        "lowest": result.lowest,
        "has_diverged": result.has_diverged,
        "points": [asdict(point) for point in result.points],
    }
