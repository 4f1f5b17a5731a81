"""`latentart train vae`: the autoencoder in stages, each a value in the config.

Launch: ``latentart train vae`` in a workspace; a tiny variant on a CPU: ``latentart demo --quick``.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from latentart.builders import (
    build_adversary,
    build_autoencoder,
    build_crop,
    build_discriminator,
    build_ema,
    build_optimizer,
    build_perceptual,
    build_rate_plan,
    build_terms,
    count_steps,
    prepare_network,
)
from latentart.config.vae import StageConfig
from latentart.core.equivariance import draw_transform
from latentart.core.pixels import to_images
from latentart.data.datasets import PictureDataset
from latentart.data.index import IndexEntry
from latentart.data.loading import build_order, choose_workers, load_batches, prefetch
from latentart.recipes.model import save_model
from latentart.recipes.run import (
    RunKeeper,
    describe_pictures,
    fitting,
    open_run,
    record_run,
    require_same_data,
    stop_for,
)
from latentart.recipes.stages import (
    choose_stages,
    former_stage,
    is_model_behind,
    require_former_stage,
    require_perceptual_weights,
    stages_done,
)
from latentart.recipes.vae_evaluation import Evaluation, VaeScores, find_perceptual
from latentart.recipes.workspace import Workspace
from latentart.training.adversary import Adversary
from latentart.training.checkpoint import Checkpoint, find_checkpoint
from latentart.training.devices import Placement
from latentart.training.log import RunLog
from latentart.training.loop import train
from latentart.training.progress import Progress
from latentart.training.randomness import generator_for, normal_for, sample_numbers, seed_for
from latentart.training.signals import StopSignal
from latentart.training.vae_step import VaeBatch, VaeStep

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class VaeResult:
    """Where the trained autoencoder lies; ``stages`` are those that were trained now."""

    model: Path
    stages: list[str]
    scores: VaeScores | None
    preview: Path | None


def train_vae(workspace: Workspace, stage_name: str, placement: Placement, *, quiet: bool = False) -> VaeResult:
    """Train one stage, or all that are left, going on from the newest checkpoint.

    Raises:
        UsageError: no such stage.
        ModelError: the stage before it is not finished, or a checkpoint does not fit.
        DataError: the pictures have changed since the run began.
        DownloadError: a stage needs LPIPS weights that are not here.
    """
    stages = choose_stages(workspace, stage_name)
    entries, style_names = workspace.read_pictures()
    run = workspace.vae_run
    with open_run(run):
        done = stages_done(find_checkpoint(run))
        require_perceptual_weights(workspace, [stage for stage in stages if stage.name not in done])
        data = describe_pictures(entries, style_names, workspace.config.data.held_out)
        trained, result = [], VaeResult(run / "model", [], None, None)
        for stage in stages:
            checkpoint = find_checkpoint(run)
            if checkpoint is not None:
                require_same_data(checkpoint.state["data"], data, run)
            if stage.name in stages_done(checkpoint) and not is_model_behind(run, stage, checkpoint):
                logger.info("stage %s is finished", stage.name)
                continue
            require_former_stage(workspace, stage, checkpoint)
            trainer = StageRun(workspace, stage, entries, data, placement, quiet=quiet)
            result = trainer.train(checkpoint)
            trained.append(stage.name)
    return VaeResult(run / "model", trained, result.scores, result.preview)


class StageRun:
    """One stage, from where it stands to its end."""

    def __init__(
        self,
        workspace: Workspace,
        stage: StageConfig,
        entries: list[IndexEntry],
        data: dict[str, Any],
        placement: Placement,
        *,
        quiet: bool,
    ) -> None:
        self.workspace, self.stage, self.entries, self.data = workspace, stage, entries, data
        self.config, self.seed = workspace.config.vae, workspace.config.seed
        self.placement, self.quiet = Placement(placement.device, self.config.run.precision), quiet
        self.run = workspace.vae_run
        self.evaluation = Evaluation(workspace, entries, data["style_names"], stage.resolution, self.placement)
        self.num_steps = count_steps(stage, len(self.evaluation.training), stage.batch_size)
        self.step_fn = self._build_step()

    def train(self, checkpoint: Checkpoint | None) -> VaeResult:
        """Train to the end of the stage; leave checkpoints, previews and the model folder."""
        with fitting(self.run, checkpoint, self.workspace.config):
            first, base, done = self._take(checkpoint)
        record_run(self.run, self.workspace.config)
        log = RunLog(self.run, resume_step=base + first)
        log.note(f"stage {self.stage.name}: steps {first} to {self.num_steps}, {self.placement.precision}")
        self._announce_discriminator(log)
        with (
            Progress(f"vae {self.stage.name}", self.num_steps, first, quiet=self.quiet) as progress,
            StopSignal() as stop,
            log.watch(),
            closing(prefetch(self._batches(first))) as batches,
        ):
            keeper = RunKeeper(
                self.run, log, progress, log_every=self.config.run.log_every, keep=self.config.run.keep_checkpoints
            )
            for report in train(
                self.step_fn,
                batches,
                build_rate_plan(self.config.optimizer, self.num_steps, self.stage.lr),
                first_step=first,
                last_step=self.num_steps,
                batch_size=self.stage.batch_size,
            ):
                step, is_last = base + report.step, report.step == self.num_steps
                keeper.report(report, self.stage.batch_size, at=step, is_last=is_last, stage=self.stage.name)
                self._tell(log, step)
                if is_last:
                    break
                if step % self.config.run.checkpoint_every == 0 or stop.received:
                    self._save(keeper, report.step, base, done)
                if step % self.config.run.preview_every == 0:
                    self._preview(step)
                if step % self.config.run.evaluate_every == 0:
                    error = self.evaluation.error(self.step_fn.ema.network)
                    log.metrics(step, stage=self.stage.name, held_out_reconstruction=error)
                if stop.received:
                    raise stop_for(stop.received, self.run, step)
            # a stage that was shortened below where it stands is finished too
            last = max(first, self.num_steps)
            self._save(keeper, last, base, {**done, self.stage.name: base + last})
        return self._finish(base + last, log)

    def _announce_discriminator(self, log: RunLog) -> None:
        """Say when the adversarial term will come in, as far as that is known, and whether the stage is long enough."""
        adversary = self.step_fn.adversary
        entry = adversary.schedule.first_influence() if adversary and self.stage.weights.adversarial > 0 else None
        if entry is None:
            return
        if entry >= self.num_steps:
            log.note("the discriminator moves nothing in this stage: its start and warm-up lie beyond the last step")
        else:
            log.note(f"the discriminator moves the autoencoder from step {entry + 1} of this stage on")

    def _tell(self, log: RunLog, step: int) -> None:
        """Put into the log what the step has to say."""
        for note in self.step_fn.notes:
            log.note(f"step {step}: {note}")
        self.step_fn.notes.clear()

    def _build_step(self) -> VaeStep:
        """Build networks and optimizers; what a stage's weights leave out is not built."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(generator_for(self.seed, "vae weights").initial_seed())
            autoencoder = build_autoencoder(self.config.model)
            adversary = self._build_adversary()
        autoencoder.uses_tanh = self.stage.tanh
        self.placement.place(autoencoder)
        perceptual = None
        if self.stage.weights.perceptual > 0:
            perceptual = build_perceptual(self.config.perceptual)
            self.placement.place(perceptual)
        ema = build_ema(autoencoder, self.config.run.ema)
        for network in (autoencoder.encoder, autoencoder.decoder):
            prepare_network(network, self.config.run)
        return VaeStep(
            autoencoder,
            ema,
            build_optimizer(autoencoder, self.config.optimizer),
            build_terms(self.stage, self.config.optimizer.clip_norm, former_stage(self.config, self.stage)),
            self.placement,
            adversary=adversary,
            perceptual=perceptual,
            seed=seed_for(self.seed, f"vae step {self.stage.name}"),
        )

    def _build_adversary(self) -> Adversary | None:
        """Build the discriminator's side where any stage has one: its weights go from stage to stage."""
        if not any(stage.weights.adversarial > 0 for stage in self.config.stages):
            return None
        discriminator = build_discriminator(self.config.discriminator)
        self.placement.place(discriminator)
        return build_adversary(
            discriminator,
            self.config.discriminator,
            self.stage,
            self.num_steps,
            self.placement,
            self.config.optimizer.betas,
        )

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
            "stage": self.stage.name,
            "stage_step": stage_step,
            "stages_done": done,
            "optimizers": optimizers,
            "data": self.data,
            "config": self.workspace.config.to_json(),
        }
        keeper.save(base + stage_step, tensors, state, milestones=list(done.values()))

    def _batches(self, first: int) -> Iterator[VaeBatch]:
        """Yield the stage's batches from step ``first`` on; order, crops and noise follow from the seed."""
        stage, data, send = self.stage, self.workspace.config.data, self.placement.send
        order_seed = seed_for(self.seed, f"vae order {stage.name}")
        crop = build_crop(stage.resolution, data, order_seed, stage.crop)
        entries = [self.entries[i] for i in self.evaluation.training]
        dataset = PictureDataset(self.workspace.data, entries, self.data["style_names"], crop)
        order = build_order(
            order_seed, dataset.style_ids, stage.batch_size, first, self.num_steps, is_balanced=data.balance_styles
        )
        side = stage.resolution // self.config.model.factor
        shape = (self.config.model.latent_channels, side, side)
        loaded = load_batches(dataset, order, workers=choose_workers(data.workers, self.placement.device.type))
        needs_transform = stage.weights.equivariance > 0
        for step, (pixels, _, _) in enumerate(loaded, start=first):
            noise = normal_for(self.seed, f"posterior {stage.name}", sample_numbers(step, stage.batch_size), shape)
            chance = generator_for(self.seed, f"equivariance {stage.name}", step)
            transform = draw_transform(chance) if needs_transform else None
            yield VaeBatch(to_images(send(pixels)), send(noise), transform)

    def _preview(self, step: int) -> Path:
        """Write a page of pictures over their reconstructions by the averaged weights."""
        path = self.run / "previews" / f"step-{step:08d}.png"
        self.evaluation.preview(self.step_fn.ema.network, path)
        return path

    def _finish(self, step: int, log: RunLog) -> VaeResult:
        """Measure, preview and write the model folder."""
        network = self.step_fn.ema.network
        preview = self._preview(step)
        normalizer = self.evaluation.measure(network).normalizer()
        is_random = self.config.perceptual.backbone == "random"
        perceptual = None if is_random else self.step_fn.perceptual
        scores = self.evaluation.score(network, perceptual or find_perceptual(self.config.perceptual, self.placement))
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
