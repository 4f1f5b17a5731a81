"""`latentart train ldm`: the denoiser, from cached latents.

Launch: ``latentart train ldm`` in a workspace with a trained autoencoder; a tiny variant: ``latentart demo --quick``.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from latentart.builders import build_task, count_steps
from latentart.config.denoiser import advise
from latentart.data.held_out import split_held_out
from latentart.data.latent_cache import LatentCache
from latentart.data.loading import prefetch
from latentart.layout import Workspace
from latentart.model.averages import drop_averages, save_average
from latentart.model.folder import load_autoencoder, save_model, trained_steps
from latentart.model.labels import ids_in_cache, read_columns
from latentart.model.run_data import describe_latents, settle_data
from latentart.process.devices import Placement
from latentart.process.distributed import join_ranks, read_ranks
from latentart.process.limits import Limits
from latentart.process.progress import Progress
from latentart.storage.checkpoints import Checkpoint
from latentart.storage.disk import tensor_bytes
from latentart.training.build import build_ldm_step, build_rate_plan
from latentart.training.encode import encode
from latentart.training.ldm_batches import HeldOutLoss, LatentBatches, choose_micro_batch, load_latent_batches
from latentart.training.ldm_previews import PreviewPage
from latentart.training.ldm_verdict import LdmVerdict
from latentart.training.log import RunLog
from latentart.training.loop import train
from latentart.training.preflight import check_ldm_memory
from latentart.training.run import RunKeeper, open_run, record_run, require_disk
from latentart.training.steps.ldm_step import LdmBatch
from latentart.training.survival.agreement import Follower, Pause, heed_signals, require_same_start
from latentart.training.survival.recovery import train_or_go_back
from latentart.training.survival.resuming import Call, find_start, fitting, require_same_settings
from latentart.training.survival.writer import CheckpointWriter
from latentart.training.trackers import Trackers
from latentart.training.tracking import open_trackers


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
    """
    run, call, changes = workspace.ldm_run, call or Call(), list[str]()
    limits, ranks = Limits(call.max_seconds, call.max_steps), read_ranks()
    ranks.share_batch(workspace.config.ldm.training.batch_size, "ldm.training.batch_size")
    with (
        join_ranks(ranks, placement.device),
        open_run(run),
        open_trackers(run, workspace.config, "ldm") as trackers,
    ):
        checkpoint, data = find_start(run, call.resume, "ldm"), describe_latents(workspace)
        require_same_start(checkpoint.step if checkpoint else 0, run)
        if checkpoint is not None:
            saved, may_change = checkpoint.state["data"], call.may_change_data
            data, changes = settle_data(saved, data, run, may_change=may_change, may_grow=False)
            changes += require_same_settings(run, checkpoint, workspace.config, "ldm")
        cache = LatentCache.open(encode(workspace, placement, quiet=quiet))
        return train_or_go_back(
            run, lambda: LdmRun(workspace, cache, data, placement, limits, changes, trackers, quiet=quiet), checkpoint
        )


class LdmRun:
    """The denoiser's run, from where it stands to its end."""

    def __init__(
        self,
        workspace: Workspace,
        cache: LatentCache,
        data: dict[str, Any],
        placement: Placement,
        limits: Limits,
        changes: list[str],
        trackers: Trackers,
        *,
        quiet: bool,
    ) -> None:
        self.workspace, self.cache, self.data, self.quiet = workspace, cache, data, quiet
        self.ranks = read_ranks()
        self.limits, self.changes, self.trackers = limits, changes, trackers
        self.style_names: list[str] = data["style_names"]
        self.config, self.seed = workspace.config.ldm, workspace.config.seed
        self.settings = self.config.training
        self.run = workspace.ldm_run
        self.placement = Placement(placement.device, self.settings.run.precision)
        self.autoencoder = load_autoencoder(workspace, self.placement)
        entries, _ = workspace.read_pictures()
        self.columns = read_columns(data)
        self.counts = [len(self.style_names), *(len(column.values) for column in self.columns)]
        self.labels = ids_in_cache(cache, entries, self.style_names, self.columns)
        self.training, self.held_out = split_held_out(entries, workspace.config.data.held_out)
        self.num_steps = count_steps(self.settings, len(self.training), self.settings.batch_size)
        self.step_fn = build_ldm_step(
            self.config, self.cache.latent_shape[0], self.counts, self.num_steps, self.placement, self.seed
        )

    def train(self, checkpoint: Checkpoint | None) -> LdmResult:
        """Train to the end; leave checkpoints, previews and the model folder."""
        first = self._take(checkpoint)
        if not self.ranks.is_first:
            return self._follow(first)
        if first >= self.num_steps:
            if trained_steps(self.run / "model", "ldm") != first:  # cut short before the model was written
                self._save_model(first)
            return LdmResult(self.run / "model", is_new=False, preview=None)
        self._require_disk(first)
        record_run(self.run, self.workspace.config)
        drop_averages(self.run, after=first)
        log = RunLog(self.run, resume_step=first, trackers=self.trackers)
        log.note(f"denoiser: steps {first} to {self.num_steps}, {self.placement.precision}")
        for change in self.changes:
            log.note(change)
        if not self.ranks.is_alone:
            log.note(f"{self.ranks.world_size} processes, each with {self.share} images of a batch")
        if parts_note := self._choose_micro_batch():
            log.note(parts_note)
        if self.ranks.is_alone:
            check_ldm_memory(log, self.step_fn, self.cache.latent_shape, self.labels, self.settings.batch_size)
        held_out = self._build_held_out()
        if advice := advise(len(self.training), sum(p.numel() for p in self.step_fn.denoiser.parameters())):
            log.note(advice)
        run, page = self.settings.run, self._build_page()
        verdict = LdmVerdict(self.workspace, log, page, self.num_steps)
        with (
            Progress("ldm", self.num_steps, first, quiet=self.quiet) as progress,
            heed_signals() as stop,
            log.watch(),
            CheckpointWriter(self.run, run.keep_checkpoints) as writer,
            closing(prefetch(self._batches(first))) as batches,
        ):
            keeper = RunKeeper(run, log, progress, writer, stop, self.limits)
            for report in train(
                self.step_fn,
                batches,
                self.step_fn.numbers.scale(build_rate_plan(self.settings.optimizer, self.num_steps)),
                first_step=first,
                last_step=self.num_steps,
                batch_size=self.settings.batch_size,
            ):
                step, is_last = report.step, report.step == self.num_steps
                parts = self.step_fn.by_noise.take() if keeper.is_due(step, is_last=is_last) else {}
                keeper.report(report, self.settings.batch_size, at=step, is_last=is_last, **parts)
                if step % run.ema.snapshot_interval(self.num_steps) == 0 or is_last:
                    # before the checkpoint: a run that goes on from it lacks none
                    keeper.attempt(partial(self._save_averages, step))
                if keeper.wants_checkpoint(step, is_sound=self.step_fn.numbers.is_sound) or is_last:
                    self._save(keeper, step, is_last=is_last)
                if step % run.preview_every == 0 or is_last:
                    keeper.attempt(partial(page.draw, step))
                    log.picture(step, page.folder / f"step-{step:08d}.png")
                if held_out is not None and (step % run.evaluate_every == 0 or is_last):
                    log.metrics(step, **held_out(self.step_fn.ema.network))
                if not keeper.is_ending:
                    verdict.say(step)
                if keeper.is_ending and not is_last:
                    return LdmResult(self.run / "model", is_new=True, preview=page.last, pause=keeper.leave(step))
            writer.finish()
        log.note(f"the denoiser is finished at step {self.num_steps}")
        return LdmResult(self.run / "model", is_new=True, preview=page.last)

    def _follow(self, first: int) -> LdmResult:
        """Have a part in the training of the first process; nothing is written."""
        result = LdmResult(self.run / "model", is_new=first < self.num_steps, preview=None)
        if not result.is_new:
            return result
        self._choose_micro_batch()
        follower = Follower(self.step_fn, self.limits, self.run, self.settings.run.is_checkpoint_due)
        rate = build_rate_plan(self.settings.optimizer, self.num_steps)
        return replace(result, pause=follower.train(self._batches(first), rate, first, self.num_steps))

    @property
    def share(self) -> int:
        """How many images of a batch are this process's."""
        return self.ranks.share_batch(self.settings.batch_size, "ldm.training.batch_size")

    def _choose_micro_batch(self) -> str:
        wanted, shape = self.settings.micro_batch, self.cache.latent_shape
        return choose_micro_batch(self.step_fn, wanted, shape, self.labels, self.share)

    def _require_disk(self, first: int) -> None:
        """Refuse a run that its disk has no room for."""
        tensors, _ = self.step_fn.state()
        ema = self.settings.run.ema
        snapshots = self.num_steps // ema.snapshot_interval(self.num_steps) - first // ema.snapshot_interval(
            self.num_steps
        )
        averages = len(ema.tracks) * snapshots * tensor_bytes(tensors["ema"])
        autoencoder = tensor_bytes(self.autoencoder.autoencoder.state_dict())
        optimizers, more = [self.step_fn.optimizer], averages + autoencoder
        require_disk(self.run, self.settings.run, tensors, optimizers, last=self.num_steps, more=more)

    def _build_page(self) -> PreviewPage:
        return PreviewPage(
            self.run / "previews",
            self.autoencoder.autoencoder,
            self.cache.normalizer,
            self.step_fn,
            self.settings.resolution,
            self.style_names,
            self.workspace.config.sample,
        )

    def _build_held_out(self) -> HeldOutLoss | None:
        """Return what measures the loss on held-out pictures; None where a set is so small that none are."""
        if not self.held_out:
            return None
        return HeldOutLoss(
            self.cache,
            self.held_out,
            self.labels,
            self.step_fn.task,
            self.placement,
            seed=self.seed,
            batch_size=min(self.step_fn.micro_batch or self.share, self.share),
        )

    def _take(self, checkpoint: Checkpoint | None) -> int:
        """Take a checkpoint's weights and return the step to go on from."""
        if checkpoint is None:
            return 0
        with fitting(self.run):
            self.step_fn.restore(checkpoint.tensors, checkpoint.state["optimizers"])
        return checkpoint.step

    def _save(self, keeper: RunKeeper, step: int, *, is_last: bool) -> None:
        """Write a checkpoint and, from the average, the model that `sample` uses."""
        tensors, optimizers = self.step_fn.state()
        state = {"step": step, "optimizers": optimizers, "data": self.data, "config": self.workspace.config.to_json()}
        milestones = self.settings.run.milestones(0, step)
        keeper.agreement.save(lambda: keeper.writer.save(step, tensors, state, milestones))
        if is_last:
            self._save_model(step)
        else:
            keeper.attempt(partial(self._save_model, step))

    def _save_averages(self, step: int) -> None:
        for track in self.step_fn.tracks.values():
            save_average(self.run, step, track)

    def _save_model(self, step: int) -> None:
        networks = {"autoencoder": self.autoencoder.autoencoder, "denoiser": self.step_fn.ema.network}
        save_model(self.run / "model", self._about(step), networks)

    def _about(self, step: int) -> dict[str, Any]:
        normalizer = self.cache.normalizer
        training = {**self.autoencoder.about["training"], "ldm": {"step": step, "steps": self.num_steps}}
        return {
            **self.autoencoder.about,
            "resolution": self.settings.resolution,
            "latents": {"mean": list(normalizer.mean), "std": list(normalizer.std)},
            "style_names": self.style_names,
            **({"labels": [column.to_json() for column in self.columns]} if self.columns else {}),
            "denoiser": self.config.model.model_dump(mode="json"),
            "diffusion": self.config.diffusion.model_dump(mode="json"),
            "training": training,
        }

    def _batches(self, first: int) -> Iterator[LdmBatch]:
        """Yield the batches from step ``first`` on, on the device."""
        task, data, dropout = build_task(self.config.diffusion), self.workspace.config.data, self.settings.style_dropout
        given = (self.cache, self.labels, self.counts, task)
        return load_latent_batches(
            LatentBatches(*given, seed=self.seed, dropout=dropout, ranks=self.ranks),
            self.training,
            self.settings.batch_size,
            range(first, self.num_steps),
            self.placement,
            is_balanced=data.balance_styles,
            workers=data.workers,
        )
