"""`latentart train ldm`: the denoiser, from cached latents.

Launch: ``latentart train ldm`` in a workspace with a trained autoencoder; a tiny variant: ``latentart demo --quick``.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from latentart.builders import (
    build_denoiser,
    build_ema,
    build_optimizer,
    build_rate_plan,
    build_tracks,
    count_steps,
    prepare_network,
)
from latentart.config.denoiser import advise
from latentart.config.sample import SampleConfig
from latentart.core.diffusion.uncertainty import LearnedUncertainty
from latentart.core.networks.conditioning import Denoiser
from latentart.data.datasets import picture_from
from latentart.data.grids import save_png, tile_grid
from latentart.data.held_out import split_held_out
from latentart.data.index import IndexEntry
from latentart.data.latent_cache import LatentCache
from latentart.data.loading import build_order, choose_workers, load_items, prefetch
from latentart.recipes.averages import drop_averages, save_average
from latentart.recipes.encode import encode, find_autoencoder, load_autoencoder
from latentart.recipes.generate import Generator, SamplerSettings
from latentart.recipes.labels import LabelColumn, describe_labels, label_columns, label_ids
from latentart.recipes.ldm_batches import HeldOutLoss, LatentBatches
from latentart.recipes.model import build_task, save_model, trained_steps, weights_hash
from latentart.recipes.run import (
    RunKeeper,
    describe_pictures,
    fitting,
    open_run,
    record_run,
    require_same_data,
    stop_for,
)
from latentart.recipes.sample import settings_from
from latentart.recipes.workspace import Workspace
from latentart.training.checkpoint import Checkpoint, find_checkpoint
from latentart.training.devices import Placement
from latentart.training.ldm_step import LdmBatch, LdmStep
from latentart.training.log import RunLog
from latentart.training.loop import train
from latentart.training.progress import Progress
from latentart.training.randomness import generator_for, seed_for
from latentart.training.signals import StopSignal

PREVIEW_STYLES = 32
PREVIEW_COLUMNS = 4
PREVIEW_CALLS = 20  # of the network, for one page
LATENT_WORKERS = 4


@dataclass(frozen=True)
class LdmResult:
    """Where the model lies, whether anything was left to train, and the last page of previews."""

    model: Path
    is_new: bool
    preview: Path | None


def train_ldm(workspace: Workspace, placement: Placement, *, quiet: bool = False) -> LdmResult:
    """Train the denoiser, going on from the newest checkpoint; encode first where the cache is missing or stale.

    Raises:
        ModelError: there is no trained autoencoder, or a checkpoint does not fit.
        DataError: the pictures or their labels have changed since the run began, or there is no such label column.
    """
    run = workspace.ldm_run
    with open_run(run):
        data, checkpoint = describe_data(workspace), find_checkpoint(run)
        if checkpoint is not None:
            require_same_data(checkpoint.state["data"], data, run)
        cache = LatentCache.open(encode(workspace, placement, quiet=quiet))
        return LdmRun(workspace, cache, data, placement, quiet=quiet).train(checkpoint)


def describe_data(workspace: Workspace) -> dict[str, Any]:
    """Return what a run's latents come from: a run that goes on must find it unchanged."""
    entries, names = workspace.read_pictures()
    return {
        **describe_pictures(entries, names, workspace.config.data.held_out),
        **describe_labels(entries, workspace.config.ldm.labels),
        "autoencoder": weights_hash(find_autoencoder(workspace)),
    }


def preview_settings(config: SampleConfig) -> SamplerSettings:
    """Return the config's sampling settings with no more steps than a page of previews may take."""
    calls = 2 if config.sampler == "heun" else 1
    return settings_from(config, {"steps": min(PREVIEW_CALLS // calls, config.steps)})


class LdmRun:
    """The denoiser's run, from where it stands to its end."""

    def __init__(
        self, workspace: Workspace, cache: LatentCache, data: dict[str, Any], placement: Placement, *, quiet: bool
    ) -> None:
        self.workspace, self.cache, self.data, self.quiet = workspace, cache, data, quiet
        self.style_names: list[str] = data["style_names"]
        self.config, self.seed = workspace.config.ldm, workspace.config.seed
        self.settings = self.config.training
        self.run = workspace.ldm_run
        self.placement = Placement(placement.device, self.settings.run.precision)
        self.autoencoder = load_autoencoder(workspace, self.placement)
        entries, _ = workspace.read_pictures()
        self.columns: list[LabelColumn] = label_columns(entries, self.config.labels)
        self.counts = [len(self.style_names), *(len(column.values) for column in self.columns)]
        self.labels = self._labels_of(entries)
        self.training, self.held_out = split_held_out(entries, workspace.config.data.held_out)
        self.num_steps = count_steps(self.settings, len(self.training), self.settings.batch_size)
        self.step_fn = self._build_step()

    def train(self, checkpoint: Checkpoint | None) -> LdmResult:
        """Train to the end; leave checkpoints, previews and the model folder."""
        first = self._take(checkpoint)
        if first >= self.num_steps:
            if trained_steps(self.run / "model", "ldm") != first:  # cut short before the model was written
                self._save_model(first)
            return LdmResult(self.run / "model", is_new=False, preview=None)
        record_run(self.run, self.workspace.config)
        drop_averages(self.run, after=first)
        log, held_out = RunLog(self.run, resume_step=first), self._build_held_out()
        log.note(f"denoiser: steps {first} to {self.num_steps}, {self.placement.precision}")
        if advice := advise(len(self.training), sum(p.numel() for p in self.step_fn.denoiser.parameters())):
            log.note(advice)
        run, preview = self.settings.run, None
        with (
            Progress("ldm", self.num_steps, first, quiet=self.quiet) as progress,
            StopSignal() as stop,
            log.watch(),
            closing(prefetch(self._batches(first))) as batches,
        ):
            keeper = RunKeeper(self.run, log, progress, log_every=run.log_every, keep=run.keep_checkpoints)
            for report in train(
                self.step_fn,
                batches,
                build_rate_plan(self.settings.optimizer, self.num_steps),
                first_step=first,
                last_step=self.num_steps,
                batch_size=self.settings.batch_size,
            ):
                step, is_last = report.step, report.step == self.num_steps
                parts = self.step_fn.by_noise.take() if keeper.is_due(step, is_last=is_last) else {}
                keeper.report(report, self.settings.batch_size, at=step, is_last=is_last, **parts)
                if step % run.ema.snapshot_interval(self.num_steps) == 0 or is_last:
                    self._save_averages(step)  # before the checkpoint: a run that goes on from it lacks none
                if step % run.checkpoint_every == 0 or is_last or stop.received:
                    self._save(keeper, step)
                if step % run.preview_every == 0 or is_last:
                    preview = self._preview(step)
                if held_out is not None and (step % run.evaluate_every == 0 or is_last):
                    log.metrics(step, **held_out(self.step_fn.ema.network))
                if stop.received and not is_last:
                    raise stop_for(stop.received, self.run, step)
        log.note(f"the denoiser is finished at step {self.num_steps}")
        return LdmResult(self.run / "model", is_new=True, preview=preview)

    def _build_step(self) -> LdmStep:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(generator_for(self.seed, "denoiser weights").initial_seed())
            denoiser = build_denoiser(self.config.model, self.cache.latent_shape[0], self.counts)
        self.placement.place(denoiser)
        task = build_task(self.config.diffusion).to(self.placement.device)
        ema, tracks = build_ema(denoiser, self.settings.run.ema), build_tracks(denoiser, self.settings.run.ema)
        uncertainty = LearnedUncertainty().to(self.placement.device) if task.weighting == "learned" else None
        prepare_network(denoiser, self.settings.run)
        return LdmStep(
            denoiser,
            ema,
            build_optimizer(denoiser, self.settings.optimizer),
            task,
            self.placement,
            clip_norm=self.settings.optimizer.clip_norm,
            seed=self.seed,
            tracks=tracks,
            uncertainty=uncertainty,
        )

    def _labels_of(self, entries: list[IndexEntry]) -> Tensor:
        """Return what each image of the cache is conditioned on: its style, and its labels where there are columns."""
        if not self.columns:
            return self.cache.style_id
        labels = label_ids(entries, self.style_names, self.columns)
        labels[:, 0] = self.cache.style_id
        labels[self.cache.replaced, 1:] = torch.tensor(self.counts[1:])  # they show another picture
        return labels

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
            batch_size=self.settings.batch_size,
        )

    def _take(self, checkpoint: Checkpoint | None) -> int:
        """Take a checkpoint's weights and return the step to go on from."""
        if checkpoint is None:
            return 0
        with fitting(self.run, checkpoint, self.workspace.config):
            self.step_fn.restore(checkpoint.tensors, checkpoint.state["optimizers"])
        return checkpoint.step

    def _save(self, keeper: RunKeeper, step: int) -> None:
        """Write a checkpoint and, from the average, the model that `sample` uses."""
        tensors, optimizers = self.step_fn.state()
        state = {"optimizers": optimizers, "data": self.data, "config": self.workspace.config.to_json()}
        keeper.save(step, tensors, state, milestones=[])
        self._save_model(step)

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
        data, settings, send = self.workspace.config.data, self.settings, self.placement.send
        task = build_task(self.config.diffusion)
        dropout = settings.style_dropout
        batches = LatentBatches(self.cache, self.labels, self.counts, task, seed=self.seed, dropout=dropout)
        order = build_order(
            seed_for(self.seed, "ldm order"),
            self.cache.style_id[self.training].tolist(),
            settings.batch_size,
            first,
            self.num_steps,
            is_balanced=data.balance_styles,
        )
        keys = ((step, [self.training[i] for _, i in order.keys(step)]) for step in range(first, self.num_steps))
        # beside a GPU a thread would do too, but each of its many small draws would hold up the step's own calls
        workers = choose_workers(data.workers, self.placement.device.type, at_most=LATENT_WORKERS)
        for batch in load_items(batches, keys, workers=workers):
            yield LdmBatch(send(batch.x0), send(batch.eps), send(batch.t), send(batch.style_id))

    def _preview(self, step: int) -> Path:
        """Write one labelled row per style, from fixed seeds, by the averaged weights."""
        denoiser = self.step_fn.ema.network
        assert isinstance(denoiser, Denoiser)
        generator = Generator(
            self.autoencoder.autoencoder,
            denoiser,
            self.cache.normalizer,
            self.step_fn.task,
            self.placement,
            self.settings.resolution,
        )
        settings = preview_settings(self.workspace.config.sample)
        names = self.style_names[:PREVIEW_STYLES]
        style_ids = [i for i in range(len(names)) for _ in range(PREVIEW_COLUMNS)]
        pixels = generator(style_ids, list(range(PREVIEW_COLUMNS)) * len(names), settings)
        path = self.run / "previews" / f"step-{step:08d}.png"
        save_png(tile_grid([picture_from(p) for p in pixels], len(names), PREVIEW_COLUMNS, names), path)
        return path
