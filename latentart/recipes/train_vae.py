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
from torch import Tensor

from latentart.builders import (
    build_autoencoder,
    build_crop,
    build_discriminator,
    build_discriminator_optimizer,
    build_ema,
    build_optimizer,
    build_perceptual,
    build_rate_plan,
    build_terms,
    count_steps,
)
from latentart.config.vae import StageConfig
from latentart.core.latents import LatentStatistics, split_moments
from latentart.core.networks.autoencoder import Autoencoder
from latentart.core.pixels import to_images, to_pixels
from latentart.data.datasets import PictureDataset, picture_from
from latentart.data.grids import save_png, tile_grid
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
    is_model_behind,
    require_former_stage,
    require_perceptual_weights,
    stages_done,
)
from latentart.recipes.workspace import Workspace
from latentart.scoring.reconstruction import psnr_per_image
from latentart.training.checkpoint import Checkpoint, find_checkpoint
from latentart.training.devices import Placement
from latentart.training.log import RunLog
from latentart.training.loop import train
from latentart.training.progress import Progress
from latentart.training.randomness import generator_for, normal_for, sample_numbers, seed_for
from latentart.training.signals import StopSignal
from latentart.training.vae_step import VaeBatch, VaeStep

logger = logging.getLogger(__name__)

PREVIEW_PICTURES = 8
STATISTICS_PICTURES = 256


@dataclass(frozen=True)
class VaeResult:
    """Where the trained autoencoder lies; ``stages`` are those that were trained now."""

    model: Path
    stages: list[str]
    psnr: float | None
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
        data = describe_pictures(entries, style_names)
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
    return VaeResult(run / "model", trained, result.psnr, result.preview)


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
        self.num_steps = count_steps(stage, len(entries), stage.batch_size)
        self.step_fn = self._build_step()

    def train(self, checkpoint: Checkpoint | None) -> VaeResult:
        """Train to the end of the stage; leave checkpoints, previews and the model folder."""
        with fitting(self.run):
            first, base, done = self._take(checkpoint)
        record_run(self.run, self.workspace.config)
        log = RunLog(self.run, resume_step=base + first)
        log.note(f"stage {self.stage.name}: steps {first} to {self.num_steps}, {self.placement.precision}")
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
                if is_last:
                    break
                if step % self.config.run.checkpoint_every == 0 or stop.received:
                    self._save(keeper, report.step, base, done)
                if step % self.config.run.preview_every == 0:
                    self._preview(step)
                if stop.received:
                    raise stop_for(stop.received, self.run, step)
            # a stage that was shortened below where it stands is finished too
            last = max(first, self.num_steps)
            self._save(keeper, last, base, {**done, self.stage.name: base + last})
        return self._finish(base + last, log)

    def _build_step(self) -> VaeStep:
        """Build networks and optimizers; what a stage's weights leave out is not built."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(generator_for(self.seed, "vae weights").initial_seed())
            autoencoder = build_autoencoder(self.config.model)
            needs_discriminator = any(stage.weights.adversarial > 0 for stage in self.config.stages)
            discriminator = build_discriminator(self.config.discriminator) if needs_discriminator else None
        autoencoder.uses_tanh = self.stage.tanh
        self.placement.place(autoencoder)
        perceptual = None
        if self.stage.weights.perceptual > 0:
            perceptual = build_perceptual(self.config.perceptual)
            self.placement.place(perceptual)
        discriminator_optimizer = None
        if discriminator is not None:
            self.placement.place(discriminator)
            discriminator_optimizer = build_discriminator_optimizer(
                discriminator, self.config.discriminator, self.config.optimizer.betas
            )
        return VaeStep(
            autoencoder,
            build_ema(autoencoder, self.config.run.ema),
            build_optimizer(autoencoder, self.config.optimizer),
            build_terms(self.stage, self.config.optimizer.clip_norm),
            self.placement,
            discriminator=discriminator,
            discriminator_optimizer=discriminator_optimizer,
            perceptual=perceptual,
        )

    def _take(self, checkpoint: Checkpoint | None) -> tuple[int, int, dict[str, int]]:
        """Take a checkpoint's weights; return this stage's first step, the run's step before it, and what is done."""
        if checkpoint is None:
            return 0, 0, {}
        state = checkpoint.state
        if state["stage"] == self.stage.name:
            self.step_fn.restore(checkpoint.tensors, state["optimizers"])
            return state["stage_step"], state["step"] - state["stage_step"], state["stages_done"]
        self.step_fn.start_from(checkpoint.tensors, state["optimizers"])
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
        dataset = PictureDataset(self.workspace.data, self.entries, self.data["style_names"], crop)
        order = build_order(
            order_seed, dataset.style_ids, stage.batch_size, first, self.num_steps, is_balanced=data.balance_styles
        )
        side = stage.resolution // self.config.model.factor
        shape = (self.config.model.latent_channels, side, side)
        loaded = load_batches(dataset, order, workers=choose_workers(data.workers, self.placement.device.type))
        for step, (pixels, _, _) in enumerate(loaded, start=first):
            noise = normal_for(self.seed, f"posterior {stage.name}", sample_numbers(step, stage.batch_size), shape)
            yield VaeBatch(to_images(send(pixels)), send(noise))

    def _evaluation_images(self, count: int) -> Iterator[Tensor]:
        """Yield up to ``count`` pictures, spread over the set, cropped in the middle, in small batches."""
        crop = build_crop(self.stage.resolution, self.workspace.config.data, self.seed, is_random=False)
        dataset = PictureDataset(self.workspace.data, self.entries, self.data["style_names"], crop, memory_bytes=0)
        count = min(count, len(dataset))
        indexes = [i * len(dataset) // count for i in range(count)]
        keys = [[(0, index) for index in indexes[start : start + 16]] for start in range(0, count, 16)]
        for pixels, _, _ in load_batches(dataset, keys):
            yield to_images(self.placement.send(pixels))

    @torch.no_grad()
    def _reconstruct(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return (moments, reconstruction from the posterior's mean) by the averaged weights."""
        network = self.step_fn.ema.network
        assert isinstance(network, Autoencoder)
        with self.placement.autocast():
            moments = network.encode(images)
            mean, _ = split_moments(moments)
            return moments, network.decode(mean)

    def _preview(self, step: int) -> Path:
        """Write a page of pictures over their reconstructions."""
        images = torch.cat(list(self._evaluation_images(PREVIEW_PICTURES)))
        _, images_hat = self._reconstruct(images)
        pictures = [picture_from(to_pixels(image)) for image in torch.cat([images, images_hat])]
        path = self.run / "previews" / f"step-{step:08d}.png"
        save_png(tile_grid(pictures, 2, len(images), ["picture", "again"]), path)
        return path

    def _finish(self, step: int, log: RunLog) -> VaeResult:
        """Measure, preview and write the model folder."""
        preview = self._preview(step)
        statistics, scores = LatentStatistics(), []
        for images in self._evaluation_images(STATISTICS_PICTURES):
            moments, images_hat = self._reconstruct(images)
            statistics.update(moments)
            scores.append(psnr_per_image(images_hat, images).cpu())
        psnr = float(torch.cat(scores).mean())
        normalizer = statistics.normalizer()
        about = {
            "autoencoder": self.config.model.model_dump(mode="json"),
            "uses_tanh": self.stage.tanh,
            "resolution": self.stage.resolution,
            "latents": {"mean": list(normalizer.mean), "std": list(normalizer.std)},
            "style_names": self.data["style_names"],
            "denoiser": None,
            "diffusion": None,
            "training": {"vae": {"step": step, "stage": self.stage.name, "psnr": psnr}},
        }
        save_model(self.run / "model", about, {"autoencoder": self.step_fn.ema.network})
        log.metrics(step, stage=self.stage.name, psnr=psnr)
        spread = ", ".join(f"{value:.2f}" for value in normalizer.std)
        log.note(f"stage {self.stage.name} is finished: PSNR {psnr:.2f} dB, latent std per channel {spread}")
        return VaeResult(self.run / "model", [self.stage.name], psnr, preview)
