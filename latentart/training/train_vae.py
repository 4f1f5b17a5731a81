"""`latentart train vae`: the autoencoder in stages, each a value in the config.

Launch: ``latentart train vae`` in a workspace; a tiny variant on a CPU: ``latentart demo --quick``.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from latentart.builders import count_steps
from latentart.config.vae import StageConfig
from latentart.data.held_out import split_held_out
from latentart.layout import Workspace
from latentart.model.description import describe_autoencoder
from latentart.model.folder import autoencoder_config, imported_from, save_model
from latentart.model.run_data import describe_pictures, settle_data
from latentart.process.devices import Placement
from latentart.process.distributed import join_ranks, read_ranks, wait_for_all
from latentart.process.limits import Limits
from latentart.process.memory import naming_stage
from latentart.scoring.reconstructions import VaeScores, find_perceptual
from latentart.storage.checkpoints import Checkpoint, find_checkpoint
from latentart.training.build import build_stage_job, require_perceptual_weights
from latentart.training.job import StageJob, Start
from latentart.training.log import RunLog
from latentart.training.loop import Pause, agree_on_limit, keep_run
from latentart.training.run import Session, open_log, open_run, open_trackers, record_run, require_disk
from latentart.training.stages import choose_stages, is_done, require_former_stage, stages_done
from latentart.training.steps.memory import vae_shortage
from latentart.training.survival.recovery import train_or_go_back
from latentart.training.survival.resuming import (
    Call,
    find_start,
    fitting,
    require_no_leap,
    require_same_settings,
    require_same_start,
)
from latentart.training.verdicts import VaeVerdict

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
    config, settings = workspace.config.vae, workspace.config.to_json()
    stages = choose_stages(config.stages, stage_name)
    entries, style_names = workspace.read_pictures()
    run = workspace.vae_run
    call = call or Call()
    limits, ranks = Limits(call.max_seconds, call.max_steps), read_ranks()
    for stage in stages:
        ranks.share_batch(stage.batch_size, f"vae.stages.{stage.name}.batch_size")
    with (
        join_ranks(ranks, placement.device),
        open_run(run),
        open_trackers(run, settings, "vae") as trackers,
    ):
        checkpoint = find_start(run, call.resume, "vae")
        require_same_start(checkpoint.step if checkpoint else 0, run)
        done = stages_done(checkpoint)
        workspace.name_outside("vae.perceptual.weights")
        require_perceptual_weights(config, [stage for stage in stages if stage.name not in done])
        data = describe_pictures(entries, style_names, workspace.config.data.held_out)
        num_pictures = len(split_held_out(entries, workspace.config.data.held_out)[0])
        trained: list[str] = []
        result = VaeResult(run / "model", [], None, None)
        for stage in stages:
            changes: list[str] = []
            if checkpoint is not None:
                saved, may_change = checkpoint.state["data"], call.may_change_data
                data, changes = settle_data(saved, data, run, may_change=may_change, may_grow=True)
                changes += require_same_settings(run, checkpoint, settings, "vae")
            if is_done(run, stage, checkpoint, num_steps := count_steps(stage, num_pictures, stage.batch_size)):
                logger.info("stage %s is finished%s", stage.name, _say_longer(stage, checkpoint, num_steps))
                continue
            require_former_stage(run, config.stages, stage, checkpoint)
            if checkpoint is not None and trained and (limit := agree_on_limit(limits)):
                result = replace(result, pause=Pause(checkpoint.step, limit))
                break
            session = Session(limits, trackers, changes, quiet)
            build = partial(build_stage_job, workspace, stage, entries, data, placement)
            with naming_stage(stage.name):
                result = train_or_go_back(run, build, partial(StageTraining, workspace, stage, session), checkpoint)
            if result.pause:
                break
            trained.append(stage.name)
            wait_for_all()  # until the first process has written what the next stage begins from
            checkpoint = find_checkpoint(run)
    return replace(result, stages=trained)


def _say_longer(stage: StageConfig, checkpoint: Checkpoint | None, num_steps: int) -> str:
    """Return what makes the stage that was finished last as long as its config now has it."""
    if checkpoint is None or checkpoint.state["stage"] != stage.name or checkpoint.state["stage_step"] >= num_steps:
        return ""
    own = checkpoint.state["stage_step"]
    return f" at step {own} of {num_steps}; vae.stages.{stage.name}.new_cycle_at={own} makes it longer"


@dataclass(frozen=True)
class StageTraining:
    """One stage's job in its workspace, from where it stands to its end."""

    workspace: Workspace
    stage: StageConfig
    session: Session
    job: StageJob

    def train(self, checkpoint: Checkpoint | None) -> VaeResult:
        """Train to the end of the stage; leave checkpoints, previews and the model folder."""
        job, run, name, is_first = self.job, self.workspace.vae_run, self.stage.name, read_ranks().is_first
        settings = self.workspace.config.vae.run
        with fitting(run):
            start = self._take(checkpoint)
        if checkpoint is not None and start.first < job.num_steps:
            require_no_leap(
                run, checkpoint, job.rate, self.stage.lr or self.workspace.config.vae.optimizer.lr, start.first
            )
        job.step_fn.numbers.steps_before = start.base
        if is_first:
            self._prepare_run(start)
        log = self._open_log(start)
        verdict = VaeVerdict(job, run, log)
        with keep_run(run, job, start, log, self.session.limits, quiet=self.session.quiet) as keeper:
            for moment in keeper.steps():
                if moment.is_last:
                    break
                keeper.save_if_due(moment)
                if not is_first:
                    continue
                if moment.is_due(settings.preview_every):
                    keeper.attempt(partial(self._preview, moment.step))
                    log.picture(moment.step, self._page(moment.step))
                if moment.is_due(settings.evaluate_every):
                    log.metrics(moment.step, stage=name, held_out_reconstruction=job.held_out_error())
                if moment.is_due(settings.preview_every):
                    verdict.say(moment.step)
            if keeper.pause is not None:
                return VaeResult(run / "model", [], None, None, keeper.pause)
            # a stage that was shortened below where it stands is finished too
            last = max(start.first, job.num_steps)
            keeper.save(last)
            keeper.leave_if_stopped(start.base + last)
        if not is_first:
            return VaeResult(run / "model", [name], None, None)
        result = self._finish(start.base + last, log)
        verdict.say(start.base + last)
        return result

    def _take(self, checkpoint: Checkpoint | None) -> Start:
        """Take a checkpoint's weights, and return where the stage stands."""
        if checkpoint is None:
            return Start()
        state, step_fn = checkpoint.state, self.job.step_fn
        if state["stage"] == self.stage.name:
            step_fn.restore(checkpoint.tensors, state["optimizers"])
            return Start(state["stage_step"], state["step"] - state["stage_step"], state["stages_done"])
        step_fn.start_from(
            checkpoint.tensors,
            state["optimizers"],
            from_average=self.stage.start_from == "ema",
            keep_optimizer=self.stage.keep_optimizer,
            keep_discriminator=self.stage.keep_discriminator,
        )
        return Start(0, state["step"], state["stages_done"])

    def _prepare_run(self, start: Start) -> None:
        """Refuse a stage that its disk has no room for; write down its settings."""
        step_fn, run, config = self.job.step_fn, self.workspace.vae_run, self.workspace.config
        optimizers = [step_fn.optimizer, *([step_fn.adversary.optimizer] if step_fn.adversary else [])]
        last, staying = start.base + self.job.num_steps, start.done.values()
        require_disk(run, config.vae.run, step_fn.state()[0], optimizers, last=last, staying=staying)
        record_run(run, config.to_json())

    def _open_log(self, start: Start) -> RunLog:
        """Return the run's log, begun with what there is to say before the first step."""
        job, stage, step_fn = self.job, self.stage, self.job.step_fn
        title = f"stage {stage.name}: steps {start.first} to {job.num_steps}, {job.placement.precision}"
        log = open_log(self.workspace.vae_run, start.base + start.first, self.session, title)
        adversary = step_fn.adversary if step_fn.terms.adversarial > 0 else None
        notes = [adversary.schedule.announce(job.num_steps)] if adversary else []
        if read_ranks().is_alone:
            notes.append(vae_shortage(step_fn, stage.name, stage.resolution, stage.batch_size))
        for note in filter(None, notes):
            log.note(note)
        return log

    def _page(self, step: int) -> Path:
        return self.workspace.vae_run / "previews" / f"step-{step:08d}.png"

    def _preview(self, step: int) -> None:
        """Write a page of pictures over their reconstructions by the averaged weights."""
        self.job.evaluation.preview(self.job.step_fn.ema.network, self._page(step))

    def _finish(self, step: int, log: RunLog) -> VaeResult:
        """Measure, preview and write the model folder."""
        job, stage, config = self.job, self.stage, self.workspace.config.vae
        network, evaluation, names = job.step_fn.ema.network, job.evaluation, job.saved["data"]["style_names"]
        model, chosen = self.workspace.vae_run / "model", config.perceptual
        self._preview(step)
        log.picture(step, self._page(step))
        normalizer = evaluation.measure(network).normalizer()
        perceptual = None if chosen.backbone == "random" else job.step_fn.perceptual
        perceptual = perceptual or find_perceptual(chosen.backbone, chosen.weights, job.placement)
        scores = evaluation.score(network, perceptual)
        shape, tanh = autoencoder_config(self.workspace), job.step_fn.autoencoder.uses_tanh
        about = describe_autoencoder(shape, names, normalizer, resolution=stage.resolution, uses_tanh=tanh)
        origin = imported_from(model) if shape.kind == "diffusers" else {}
        about["training"] = {"vae": {**origin, "step": step, "stage": stage.name, **scores.to_json()}}
        save_model(model, about, {"autoencoder": network})
        log.metrics(step, stage=stage.name, held_out_reconstruction=job.held_out_error(), **scores.to_json())
        spread = ", ".join(f"{value:.2f}" for value in normalizer.std)
        log.note(f"stage {stage.name} is finished: {scores}; latent std per channel {spread}")
        return VaeResult(model, [stage.name], scores, self._page(step))
