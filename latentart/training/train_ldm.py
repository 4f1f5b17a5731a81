"""`latentart train ldm`: the denoiser, from cached latents.

Launch: ``latentart train ldm`` in a workspace with a trained autoencoder; a tiny variant: ``latentart demo --quick``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from latentart.config.denoiser import advise
from latentart.data.latent_cache import LatentCache
from latentart.errors import listed
from latentart.layout import Workspace
from latentart.model.averages import drop_averages, save_average
from latentart.model.folder import MODEL_FILE, save_model, trained_steps
from latentart.model.run_data import ADD, describe_latents, new_names, settle_data
from latentart.process.devices import Placement
from latentart.process.distributed import join_ranks, read_ranks
from latentart.process.limits import Limits
from latentart.storage.checkpoints import Checkpoint
from latentart.storage.disk import tensor_bytes
from latentart.storage.folders import read_json
from latentart.training.build import build_ldm_job, preview_settings
from latentart.training.encode import encode
from latentart.training.job import LdmJob, Start
from latentart.training.ldm_batches import HeldOutLoss, choose_micro_batch
from latentart.training.ldm_previews import PreviewPage
from latentart.training.log import RunLog
from latentart.training.loop import Pause, keep_run
from latentart.training.run import Session, open_log, open_run, open_trackers, record_run, require_disk
from latentart.training.steps.memory import ldm_shortage
from latentart.training.survival.other_starts import Origin, find_origin, read_origin, restore_with_room
from latentart.training.survival.recovery import train_or_go_back
from latentart.training.survival.resuming import (
    Call,
    find_start,
    fitting,
    require_no_leap,
    require_same_settings,
    require_same_start,
)
from latentart.training.verdicts import LdmVerdict


@dataclass(frozen=True)
class LdmResult:
    """Where the model lies, whether anything was left to train, the last page of previews; the pause at a limit."""

    model: Path
    is_new: bool
    preview: Path | None
    pause: Pause | None = None


def train_ldm(
    workspace: Workspace, placement: Placement, call: Call | None = None, *, quiet: bool = False
) -> LdmResult:
    """Train the denoiser from where the call wants it; encode first where the cache is missing or stale.

    Under `torchrun` every process has its part of each batch, and the first alone writes.

    Raises:
        ConfigError: the processes cannot share a batch evenly.
        UsageError: what the call wants would overwrite checkpoints.
        ModelError: there is no trained autoencoder, or a checkpoint does not fit.
        DataError: the pictures or their labels have changed since the run began, which the call does not allow or the
            denoiser has no room for; or there is no such label column.

    What it begins with or goes on from keeps the scale of the latents that its weights know.
    """
    run, call, changes = workspace.ldm_run, call or Call(), list[str]()
    limits, ranks, settings = Limits(call.max_seconds, call.max_steps), read_ranks(), workspace.config.to_json()
    ranks.share_batch(workspace.config.ldm.training.batch_size, "ldm.training.batch_size")
    with (
        join_ranks(ranks, placement.device),
        open_run(run, workspace.cache),
        open_trackers(run, settings, "ldm") as trackers,
    ):
        checkpoint, data = find_start(run, call.resume, "ldm"), describe_latents(workspace)
        require_same_start(checkpoint.step if checkpoint else 0, run)
        origin = None
        if checkpoint is not None:
            data, changes = _go_on_with(checkpoint.state["data"], data, run, call)
            changes += require_same_settings(run, checkpoint, settings, "ldm")
        if folder := find_origin(run, call.begin_with, checkpoint):
            origin = read_origin(folder, settings, data)
            data, changes = {**data, "latents": origin.latents}, [origin.note]
        cache = LatentCache.open(encode(workspace, placement, quiet=quiet))
        if "latents" in data:
            cache.scale_as(data["latents"])
        build = partial(build_ldm_job, workspace, cache, data, placement)
        session = Session(limits, trackers, changes, quiet)
        return train_or_go_back(run, build, partial(LdmTraining, workspace, session, origin), checkpoint)


def _go_on_with(
    saved: Mapping[str, Any], now: Mapping[str, Any], run: Path, call: Call
) -> tuple[dict[str, Any], list[str]]:
    """Return the data that a run goes on with, and in words what has changed."""
    if not call.adds_styles:
        return settle_data(saved, now, run, may_change=call.may_change_data, may_grow=False)
    data, changes = settle_data(saved, now, run, may_change=True, may_grow=True, option=ADD)
    if new := new_names(saved, now):
        changes.append(f"new rows, beside the null row: {listed(new, 10)}; the averages begin anew")
        if "latents" not in data and (run / "model").is_dir():
            data["latents"] = read_json(run / "model" / MODEL_FILE)["latents"]
    return data, changes


@dataclass(frozen=True)
class LdmTraining:
    """The denoiser's job in its workspace, from where it stands to its end."""

    workspace: Workspace
    session: Session
    origin: Origin | None
    job: LdmJob

    def train(self, checkpoint: Checkpoint | None) -> LdmResult:
        """Train to the end; leave checkpoints, previews and the model folder."""
        job, run, is_first = self.job, self.workspace.ldm_run, read_ranks().is_first
        settings = self.workspace.config.ldm.training.run
        first = self._take(checkpoint)
        if first >= job.num_steps:
            if is_first and trained_steps(run / "model", "ldm") != first:  # cut short before the model was written
                self._save_model(first)
            return LdmResult(run / "model", is_new=False, preview=None)
        if is_first:
            self._prepare_run(first)
        log = self._open_log(first)
        held_out, page = self._build_held_out() if is_first else None, self._build_page()
        verdict = LdmVerdict(self.workspace, log, page, job.num_steps)
        snapshots = settings.ema.snapshot_interval(job.num_steps)
        with keep_run(run, job, Start(first), log, self.session.limits, quiet=self.session.quiet) as keeper:
            for moment in keeper.steps():
                if moment.is_due(snapshots):  # before the checkpoint: a run that goes on from it lacks none
                    keeper.attempt(partial(self._save_averages, moment.step))
                is_saved = keeper.save_if_due(moment)
                if not is_first:
                    continue
                has_one = is_saved and keeper.writer.has_one()
                if moment.is_last:
                    self._save_model(moment.step)
                elif has_one:
                    keeper.attempt(partial(self._save_model, moment.step))
                if moment.is_due(settings.preview_every):
                    keeper.attempt(partial(page.draw, moment.step))
                    log.picture(moment.step, page.path(moment.step))
                if held_out is not None and moment.is_due(settings.evaluate_every):
                    log.metrics(moment.step, **held_out(job.step_fn.ema.network))
                if not keeper.is_ending:
                    verdict.say(moment.step)
        if keeper.pause is None:
            log.note(f"the denoiser is finished at step {job.num_steps}")
        return LdmResult(run / "model", is_new=True, preview=page.last, pause=keeper.pause)

    def _take(self, checkpoint: Checkpoint | None) -> int:
        """Take the weights of a checkpoint, or of the model to begin with, and return the step to go on from."""
        if checkpoint is None:
            if self.origin is not None:
                self.origin.begin(self.job.step_fn)
            return 0
        with fitting(self.workspace.ldm_run):
            restore_with_room(self.job.step_fn, checkpoint, self.job.saved["data"])
        if checkpoint.step < self.job.num_steps:
            peak = self.workspace.config.ldm.training.optimizer.lr
            require_no_leap(self.workspace.ldm_run, checkpoint, self.job.rate, peak, checkpoint.step)
        return checkpoint.step

    def _prepare_run(self, first: int) -> None:
        """Refuse a run that its disk has no room for, and make the folder ready for the steps after ``first``."""
        job, settings = self.job, self.workspace.config.ldm.training.run
        tensors, _ = job.step_fn.state()
        every = settings.ema.snapshot_interval(job.num_steps)
        averages = len(settings.ema.tracks) * (job.num_steps // every - first // every) * tensor_bytes(tensors["ema"])
        more = averages + tensor_bytes(job.autoencoder.autoencoder.state_dict())
        run, optimizers = self.workspace.ldm_run, [job.step_fn.optimizer]
        require_disk(run, settings, tensors, optimizers, last=job.num_steps, more=more)
        record_run(run, self.workspace.config.to_json())
        if self.origin is not None and not first:
            self.origin.write_note(run)
        drop_averages(run, after=first)

    def _open_log(self, first: int) -> RunLog:
        """Return the run's log, begun with what there is to say before the first step."""
        job, ranks, size = self.job, read_ranks(), self.job.batch_size
        title = f"denoiser: steps {first} to {job.num_steps}, {job.placement.precision}"
        log = open_log(self.workspace.ldm_run, first, self.session, title)
        notes = [] if ranks.is_alone else [f"{ranks.world_size} processes, each with {self._share} images of a batch"]
        is_tried = self.workspace.config.ldm.training.micro_batch == "auto"
        given = (job.step_fn, job.cache.latent_shape, job.labels)
        notes.append(choose_micro_batch(*given, self._share, is_tried=is_tried))
        notes.append(ldm_shortage(*given, size) if ranks.is_alone else "")
        notes.append(advise(job.num_pictures, sum(p.numel() for p in job.step_fn.denoiser.parameters())))
        for note in filter(None, notes):
            log.note(note)
        return log

    @property
    def _share(self) -> int:
        """How many images of a batch are this process's."""
        return read_ranks().share_batch(self.job.batch_size, "ldm.training.batch_size")

    def _build_page(self) -> PreviewPage:
        job, config = self.job, self.workspace.config
        return PreviewPage(
            self.workspace.ldm_run / "previews",
            job.autoencoder.autoencoder,
            job.cache.normalizer,
            job.step_fn,
            config.ldm.training.resolution,
            job.style_names,
            preview_settings(config.sample),
        )

    def _build_held_out(self) -> HeldOutLoss | None:
        """Return what measures the loss on held-out pictures; None where a set is so small that none are."""
        job = self.job
        if not job.held_out:
            return None
        return HeldOutLoss(
            job.cache,
            job.held_out,
            job.labels,
            job.step_fn.task,
            job.placement,
            seed=self.workspace.config.seed,
            batch_size=min(job.step_fn.micro_batch or self._share, self._share),
        )

    def _save_averages(self, step: int) -> None:
        for track in self.job.step_fn.tracks.values():
            save_average(self.workspace.ldm_run, step, track, self.job.step_fn.averages_from)

    def _save_model(self, step: int) -> None:
        """Write, from the average, the model that `sample` uses."""
        networks = {"autoencoder": self.job.autoencoder.autoencoder, "denoiser": self.job.step_fn.ema.network}
        save_model(self.workspace.ldm_run / "model", self._about(step), networks)

    def _about(self, step: int) -> dict[str, Any]:
        job, config = self.job, self.workspace.config.ldm
        former, normalizer = job.autoencoder.about, job.cache.normalizer
        return {
            **former,
            "resolution": config.training.resolution,
            "latents": {"mean": list(normalizer.mean), "std": list(normalizer.std)},
            "style_names": job.style_names,
            **({"labels": [column.to_json() for column in job.columns]} if job.columns else {}),
            "denoiser": config.model.model_dump(mode="json"),
            "diffusion": config.diffusion.model_dump(mode="json"),
            "training": {**former["training"], "ldm": {"step": step, "steps": job.num_steps}},
        }
