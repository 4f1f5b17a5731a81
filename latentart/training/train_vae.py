"""`latentart train vae`: the autoencoder in stages, each a value in the config.

Launch: ``latentart train vae`` in a workspace; a tiny variant on a CPU: ``latentart demo --quick``.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from latentart.builders import count_steps
from latentart.config.vae import StageConfig
from latentart.data.index import IndexEntry
from latentart.data.loading import prefetch
from latentart.layout import Workspace
from latentart.model.folder import save_model
from latentart.model.run_data import describe_pictures, settle_data
from latentart.process.devices import Placement
from latentart.process.distributed import join_ranks, read_ranks, wait_for_all
from latentart.process.limits import Limits
from latentart.process.memory import naming_stage
from latentart.process.progress import Progress
from latentart.scoring.reconstructions import Evaluation, VaeScores, find_perceptual
from latentart.storage.checkpoints import Checkpoint, find_checkpoint
from latentart.training.build import build_rate_plan, build_vae_step
from latentart.training.log import RunLog
from latentart.training.loop import train
from latentart.training.preflight import check_vae_memory
from latentart.training.run import RunKeeper, open_run, record_run, require_disk
from latentart.training.stages import (
    choose_stages,
    is_model_behind,
    require_former_stage,
    require_perceptual_weights,
    stages_done,
)
from latentart.training.steps.vae_step import VaeBatch, VaeStep
from latentart.training.survival.agreement import Follower, Pause, agree_on_limit, heed_signals, require_same_start
from latentart.training.survival.recovery import train_or_go_back
from latentart.training.survival.resuming import Call, find_start, fitting, require_same_settings
from latentart.training.survival.writer import CheckpointWriter
from latentart.training.trackers import Trackers
from latentart.training.tracking import open_trackers
from latentart.training.vae_batches import VaeBatches
from latentart.training.vae_verdict import VaeVerdict

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class VaeResult:
    """Where the trained autoencoder lies; ``stages`` are those that were finished now, ``pause`` is one at a limit."""

    model: Path
    stages: list[str]
    scores: VaeScores | None
    preview: Path | None
    pause: Pause | None = None


def train_vae(
    workspace: Workspace, stage_name: str, placement: Placement, call: Call | None = None, *, quiet: bool = False
) -> VaeResult:
    """Train one stage, or all that are left, from where the call wants it.

    Under `torchrun` every process has its part of each batch, and the first alone writes.

    Raises:
        ConfigError: the processes cannot share a batch evenly.
        UsageError: no such stage, or what the call wants would overwrite checkpoints.
        ModelError: the stage before it is not finished, or a checkpoint does not fit.
        DataError: the pictures have changed since the run began, which the call does not allow.
        DownloadError: a stage needs LPIPS weights that are not here.
    """
    stages = choose_stages(workspace, stage_name)
    entries, style_names = workspace.read_pictures()
    run = workspace.vae_run
    call = call or Call()
    limits, ranks = Limits(call.max_seconds, call.max_steps), read_ranks()
    for stage in stages:
        ranks.share_batch(stage.batch_size, f"vae.stages.{stage.name}.batch_size")
    with (
        join_ranks(ranks, placement.device),
        open_run(run),
        open_trackers(run, workspace.config, "vae") as trackers,
    ):
        checkpoint = find_start(run, call.resume, "vae")
        require_same_start(checkpoint.step if checkpoint else 0, run)
        done = stages_done(checkpoint)
        require_perceptual_weights(workspace, [stage for stage in stages if stage.name not in done])
        data = describe_pictures(entries, style_names, workspace.config.data.held_out)
        trained: list[str] = []
        result = VaeResult(run / "model", [], None, None)
        for stage in stages:
            changes: list[str] = []
            if checkpoint is not None:
                saved, may_change = checkpoint.state["data"], call.may_change_data
                data, changes = settle_data(saved, data, run, may_change=may_change, may_grow=True)
                changes += require_same_settings(run, checkpoint, workspace.config, "vae")
            if stage.name in stages_done(checkpoint) and not is_model_behind(run, stage, checkpoint):
                logger.info("stage %s is finished", stage.name)
                continue
            require_former_stage(workspace, stage, checkpoint)
            if checkpoint is not None and trained and (limit := agree_on_limit(limits)):
                result = replace(result, pause=Pause(checkpoint.step, limit))
                break
            given = (workspace, stage, entries, data, placement, limits, changes, trackers)
            build = partial(StageRun, *given, quiet=quiet)
            with naming_stage(stage.name):
                result = train_or_go_back(run, build, checkpoint)
            if result.pause:
                break
            trained.append(stage.name)
            wait_for_all()  # until the first process has written what the next stage begins from
            checkpoint = find_checkpoint(run)
    return replace(result, stages=trained)


class StageRun:
    """One stage, from where it stands to its end."""

    def __init__(
        self,
        workspace: Workspace,
        stage: StageConfig,
        entries: list[IndexEntry],
        data: dict[str, Any],
        placement: Placement,
        limits: Limits,
        changes: list[str],
        trackers: Trackers,
        *,
        quiet: bool,
    ) -> None:
        self.limits, self.changes, self.trackers, self.ranks = limits, changes, trackers, read_ranks()
        self.workspace, self.stage, self.entries, self.data = workspace, stage, entries, data
        self.config, self.seed = workspace.config.vae, workspace.config.seed
        self.placement, self.quiet = Placement(placement.device, self.config.run.precision), quiet
        self.run = workspace.vae_run
        self.evaluation = Evaluation(workspace, entries, data["style_names"], stage.resolution, self.placement)
        self.num_steps = count_steps(stage, len(self.evaluation.training), stage.batch_size)
        self.step_fn = build_vae_step(self.config, stage, self.num_steps, self.placement, self.seed)

    def train(self, checkpoint: Checkpoint | None) -> VaeResult:
        """Train to the end of the stage; leave checkpoints, previews and the model folder."""
        with fitting(self.run):
            first, base, done = self._take(checkpoint)
        self.step_fn.numbers.steps_before = base
        if not self.ranks.is_first:
            return self._follow(first, base)
        self._require_disk(base, done)
        record_run(self.run, self.workspace.config)
        log = RunLog(self.run, resume_step=base + first, trackers=self.trackers)
        log.note(f"stage {self.stage.name}: steps {first} to {self.num_steps}, {self.placement.precision}")
        for change in self.changes:
            log.note(change)
        announce_discriminator(log, self.step_fn, self.num_steps)
        if self.ranks.is_alone:
            check_vae_memory(log, self.step_fn, self.stage.name, self.stage.resolution, self.stage.batch_size)
        run, verdict = self.config.run, VaeVerdict(self.evaluation, self.run, log, self.stage.name, self.num_steps)
        with (
            Progress(f"vae {self.stage.name}", self.num_steps, first, quiet=self.quiet) as progress,
            heed_signals() as stop,
            log.watch(),
            CheckpointWriter(self.run, run.keep_checkpoints) as writer,
            closing(prefetch(self._batches(first))) as batches,
        ):
            keeper = RunKeeper(run, log, progress, writer, stop, self.limits)
            for report in train(
                self.step_fn,
                batches,
                self.step_fn.numbers.scale(build_rate_plan(self.config.optimizer, self.num_steps, self.stage.lr)),
                first_step=first,
                last_step=self.num_steps,
                batch_size=self.stage.batch_size,
            ):
                step, is_last = base + report.step, report.step == self.num_steps
                keeper.report(report, self.stage.batch_size, at=step, is_last=is_last, stage=self.stage.name)
                self._tell(log, step)
                if is_last:
                    break
                if keeper.wants_checkpoint(step, is_sound=self.step_fn.numbers.is_sound):
                    self._save(keeper, report.step, base, done)
                if step % run.preview_every == 0:
                    keeper.attempt(partial(self._preview, step))
                    log.picture(step, self.run / "previews" / f"step-{step:08d}.png")
                if step % run.evaluate_every == 0:
                    error = self.evaluation.error(self.step_fn.ema.network)
                    log.metrics(step, stage=self.stage.name, held_out_reconstruction=error)
                if step % run.preview_every == 0:
                    verdict.say(step)
                if keeper.is_ending:
                    return VaeResult(self.run / "model", [], None, None, keeper.leave(step))
            # a stage that was shortened below where it stands is finished too
            last = max(first, self.num_steps)
            self._save(keeper, last, base, {**done, self.stage.name: base + last})
            writer.finish()
            keeper.leave_if_stopped(base + last)
        return self._finish(base + last, log)

    def _follow(self, first: int, base: int) -> VaeResult:
        """Have a part in the training of the first process; nothing is written."""
        follower = Follower(self.step_fn, self.limits, self.run, self.config.run.is_checkpoint_due, base, is_stage=True)
        rate = build_rate_plan(self.config.optimizer, self.num_steps, self.stage.lr)
        pause = follower.train(self._batches(first), rate, first, self.num_steps)
        return VaeResult(self.run / "model", [self.stage.name], None, None, pause)

    def _require_disk(self, base: int, done: dict[str, int]) -> None:
        """Refuse a stage that its disk has no room for."""
        optimizers = [self.step_fn.optimizer]
        if self.step_fn.adversary is not None:
            optimizers.append(self.step_fn.adversary.optimizer)
        last, staying = base + self.num_steps, done.values()
        require_disk(self.run, self.config.run, self.step_fn.state()[0], optimizers, last=last, staying=staying)

    def _tell(self, log: RunLog, step: int) -> None:
        """Put into the log what the step has to say."""
        for note in self.step_fn.notes:
            log.note(f"step {step}: {note}")
        self.step_fn.notes.clear()

    def _take(self, checkpoint: Checkpoint | None) -> tuple[int, int, dict[str, int]]:
        """Take a checkpoint's weights; return this stage's first step, the run's step before it, and what is done."""
        if checkpoint is None:
            return 0, 0, {}
        state = checkpoint.state
        if state["stage"] == self.stage.name:
            self.step_fn.restore(checkpoint.tensors, state["optimizers"])
            return state["stage_step"], state["step"] - state["stage_step"], state["stages_done"]
        self.step_fn.start_from(
            checkpoint.tensors,
            state["optimizers"],
            from_average=self.stage.start_from == "ema",
            keep_optimizer=self.stage.keep_optimizer,
            keep_discriminator=self.stage.keep_discriminator,
        )
        return 0, state["step"], state["stages_done"]

    def _save(self, keeper: RunKeeper, stage_step: int, base: int, done: dict[str, int]) -> None:
        tensors, optimizers = self.step_fn.state()
        state = {
            "step": base + stage_step,
            "stage": self.stage.name,
            "stage_step": stage_step,
            "stages_done": done,
            "optimizers": optimizers,
            "data": self.data,
            "config": self.workspace.config.to_json(),
        }
        step = base + stage_step
        milestones = {*done.values(), *self.config.run.milestones(0, step)}
        keeper.agreement.save(lambda: keeper.writer.save(step, tensors, state, milestones))

    def _batches(self, first: int) -> Iterator[VaeBatch]:
        """Yield the stage's batches from step ``first`` on, on the device."""
        pictures = [self.entries[i] for i in self.evaluation.training]
        batches = VaeBatches(self.workspace, self.stage, pictures, self.data["style_names"], self.ranks)
        return batches.load(range(first, self.num_steps), self.placement, self.evaluation.training)

    def _preview(self, step: int) -> Path:
        """Write a page of pictures over their reconstructions by the averaged weights."""
        path = self.run / "previews" / f"step-{step:08d}.png"
        self.evaluation.preview(self.step_fn.ema.network, path)
        return path

    def _finish(self, step: int, log: RunLog) -> VaeResult:
        """Measure, preview and write the model folder."""
        network = self.step_fn.ema.network
        preview = self._preview(step)
        log.picture(step, preview)
        normalizer = self.evaluation.measure(network).normalizer()
        chosen = self.config.perceptual
        perceptual = None if chosen.backbone == "random" else self.step_fn.perceptual
        perceptual = perceptual or find_perceptual(chosen.backbone, chosen.weights, self.placement)
        scores = self.evaluation.score(network, perceptual)
        about = {
            "autoencoder": self.config.model.model_dump(mode="json"),
            "uses_tanh": self.stage.tanh,
            "resolution": self.stage.resolution,
            "latents": {"mean": list(normalizer.mean), "std": list(normalizer.std)},
            "style_names": self.data["style_names"],
            "denoiser": None,
            "diffusion": None,
            "training": {"vae": {"step": step, "stage": self.stage.name, **scores.to_json()}},
        }
        save_model(self.run / "model", about, {"autoencoder": network})
        error = self.evaluation.error(network)
        log.metrics(step, stage=self.stage.name, held_out_reconstruction=error, **scores.to_json())
        spread = ", ".join(f"{value:.2f}" for value in normalizer.std)
        log.note(f"stage {self.stage.name} is finished: {scores}; latent std per channel {spread}")
        return VaeResult(self.run / "model", [self.stage.name], scores, preview)


def announce_discriminator(log: RunLog, step: VaeStep, num_steps: int) -> None:
    """Say when the adversarial term will come in, as far as that is known, and whether the stage is long enough."""
    entry = step.adversary.schedule.first_influence() if step.adversary and step.terms.adversarial > 0 else None
    if entry is None:
        return
    if entry >= num_steps:
        log.note("the discriminator moves nothing in this stage: its start and warm-up lie beyond the last step")
    else:
        log.note(f"the discriminator moves the autoencoder from step {entry + 1} of this stage on")
