"""A run's folder: who may write there, whether its disk has room, what it says of itself, and who else is told."""

from __future__ import annotations

import contextlib
import platform
import sys
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from latentart import __version__
from latentart.errors import ResourceError
from latentart.process.distributed import read_ranks, wait_for_all
from latentart.process.limits import Limits
from latentart.process.signals import without_harm_from_requests
from latentart.storage.checkpoints import checkpoint_folder, list_checkpoints, step_of
from latentart.storage.disk import checkpoint_bytes, folder_bytes, require_room, tensor_bytes
from latentart.storage.folders import remove_leftovers, write_json_atomic
from latentart.storage.lock import hold_lock
from latentart.storage.whole import require_folders
from latentart.training.job import Pace
from latentart.training.log import RunLog
from latentart.training.survival.resuming import READ, Kind
from latentart.training.trackers import TensorBoard, Tracker, Trackers, WeightsAndBiases

PLACES = ("raw", "root", "labels", "link_root")  # of the group data


@contextlib.contextmanager
def open_run(folder: Path, *others: Path) -> Iterator[None]:
    """Make a run's folder and keep other runs out; a folder in which nothing was written goes again.

    Of many processes the first does it, and the others come in once it has. ``others`` are written by the run too.

    Raises:
        ResourceError: one of its folders cannot be written, or another process trains in it.
    """
    if not read_ranks().is_first:
        with without_harm_from_requests():
            wait_for_all()
            yield
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        msg = f"{folder} cannot be made: {error.strerror}."
        raise ResourceError(msg, "Check who may use that folder, and what lies in its place.") from None
    try:
        with hold_lock(folder), without_harm_from_requests():
            own = [folder, *(folder / name for name in ("checkpoints", "averages", "previews"))]
            require_folders(*own, *others)
            for parent in own:
                if parent.is_dir():
                    # `latentart ema` writes into the first; in the others a killed run's id may be in use again
                    remove_leftovers(parent, is_locked=parent != folder)
            wait_for_all()
            yield
    finally:
        with contextlib.suppress(OSError):  # it holds files
            folder.rmdir()
            folder.parent.rmdir()


@dataclass(frozen=True)
class Session:
    """What one call brings to a run.

    Attributes:
        limits: when it ends. trackers: whom else it tells. changes: in words, what is not as at the checkpoint.
    """

    limits: Limits
    trackers: Trackers
    changes: Sequence[str]
    quiet: bool


def open_log(folder: Path, step: int, session: Session, title: str) -> RunLog:
    """Return the log of a run that goes on from ``step``, begun with its title; of many processes one alone writes."""
    is_first = read_ranks().is_first
    log = RunLog(folder if is_first else None, resume_step=step, trackers=session.trackers)
    log.note(title)
    if step:
        place = checkpoint_folder(folder, step)
        came_from = f"step-{step:08d} in {place.parent}" if place.is_dir() else f"step {step}"
        log.note(f"goes on from {came_from}: the checkpoints, previews and numbers up to there are kept")
    for change in session.changes:
        log.note(change)
    return log


def record_run(folder: Path, settings: Mapping[str, Any]) -> None:
    """Write the resolved settings and the machine into a run's folder."""
    write_json_atomic(folder / "config.json", settings)
    write_json_atomic(folder / "machine.json", describe_machine())


def describe_machine() -> dict[str, Any]:
    """Return what a run was made with: versions and devices, nothing personal."""
    return {
        "latentart": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "platform": f"{platform.system()} {platform.machine()}",
        "threads": torch.get_num_threads(),
        "processes": read_ranks().world_size,
        "devices": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
        "arguments": [Path(sys.argv[0]).name, *sys.argv[1:]],
    }


def require_disk(
    run: Path,
    pace: Pace,
    tensors: Mapping[str, Mapping[str, Tensor]],
    optimizers: Sequence[torch.optim.Optimizer],
    *,
    last: int,
    staying: Collection[int] = (),
    more: int = 0,
) -> None:
    """Refuse a run whose checkpoints, model and ``more`` bytes its disk has no room for.

    There are milestones up to step ``last``; the checkpoints of the steps in ``staying`` stay besides.

    Raises:
        ResourceError: so it is; the line names the settings that help.
    """
    keep, size, found = pace.keep_checkpoints, checkpoint_bytes(tensors, optimizers), list_checkpoints(run)
    newest = step_of(found[-1]) if found else 0
    milestones = {*staying, *pace.milestones(0, newest)}
    going = [folder for folder in found[-keep:] if step_of(folder) not in milestones]  # when others come
    to_come = keep + 1 + len(pace.milestones(newest, last))
    needed = max(size, to_come * size - sum(map(folder_bytes, going))) + tensor_bytes(tensors["ema"]) + more
    group = "vae.run" if "autoencoder" in tensors else "ldm.training.run"
    hint = f"Make room, lower {group}.keep_checkpoints ({keep}), or have the workspace or data.root on another disk."
    require_room(run, needed, hint)


def open_trackers(run: Path, settings: Mapping[str, Any], kind: Kind) -> Trackers:
    """Return what the settings ask for, of the first process only; nothing is opened before the training begins."""
    wanted, told = settings["tracking"], tracked_settings(settings, kind)
    build: dict[str, Callable[[], Tracker]] = {}
    if wanted["wandb"]:
        build["Weights & Biases"] = partial(WeightsAndBiases, run, wanted["project"], told)
    if wanted["tensorboard"]:
        build["TensorBoard"] = partial(TensorBoard, run / "tensorboard")
    return Trackers(build if read_ranks().is_first else {})


def tracked_settings(settings: Mapping[str, Any], kind: Kind) -> dict[str, Any]:
    """Return those that a run is trained by, without any place on this machine."""
    told: dict[str, Any] = {"preset": settings["preset"]} | {name: settings[name] for name in READ[kind]}
    told["data"] = {name: value for name, value in told["data"].items() if name not in PLACES}
    if "vae" in told:
        told["vae"] = {**told["vae"], "perceptual": {**told["vae"]["perceptual"], "weights": None}}
    return told
