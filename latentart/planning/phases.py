"""The phases of a plan: each that is not finished is tried, then counted out to its end."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch

from latentart.builders import AnyAutoencoder, build_autoencoder, count_steps
from latentart.core.latents import LatentNormalizer
from latentart.data.held_out import split_held_out
from latentart.data.index import style_names
from latentart.data.latent_cache import is_complete
from latentart.errors import DownloadError, LatentArtError, ResourceError
from latentart.layout import Workspace
from latentart.model.description import describe_autoencoder
from latentart.model.folder import autoencoder_config, save_model
from latentart.planning.estimate import (
    Part,
    Phase,
    Timings,
    count_due,
    count_occasions,
    derive_passes,
    mean_rate,
    spend,
    split_parts,
)
from latentart.planning.pictures import MOST_PICTURES, Pictures, take_some
from latentart.planning.process import call_apart
from latentart.planning.trial import WARMING, Trial, changed, try_training
from latentart.process.devices import Placement
from latentart.process.host_memory import file_bytes
from latentart.scoring.reconstructions import vae_passes
from latentart.storage.checkpoints import list_checkpoints
from latentart.storage.folders import read_json
from latentart.training.build import build_adversarial_plan, preview_settings, require_perceptual_weights
from latentart.training.encode import Encoding
from latentart.training.ldm_batches import HELD_OUT_DRAWS
from latentart.training.ldm_previews import page_passes
from latentart.training.stages import is_longer

logger = logging.getLogger(__name__)

LDM_SHARE = 0.4  # of the trials' time
LEAST_SHARE = 0.12  # that a stage has of it, however short it is
OTHER_FILES = 16 * 1024  # bytes of a run's config, log and the like
MUCH_WAITING = 0.25


@dataclass(frozen=True)
class Standing:
    """Where a run stands: its step, the stage of that step and the steps made of it, and the stages that are done."""

    step: int = 0
    stage: str = ""
    stage_step: int = 0
    done: dict[str, int] = field(default_factory=dict)


def find_standing(run: Path) -> Standing:
    """Return where a run's newest readable checkpoint stands; its tensors are left alone."""
    for folder in reversed(list_checkpoints(run)):
        try:
            state = read_json(folder / "state.json")["state"]
            return Standing(
                int(state["step"]), state.get("stage", ""), state.get("stage_step", 0), state.get("stages_done", {})
            )
        except (LatentArtError, LookupError, TypeError, ValueError):
            continue
    return Standing()


class Planner:
    """Tries one phase after the other; what it finds on the way that people should know is ``advice``."""

    def __init__(
        self, workspace: Workspace, device: str | None, seconds: float, scratch: Path, pictures: Pictures
    ) -> None:
        self.workspace, self.config, self.device = workspace, workspace.config, device
        self.seconds, self.scratch, self.pictures = seconds, scratch, pictures
        self.advice: list[str] = []
        self.available: int | None = None
        self._forward: float | None = None  # of one picture through half of the autoencoder

    def clean(self) -> Iterator[Phase]:
        """Yield what is left of cleaning."""
        if self.pictures.raw_files:
            yield Phase("clean-data", self.pictures.clean_seconds, disk=self.pictures.clean_bytes, is_rough=True)

    def stages(self) -> Iterator[Phase]:
        """Yield the autoencoder's stages that are not finished."""
        standing = find_standing(self.workspace.vae_run)
        names = self.stages_left(standing)
        left = [stage for stage in self.config.vae.stages if stage.name in names]
        if not names and not standing.done:
            self.advice.append("vae: the autoencoder was imported; tuning it is not counted")
        if not left:
            return
        self.workspace.name_outside("vae.perceptual.weights")
        scratch, lacking = with_perceptual_weights(scratch_workspace(self.workspace, self.scratch / "vae"), names)
        self.advice += lacking
        take_some(self.pictures, MOST_PICTURES, scratch.data)
        base = standing.step - (standing.stage_step if standing.stage in names else 0)
        shares = [count_steps(s, self.pictures.num_training, s.batch_size) ** 0.5 for s in left]
        for stage, share in zip(left, shares, strict=True):
            first = standing.stage_step if stage.name == standing.stage else 0
            last = count_steps(stage, self.pictures.num_training, stage.batch_size)
            seconds = self.seconds * max(LEAST_SHARE, (1 - LDM_SHARE) * share / sum(shares))
            yield self._stage(Trial(scratch, stage.name, self.device, seconds), base, first, last)
            base += last

    def stages_left(self, standing: Standing) -> list[str]:
        """Return the stages that are not finished, and the one that a new cycle makes longer; none of an import."""
        if autoencoder_config(self.workspace).kind == "diffusers":
            return []
        steps = {s.name: count_steps(s, self.pictures.num_training, s.batch_size) for s in self.config.vae.stages}
        return [
            stage.name
            for stage in self.config.vae.stages
            if stage.name not in standing.done
            or is_longer(stage, standing.stage, standing.stage_step, steps[stage.name])
        ]

    def _stage(self, trial: Trial, base: int, first: int, last: int) -> Phase:
        """Return the phase of a stage that still has the steps from ``first`` to ``last``, of the run from ``base``."""
        run, stages = self.config.vae.run, self.config.vae.stages
        (stage,) = (stage for stage in stages if stage.name == trial.stage)
        discriminator = build_adversarial_plan(self.config.vae.discriminator, stage, last)
        start = last // 2 if stage.discriminator_start == "plateau" else discriminator.start
        steps = split_parts(start if stage.weights.adversarial > 0 else None, discriminator.warmup, first, last)
        every = (run.preview_every, run.evaluate_every, run.checkpoint_every)
        occasions = count_occasions(*every, base + first, base + last)
        passes = vae_passes(self.pictures.num_training, self.pictures.num_held_out)
        trial = replace(trial, parts=tuple(steps) or ("whole",), occasions=occasions, ending=sum(passes))
        timings = self._try(trial)
        if timings is None:
            return Phase(trial.name, 0.0, last - first, failed=True)
        if timings.is_whole:
            tried = split_held_out(trial.workspace.read_pictures()[0], self.config.data.held_out)
            timings.end *= sum(passes) / sum(vae_passes(*map(len, tried)))
        else:
            derive_passes(timings, stage.batch_size, passes[3], passes[0], sum(passes))
        self._forward = timings.step[next(reversed(timings.step))] / stage.batch_size / 3 / stage.resolution**2
        is_last = stage is stages[-1]
        kept = 1 + (run.keep_checkpoints - 1 if is_last and occasions.checkpoints else 0)
        kept += len(run.milestones(base + first, base + last))
        disk = kept * timings.checkpoint_bytes + (timings.model_bytes or timings.checkpoint_bytes // 4) * is_last
        return self._phase(trial, timings, steps, disk)

    def denoiser(self) -> Iterator[Phase]:
        """Yield what is left of the latent cache, then of the denoiser."""
        settings, run = self.config.ldm.training, self.config.ldm.training.run
        first = find_standing(self.workspace.ldm_run).step
        last = count_steps(settings, self.pictures.num_training, settings.batch_size)
        if first >= last:
            return
        scratch = scratch_workspace(self.workspace, self.scratch / "ldm")
        take_some(self.pictures, self._encoded(), scratch.data)
        take_some(replace(self.pictures, entries=self.pictures.entries[:1]), 1, scratch.folder / WARMING)
        write_autoencoder(scratch, style_names(self.pictures.entries), autoencoder_config(self.workspace))
        every = (run.preview_every, run.evaluate_every, run.checkpoint_every)
        occasions = count_occasions(*every, first, last)
        page = page_passes(preview_settings(self.config.sample), self.pictures.num_styles)
        ending = page + HELD_OUT_DRAWS
        trial = Trial(scratch, None, self.device, self.seconds * LDM_SHARE, ("whole",), occasions, ending)
        timings = self._try(trial)
        if timings is None:
            yield Phase(trial.name, 0.0, last - first, failed=True)
            return
        if not self._is_encoded():
            count = self.pictures.count
            yield Phase("encode", timings.encode * count, disk=cache_bytes(self.workspace, count))
        if not timings.is_whole:
            derive_passes(timings, settings.batch_size, page, HELD_OUT_DRAWS, ending)
        interval = run.ema.snapshot_interval(last)
        model = timings.model_bytes or timings.checkpoint_bytes // 4
        snapshots = len(run.ema.tracks) * (count_due(interval, first, last) + 1)
        kept = min(run.keep_checkpoints, occasions.checkpoints + 1) + len(run.milestones(first, last))
        disk = kept * timings.checkpoint_bytes + (1 + snapshots) * model
        yield self._phase(trial, timings, {"whole": last - first}, disk)

    def _try(self, trial: Trial) -> Timings | None:
        """Return what a trial finds; None where memory does not suffice, and the advice says so."""
        logger.info("trying %s", trial.name)
        try:
            timings = call_apart(try_training, replace(trial, libraries=file_bytes()))
        except ResourceError as error:
            self.advice.append(f"{trial.name} does not fit: {error.message} {error.hint}".strip())
            return None
        self.available = self.available or timings.available
        if any((self.workspace.cache).glob("judge-*")):
            timings.first_preview = 0.0  # what it prepares is there
        return timings

    def _phase(self, trial: Trial, timings: Timings, steps: dict[Part, int], disk: int) -> Phase:
        """Return a phase with so many steps of each part to come, which leaves ``disk`` bytes of checkpoints."""
        run = self.config.ldm.training.run if trial.stage is None else self.config.vae.run
        name, count, rate = trial.name, sum(steps.values()), mean_rate(timings, steps)
        disk += (trial.occasions.previews + 1) * timings.preview_bytes + OTHER_FILES
        disk += count // run.log_every * timings.line_bytes
        if timings.tried:
            batches = " and ".join(map(str, timings.tried))
            self.advice.append(f"{name}: a step at its batch takes long; it is derived from {batches} at a time")
        if timings.data_share > MUCH_WAITING:
            waiting = f"{timings.data_share:.0%} of the time is waiting for pictures"
            self.advice.append(f"{name}: {waiting}: see data.workers")
        if rate and run.checkpoint_every / rate > 3600 and count > run.checkpoint_every:
            hours = run.checkpoint_every / rate / 3600
            self.advice.append(f"{name}: a checkpoint comes every {hours:.1f} h only: lower its checkpoint_every")
        seconds = spend(timings, steps, trial.occasions)
        return Phase(name, seconds, count, rate, timings.memory, disk, is_rough=bool(timings.tried))

    def _encoded(self) -> int:
        """Return how many pictures to encode for a trial: fewer where that takes long."""
        fewest = 64
        if self._forward is None:
            return fewest
        size = self.config.ldm.training.resolution**2 * cache_variants(self.workspace)
        return max(fewest // 4, min(256, int(self.seconds * LDM_SHARE / 4 / (self._forward * size / 2))))

    def _is_encoded(self) -> bool:
        """Tell whether the latent cache is up to date, which it can only be once the autoencoder is finished."""
        standing = find_standing(self.workspace.vae_run)
        if self.stages_left(standing):
            return False
        try:
            return is_complete(Encoding(self.workspace, Placement(torch.device("cpu"), "fp32")).folder)
        except LatentArtError:
            return False


def scratch_workspace(workspace: Workspace, folder: Path) -> Workspace:
    """Return a workspace like another in a folder apart: its own pictures, no trackers."""
    config = workspace.config
    return Workspace(folder, changed(config, {"data.root": "data", "tracking": type(config.tracking)()}))


def with_perceptual_weights(workspace: Workspace, names: Sequence[str]) -> tuple[Workspace, list[str]]:
    """Return a workspace with the random stand-in for LPIPS weights that its stages lack, and what to say of that."""
    try:
        require_perceptual_weights(
            workspace.config.vae, [stage for stage in workspace.config.vae.stages if stage.name in names]
        )
    except DownloadError as error:
        lacking = f"{error.message} {error.hint} LPIPS is tried with the small random backbone until then"
        config = changed(workspace.config, {"vae.perceptual.backbone": "random"})
        return Workspace(workspace.folder, config), [lacking]
    return workspace, []


def write_autoencoder(workspace: Workspace, names: list[str], shape: AnyAutoencoder | None = None) -> None:
    """Give a trial's workspace an autoencoder, else the config's: untrained, for that is as fast as a trained one."""
    config = workspace.config
    shape = shape or config.vae.model
    channels = shape.latent_channels
    normalizer, resolution = LatentNormalizer((0.0,) * channels, (1.0,) * channels), config.ldm.training.resolution
    about = describe_autoencoder(shape, names, normalizer, resolution=resolution, uses_tanh=False)
    about["training"] = {"vae": {"step": 0}}
    with torch.random.fork_rng(devices=[]):
        save_model(workspace.vae_run / "model", about, {"autoencoder": build_autoencoder(shape)})


def cache_variants(workspace: Workspace) -> int:
    """Return how many latents the cache holds of a picture."""
    return (1 + workspace.config.data.cache_crops) * (1 + workspace.config.data.flip)


def cache_bytes(workspace: Workspace, num_pictures: int) -> int:
    """Return the size of the latent cache: two bytes for each of a picture's moments."""
    shape = autoencoder_config(workspace)
    side = workspace.config.ldm.training.resolution // shape.factor
    return num_pictures * cache_variants(workspace) * 2 * shape.latent_channels * side * side * 2
