"""`latentart runs`: the runs of a workspace, and others kept beside them, so that a second try has an empty place.

A kept run is a folder in ``runs/`` under a name of its own, which one rename gives it: nothing is copied or changed.
"""

from __future__ import annotations

import contextlib
import os
import re
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from latentart.errors import UsageError, listed, nearest
from latentart.kinds import ModelPart
from latentart.reporting.report import NETWORKS, find_run, network_of, planned_steps, read_object
from latentart.scoring.run_history import HELD_OUT_LOSS, LOG, METRICS, RunHistory
from latentart.storage.folders import discard_folder, move_folder
from latentart.storage.lock import LOCK, find_holder, hold_lock
from latentart.storage.whole import remove_temporaries

FILES = (METRICS, "config.json", LOG)  # one of them makes a folder a run
NAME = re.compile(r"[^\W_]([\w .+-]{0,58}[\w+-])?")
PLACES = {what: name for name, what in NETWORKS.items()}


@dataclass(frozen=True)
class Run:
    """A run as its files tell of it.

    Attributes:
        score: the name and value of its newest one, None where nothing is scored.
        modified: when its last number or sentence came, in seconds since 1970. state: finished, stopped or in training.
    """

    name: str
    what: ModelPart
    stage: str | None
    step: int
    planned: int | None
    held_out: float | None
    score: tuple[str, float] | None
    modified: float
    num_bytes: int
    state: str

    def to_json(self) -> dict[str, Any]:
        """Return everything as plain values."""
        return {
            "name": self.name,
            "network": self.what,
            "stage": self.stage,
            "step": self.step,
            "planned": self.planned,
            "held_out_loss": self.held_out,
            "score": None if self.score is None else dict([self.score]),
            "modified": datetime.fromtimestamp(self.modified).astimezone().isoformat(timespec="seconds"),
            "size_bytes": self.num_bytes,
            "state": self.state,
        }


def list_runs(runs: Path) -> list[Path]:
    """Return the folders of all runs, the newest first; a link is none."""
    found: list[tuple[float, Path]] = []
    with contextlib.suppress(OSError):
        for folder in runs.iterdir():
            is_ours = not folder.name.startswith(".") and not folder.is_symlink()
            found += [(modified_at(folder), folder)] if is_ours and modified_at(folder) else []
    return [folder for _, folder in sorted(found, reverse=True)]


def modified_at(run: Path) -> float:
    """Return when a run's last number or sentence came, in seconds since 1970; 0 where the folder is no run."""
    times = [0.0]
    with contextlib.suppress(OSError):
        times += [(run / name).stat().st_mtime for name in FILES if (run / name).is_file()]
    return max(times)


def describe(run: Path) -> Run:
    """Return what a run's files tell."""
    history, config = read_run(run), read_object(run / "config.json")
    about = read_object(run / "model/model.json")
    planned = planned_steps(config, about, history)
    trained = _trained(about, history.what)
    step = max(history.last_step, trained.get("step", 0))
    stage = list(history.stages)[-1] if history.stages else None
    is_finished = trained.get("step") == step and _is_last(trained, config, history.what)
    holder = find_holder(run)
    score = next(((name, history.fixed[name]) for name in ("recognition", "psnr") if name in history.fixed), None)
    return Run(
        run.name,
        history.what,
        stage,
        step,
        planned,
        history.fixed.get(HELD_OUT_LOSS[history.what]),
        score,
        modified_at(run),
        size_of(run),
        f"in use by {holder}" if holder else "finished" if is_finished else "stopped",
    )


def read_run(run: Path) -> RunHistory:
    """Return a run's numbers, as far as they can be read."""
    history = RunHistory(run, network_of(run))
    with contextlib.suppress(OSError):
        history.read()
    return history


def _trained(about: dict[str, Any], what: ModelPart) -> dict[str, Any]:
    """Return what a model folder says of its training."""
    with contextlib.suppress(LookupError, TypeError):
        trained = about["training"][PLACES[what]]
        return trained if isinstance(trained["step"], int) else {}
    return {}


def _is_last(trained: dict[str, Any], config: dict[str, Any], what: ModelPart) -> bool:
    """Tell whether a model was written at the end of the last step or stage that its run was to have."""
    with contextlib.suppress(LookupError, TypeError):
        if what == "denoiser":
            return bool(trained["step"] >= (config["ldm"]["training"]["steps"] or trained["steps"]))
        return bool(trained["stage"] == config["vae"]["stages"][-1]["name"])
    return False


def size_of(folder: Path) -> int:
    """Return the bytes of all files in a folder; what goes meanwhile counts for nothing."""
    total = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):
                total += Path(parent, name).lstat().st_size
    return total


def require_run(runs: Path, name: str) -> Path:
    """Return the folder of a run.

    Raises:
        UsageError: there is none of that name; the nearest is offered.
    """
    known = {folder.name: folder for folder in list_runs(runs)}
    if name not in known:
        hint = f"There are: {listed(sorted(known))}." if known else "Train first."
        raise UsageError(f"there is no run '{name}' in {runs}.{nearest(name, known)}", hint)
    return known[name]


def keep(runs: Path, name: str, asked: str | None) -> Path:
    """Move the denoiser's run, where there is one, or else the autoencoder's to a name, and return where it lies.

    The place that it leaves is free for a training that begins anew.

    Raises:
        UsageError: it is no name, or is taken; there is no run to keep, or a denoiser stands on it.
        ResourceError: a training is in it, or the disk does not take it.
    """
    if not NAME.fullmatch(name) or name.casefold() in NETWORKS:
        msg = f"'{name}' is no name for a kept run."
        raise UsageError(msg, "Take up to 60 letters, digits, dashes and dots, other than vae and ldm.")
    run, kept = find_run(runs, asked), runs / name
    if run.is_symlink():
        raise UsageError(f"{run} is a link; only what lies in {runs} itself can be kept.", "Move it yourself.")
    _require_free(kept)
    _require_nothing_on(run)
    return _move(run, kept)


def restore(runs: Path, name: str) -> Path:
    """Move a kept run back to where trainings go on, and return that place.

    Raises:
        UsageError: there is no such run, or another one is in its place.
        ResourceError: it is in use, or the disk does not take it.
    """
    kept = require_run(runs, name)
    run = runs / PLACES[network_of(kept)]
    if kept == run:
        raise UsageError(f"{run} is where trainings go on.", "Name a kept run.")
    _require_free(run, f"Keep it first: `latentart runs keep NAME {run.name}`.")
    return _move(kept, run)


def remove(runs: Path, name: str) -> int:
    """Delete a run for good, and return how many bytes it had.

    Raises:
        UsageError: there is no such run, or a denoiser stands on it.
        ResourceError: a training is in it, or the disk does not let it go.
    """
    run = require_run(runs, name)
    _require_nothing_on(run)
    num_bytes = size_of(run)
    with hold_lock(run):
        discard_folder(run)
    with contextlib.suppress(OSError):
        remove_temporaries(runs)  # of a call that was killed
    return num_bytes


def _move(run: Path, new: Path) -> Path:
    with hold_lock(run):
        move_folder(run, new)
        with contextlib.suppress(OSError):
            (new / LOCK).unlink()  # it has come along
    return new


def _require_free(place: Path, hint: str = "Take another name.") -> None:
    if os.path.lexists(place):
        raise UsageError(f"{place} is there already.", hint)


def _require_nothing_on(run: Path) -> None:
    """Refuse to take the autoencoder from below a denoiser, which could go on with no other one."""
    denoiser = run.with_name("ldm")
    if run.name == "vae" and modified_at(denoiser):
        msg = f"{denoiser} is trained on the latents of {run}, and cannot go on without it."
        raise UsageError(msg, "Keep that one first: `latentart runs keep NAME ldm`.")
