"""What both trainings do around their loop: the run's folder, what a resumed run must find unchanged, the stop."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from latentart import __version__
from latentart.config.workspace import Config
from latentart.data.index import IndexEntry, index_fingerprint
from latentart.errors import DataError, ModelError, ResourceError, StoppedBySignal
from latentart.training.checkpoint import Checkpoint, checkpoint_folder, prune_checkpoints, save_checkpoint
from latentart.training.folders import remove_leftovers, write_json_atomic
from latentart.training.log import RunLog
from latentart.training.loop import StepReport
from latentart.training.progress import Progress


@contextlib.contextmanager
def open_run(folder: Path) -> Iterator[None]:
    """Make a run's folder and keep other processes out; a folder in which nothing was written goes again.

    Raises:
        ResourceError: the folder cannot be written, or another process trains in it.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        msg = f"{folder} cannot be made: {error.strerror}."
        raise ResourceError(msg) from None
    lock = folder / "lock"
    _take_lock(lock)
    try:
        for parent in (folder, folder / "checkpoints", folder / "averages"):
            if parent.is_dir():
                remove_leftovers(parent)
        yield
    finally:
        lock.unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # it holds files
            folder.rmdir()
            folder.parent.rmdir()


def record_run(folder: Path, config: Config) -> None:
    """Write the resolved config and the machine into a run's folder."""
    write_json_atomic(folder / "config.json", config.to_json())
    write_json_atomic(folder / "machine.json", describe_machine())


def _take_lock(lock: Path) -> None:
    try:
        holder = int(lock.read_text())
        os.kill(holder, 0)
    except (FileNotFoundError, ValueError, ProcessLookupError):
        pass
    except PermissionError:
        raise _locked(lock, "another user's process") from None
    else:
        if holder != os.getpid():
            raise _locked(lock, f"process {holder}")
    try:
        lock.write_text(str(os.getpid()))
    except OSError as error:
        msg = f"{lock.parent} cannot be written: {error.strerror}."
        raise ResourceError(msg) from None


def _locked(lock: Path, holder: str) -> ResourceError:
    return ResourceError(f"{lock.parent} is in use by {holder}.", f"Wait for it, or delete {lock} if it is gone.")


def describe_machine() -> dict[str, Any]:
    """Return what a run was made with: versions and devices, nothing personal."""
    return {
        "latentart": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "platform": f"{platform.system()} {platform.machine()}",
        "threads": torch.get_num_threads(),
        "devices": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
        "arguments": [Path(sys.argv[0]).name, *sys.argv[1:]],
    }


NETWORKS = ("vae.model", "vae.discriminator", "ldm.model")
OTHERS = ("vae.optimizer", "ldm.training.optimizer", "ldm.training.run.ema", "ldm.diffusion")
# of those groups only these settings shape what is saved
SHAPING = (
    "vae.optimizer.kind ",
    "ldm.training.optimizer.kind ",
    "ldm.training.run.ema.tracks ",
    "ldm.diffusion.weighting ",
)
# what shapes no network
HARMLESS = tuple(
    f"vae.discriminator.{name} "
    for name in (
        "lr",
        "weight_decay",
        "loss",
        "adaptive_limit",
        "r1",
        "r1_every",
        "plateau_steps",
        "plateau_gain",
        "guard",
    )
)


@contextlib.contextmanager
def fitting(run: Path, checkpoint: Checkpoint | None, config: Config) -> Iterator[None]:
    """Say what to do where a checkpoint does not fit the config's networks or optimizer, and which settings changed.

    Raises:
        ModelError: it does not.
    """
    try:
        yield
    except ModelError as error:
        saved, now = checkpoint.state.get("config", {}) if checkpoint else {}, config.to_json()
        changes = [
            change
            for path in (*NETWORKS, *OTHERS)
            for change in changed_settings(_group(saved, path), _group(now, path), path)
            if (change.startswith(SHAPING) if path in OTHERS else not change.startswith(HARMLESS))
        ]
        why = f" {'; '.join(changes)}." if changes else ""
        msg = f"the checkpoint in {run} does not fit the config: {error.message}{why}"
        hint = f"Put the config back as it was ({run / 'config.json'}), or move {run} away to begin anew."
        raise ModelError(msg, hint) from None


def _group(tree: Mapping[str, Any], path: str) -> Mapping[str, Any]:
    for name in path.split("."):
        tree = tree.get(name, {})
    return tree


def changed_settings(saved: Mapping[str, Any], now: Mapping[str, Any], path: str) -> list[str]:
    """Say in words which settings of one group had another value when a run began."""
    return [
        f"{path}.{name} was {json.dumps(saved[name])} and is {json.dumps(value)}"
        for name, value in now.items()
        if name in saved and saved[name] != value
    ]


def describe_pictures(entries: list[IndexEntry], style_names: list[str], held_out: float) -> dict[str, Any]:
    """Return what a run is trained on: one that goes on must find it unchanged."""
    return {
        "fingerprint": index_fingerprint(entries),
        "num_pictures": len(entries),
        "style_names": style_names,
        "held_out": held_out,
    }


def require_same_data(saved: dict[str, Any], now: dict[str, Any], run: Path) -> None:
    """Refuse to go on with other pictures, styles or latents than a run began with.

    Raises:
        DataError: the pictures differ.
        ModelError: the autoencoder that made the latents differs.
    """
    if saved == now:
        return
    if {**saved, "held_out": now["held_out"]} == now:
        msg = f"data.held_out was {saved.get('held_out', 0)} when {run} began and is {now['held_out']}."
        raise DataError(msg, f"Put it back, or move {run} away to begin anew with other pictures held out.")
    if _without_labels(saved) == _without_labels(now):
        msg = f"the labels that {run} is trained with have changed since it began{_label_changes(saved, now)}."
        raise DataError(msg, f"Put ldm.labels and the table back, or move {run} away to begin anew.")
    if saved == {**now, "autoencoder": saved.get("autoencoder")}:
        msg = f"the autoencoder has been trained on since {run} began, so its latents are others."
        raise ModelError(msg, f"Move {run} away to begin anew.")
    gone = [name for name in saved["style_names"] if name not in now["style_names"]]
    new = [name for name in now["style_names"] if name not in saved["style_names"]]
    changes = [f"styles gone: {', '.join(gone)}"] * bool(gone) + [f"styles new: {', '.join(new)}"] * bool(new)
    changes += [f"{saved['num_pictures']} pictures then, {now['num_pictures']} now, not all the same"] * (not changes)
    msg = f"the pictures have changed since {run} began ({'; '.join(changes)})."
    raise DataError(msg, f"Put them back, or move {run} away to begin anew.")


def _without_labels(data: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in data.items() if name not in ("labels", "labels_fingerprint")}


def _label_changes(saved: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """Say which columns there were and are, where they differ."""
    names = [", ".join(column["name"] for column in data.get("labels", [])) or "none" for data in (saved, now)]
    return f" (columns: {names[0]} then, {names[1]} now)" if names[0] != names[1] else ""


class RunKeeper:
    """Says what happens once in a while in a run: numbers to the log, progress to the screen, checkpoints."""

    def __init__(self, run: Path, log: RunLog, progress: Progress, *, log_every: int, keep: int) -> None:
        self.run, self.log, self.progress = run, log, progress
        self.log_every, self.keep = log_every, keep
        self._rate: float | None = None
        self._seconds, self._data_seconds = 0.0, 0.0

    def is_due(self, at: int, *, is_last: bool) -> bool:
        """Tell whether the run's step ``at`` is logged."""
        return is_last or at % self.log_every == 0

    def report(
        self, report: StepReport, batch_size: int, *, at: int, is_last: bool, **extra: str | float | None
    ) -> None:
        """Show a step, and log it where it is due; ``at`` is the run's own step."""
        rate = batch_size / max(report.seconds, 1e-9)
        self._rate = rate if self._rate is None else 0.95 * self._rate + 0.05 * rate
        self._seconds += report.seconds
        self._data_seconds += report.data_seconds
        self.progress.update(report.step, loss=report.scalars["loss"], images_per_second=self._rate)
        if self.is_due(at, is_last=is_last):
            scalars = {name: float(value) for name, value in report.scalars.items()}
            self.log.metrics(
                at,
                **scalars,
                lr=report.lr,
                images_per_second=self._rate,
                data_share=self._data_seconds / max(self._seconds, 1e-9),  # since the line before
                time=time.time(),
                **extra,
            )
            self._seconds, self._data_seconds = 0.0, 0.0

    def save(
        self, step: int, tensors: dict[str, dict[str, Tensor]], state: dict[str, Any], milestones: list[int]
    ) -> None:
        """Write a checkpoint, in place of a damaged one of this step, then let the oldest go."""
        save_checkpoint(checkpoint_folder(self.run, step), tensors, {"step": step, **state})
        prune_checkpoints(self.run, self.keep, milestones)


def stop_for(received: int, run: Path, step: int) -> StoppedBySignal:
    """Return the error that ends a run which a signal stopped."""
    return StoppedBySignal(f"stopped by a signal; step {step} is saved in {run}.", received)
