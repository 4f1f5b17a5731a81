"""Where a run goes on from: its newest sound checkpoint, one that is named, or nothing; and with which settings."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from latentart.errors import ModelError, UsageError
from latentart.model.folder import is_pretrained, trained_steps
from latentart.model.run_data import begin_anew
from latentart.process.reductions import largest_of_all
from latentart.storage.checkpoints import (
    Checkpoint,
    checkpoint_folder,
    find_checkpoint,
    list_checkpoints,
    load_checkpoint,
    step_of,
)
from latentart.storage.json_files import leaves

Kind = Literal["vae", "ldm"]

NETWORKS = {"vae": "autoencoder", "ldm": "denoiser"}
# what else than the pictures a run is trained by
READ = {"vae": ("seed", "data", "vae"), "ldm": ("seed", "data", "ldm")}
# what makes networks, their optimizers' state or the process another
SHAPING = (
    "vae.model",
    "vae.discriminator.base_channels",
    "vae.discriminator.num_layers",
    "vae.discriminator.groups",
    "vae.optimizer.kind",
    "ldm.model",
    "ldm.labels",
    "ldm.diffusion.num_steps",
    "ldm.diffusion.schedule",
    "ldm.diffusion.zero_terminal_snr",
    "ldm.diffusion.target",
    "ldm.training.resolution",
    "ldm.training.optimizer.kind",
    "ldm.training.run.ema.tracks",
)
# but for these, which shape no weights
FREE = ("vae.model.dropout", "vae.model.codebook_decay", "ldm.model.dropout")
LEARNED = "ldm.diffusion.weighting"
LARGEST_LEAP = 10.0  # of the rate from one update to the next, beside its schedule


@dataclass(frozen=True, kw_only=True)
class Call:
    """What one call of a training asks for beside the config: where it goes on from, and when it ends.

    Attributes:
        resume: ``auto`` takes the newest sound checkpoint, ``never`` begins in an empty run, a path is a checkpoint's.
        may_change_data: whether a run may go on with other pictures than it began with.
        adds_styles: whether a denoiser may, and gets room for those that are new.
        begin_with: the model folder whose denoiser an empty run begins with.
    """

    resume: Path | Literal["auto", "never"] = "auto"
    max_seconds: float | None = None
    max_steps: int | None = None
    may_change_data: bool = False
    adds_styles: bool = False
    begin_with: Path | None = None


def find_start(run: Path, resume: Path | Literal["auto", "never"], kind: Kind) -> Checkpoint | None:
    """Return the checkpoint that a run goes on from, None where it begins anew; nothing is changed.

    Raises:
        UsageError: what is there would be overwritten.
        ModelError: the checkpoint is damaged or of another kind, or none of those that are there is sound.
    """
    there = list_checkpoints(run)
    if isinstance(resume, Path):
        return _load_named(run, resume, there, kind)
    if resume == "never":
        found = [name for name in ("checkpoints", "averages", "model") if any((run / name).glob("*"))]
        if found:
            msg = f"{run} is not empty: it has {', '.join(found)}."
            raise UsageError(msg, f"{begin_anew(run, 'Move')}, or leave --resume never out to go on.")
        return None
    checkpoint = find_checkpoint(run)
    if checkpoint is None and there:
        msg = f"none of the {len(there)} checkpoints in {run} is sound."
        raise ModelError(msg, f"Put a sound copy there, or {begin_anew(run)}.")
    is_tuned = kind == "vae" and is_pretrained(run / "model") and not trained_steps(run / "model", "vae")
    if checkpoint is None and (run / "model").exists() and not is_tuned:
        msg = f"{run} has a model, but no checkpoint to go on from."
        raise ModelError(msg, f"{begin_anew(run, 'Move')}.")
    if checkpoint is not None:
        _require_state(checkpoint, checkpoint_folder(run, checkpoint.step), kind)
    return checkpoint


def _load_named(run: Path, folder: Path, there: list[Path], kind: Kind) -> Checkpoint:
    checkpoint = load_checkpoint(folder)
    _require_state(checkpoint, folder, kind)
    is_own = folder.resolve().parent == (run / "checkpoints").resolve()
    in_the_way = [path for path in there if not is_own or step_of(path) > checkpoint.step]
    if in_the_way:
        what = "others" if not is_own else f"newer ones than step {checkpoint.step}"
        msg = f"{run} has checkpoints, {what}, up to {in_the_way[-1].name}; going on from {folder} would replace them."
        raise UsageError(msg, f"Move {run} away first (and name {folder.name} there), or leave --resume out.")
    return checkpoint


def _require_state(checkpoint: Checkpoint, folder: Path, kind: Kind) -> None:
    """Refuse a checkpoint whose state is not one that such a run writes.

    Raises:
        ModelError: it is not.
    """
    match checkpoint.state:
        case {"step": int(step), "optimizers": {**_optimizers}, "data": dict(data), "config": {**_config}}:
            is_ours = step == checkpoint.step and _is_data(data)
        case _:
            is_ours = False
    if kind == "vae" and is_ours:
        match checkpoint.state:
            case {"stage": str(), "stage_step": int(stage_step), "stages_done": {**done}}:
                ends = list(done.values())
                is_ours = 0 <= stage_step <= checkpoint.step and all(type(end) is int and end >= 0 for end in ends)
            case _:
                is_ours = False
    if not is_ours or NETWORKS[kind] not in checkpoint.tensors:
        msg = f"{folder} is no checkpoint of the {NETWORKS[kind]}."
        raise ModelError(msg, f"Name a folder as {folder.parent / 'step-00001000'} that is.")


def _is_data(data: dict[str, Any]) -> bool:
    match data:
        case {"style_names": [*names], "num_pictures": int(), "fingerprint": str()}:
            columns = data.get("labels", [])
            named = isinstance(columns, list) and all(isinstance(c, dict) and "name" in c for c in columns)
            return named and all(isinstance(name, str) for name in names)
    return False


def require_same_start(step: int, run: Path) -> None:
    """Refuse to train where the processes see different checkpoints.

    Raises:
        ModelError: they do.
    """
    newest, oldest = largest_of_all([step, -step])
    if newest != -oldest:
        msg = f"the processes see different checkpoints in {run}: steps {-oldest} and {newest}."
        raise ModelError(msg, "All machines must work in the same folder, on a disk that they share.")


def require_same_settings(run: Path, checkpoint: Checkpoint, settings: Mapping[str, Any], kind: Kind) -> list[str]:
    """Return in words which settings have changed since a checkpoint, all of them such as may change.

    Raises:
        ModelError: others have; all are named.
    """
    changes = _changes(checkpoint.state.get("config", {}), settings, kind)
    refused = [change for path, change in changes if _is_shaping(path, change)]
    if refused:
        msg = f"the checkpoint in {run} does not fit the config: {'; '.join(refused)}."
        raise ModelError(msg, _put_back(run))
    return [change for _, change in changes]


def require_same_shape(folder: Path, settings_then: Mapping[str, Any], settings: Mapping[str, Any]) -> None:
    """Refuse a model to begin with that another network or process has, by the settings that are known of it.

    Raises:
        ModelError: so it is; the first few differences are named.
    """
    changes = _changes(settings_then, settings, "ldm")
    refused = [change for path, change in changes if path != LEARNED and _is_shaping(path, change)]
    if refused:
        msg = f"the model at {folder} does not fit the config: {'; '.join(refused[:4])}."
        raise ModelError(msg, "Set what was: only a network and a process of the same shape can begin with it.")


def require_no_leap(run: Path, checkpoint: Checkpoint, rate: Callable[[int], float], peak: float, own: int) -> None:
    """Refuse to go on where the last update's rate, as a share of its peak, would now be far larger than it was.

    So it is where a schedule that had come down is stretched. ``own`` counts the job's own updates, of which ``rate``
    is told; ``peak`` is the highest of its rates.

    Raises:
        ModelError: so it is.
    """
    state = checkpoint.state
    if not own or own != state.get("stage_step", checkpoint.step):
        return
    try:
        group, settings, stage = (
            state["optimizers"]["optimizer"]["param_groups"][0],
            state["config"],
            state.get("stage"),
        )
        former = float(group["lr"]) / float(group.get("lr_scale", 1.0))
        if stage is None:
            peak_then, steps_then = settings["ldm"]["training"]["optimizer"]["lr"], settings["ldm"]["training"]["steps"]
        else:
            one = next(one for one in settings["vae"]["stages"] if one["name"] == stage)
            peak_then, steps_then = one["lr"] or settings["vae"]["optimizer"]["lr"], one["steps"]
    except (KeyError, IndexError, TypeError, ValueError, StopIteration):
        return  # of an older form, or damaged, of which others tell
    now = rate(own - 1)
    if now / peak <= LARGEST_LEAP * former / peak_then:
        return
    msg = (
        f"the last update in {run} had a learning rate of {former:.2g}; with these settings it would leap to {now:.2g}."
    )
    length = "ldm.training" if stage is None else f"vae.stages.{stage}"
    raise ModelError(msg, f"Begin a new cycle with {length}.new_cycle_at={steps_then or own}, or put the steps back.")


@contextlib.contextmanager
def fitting(run: Path) -> Iterator[None]:
    """Say what to do where a checkpoint does not fit the networks or the optimizer.

    Raises:
        ModelError: it does not.
    """
    try:
        yield
    except (ModelError, KeyError) as error:
        reason = error.message if isinstance(error, ModelError) else f"{error} is missing."
        msg = f"the checkpoint in {run} does not fit the config: {reason}"
        raise ModelError(msg, _put_back(run)) from None


def _put_back(run: Path) -> str:
    return f"Put the config back as it was ({run / 'config.json'}), or {begin_anew(run)}."


def _is_shaping(path: str, change: str) -> bool:
    if path == LEARNED:
        return '"learned"' in change
    return any(f"{path}.".startswith(f"{group}.") for group in SHAPING) and path not in FREE


def _changes(settings_then: Mapping[str, Any], settings: Mapping[str, Any], kind: Kind) -> list[tuple[str, str]]:
    """Return (path, words) of every setting with another value than then; one that only one of both knows is none."""
    saved = dict(leaves(settings_then))
    return [
        (path, f"{path} was {json.dumps(saved[path])} and is {json.dumps(value)}")
        for path, value in leaves(settings)
        if path.partition(".")[0] in READ[kind] and path in saved and saved[path] != value
    ]
