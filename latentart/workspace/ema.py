"""`latentart ema`: an average of another width, made afterwards from the snapshots that a training left.

Launch: ``latentart ema --relative-std 0.13`` after a training with ``ldm.training.run.ema.tracks=[0.05,0.1]``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from latentart.core.ema import synthesis_weights
from latentart.errors import ModelError, UsageError
from latentart.layout import Workspace
from latentart.model.averages import Average, average_into, list_averages
from latentart.model.folder import MODEL_FILE, load_model, require_denoiser, save_model
from latentart.process.devices import Placement

MAX_MISS = 0.05  # of the profile's norm; beyond it the average would no longer be the one that was asked for
_WIDTHS = [round(0.01 + 0.005 * i, 3) for i in range(56)]


@dataclass(frozen=True)
class Synthesis:
    """A model folder whose denoiser is an average of snapshots, and how far its profile misses the one wanted."""

    model: Path
    step: int
    relative_std: float
    snapshots: int
    miss: float


def synthesize(workspace: Workspace, relative_std: float, step: int | None, out: Path | None) -> Synthesis:
    """Write a model folder whose denoiser is the average of the given width at ``step``, else at the last snapshot.

    Raises:
        ModelError: there are no snapshots, one is damaged, or there is no model to take the other parts from.
        UsageError: no snapshot of that step, a width out of reach, or something else lies at ``out``.
    """
    run = workspace.ldm_run
    averages = list_averages(run)
    if not averages:
        msg = f"{run} has no snapshots of averages."
        raise ModelError(msg, "Train with ldm.training.run.ema.tracks=[0.05,0.1]: the snapshots come in its course.")
    chosen = _choose_step(averages, step)
    used = [average for average in averages if average.step <= chosen]
    weights, miss = _choose_weights(used, chosen, relative_std)
    folder = out or run / f"model-std{relative_std:g}"
    _require_free(folder, run)
    model = load_model(run / "model", Placement(torch.device("cpu"), "fp32"))
    denoiser, _ = require_denoiser(model, run / "model")
    average_into(denoiser, used, weights)
    about: dict[str, Any] = {key: value for key, value in model.about.items() if key not in ("format", "latentart")}
    ldm = {**about["training"]["ldm"], "step": chosen, "relative_std": relative_std}
    about["training"] = {**about["training"], "ldm": ldm}
    save_model(folder, about, {"autoencoder": model.autoencoder, "denoiser": denoiser})
    return Synthesis(folder, chosen, relative_std, len(used), miss)


def _choose_step(averages: Sequence[Average], step: int | None) -> int:
    steps = sorted({average.step for average in averages})
    if step is None:
        return steps[-1]
    if step not in steps:
        near = min(steps, key=lambda known: abs(known - step))
        msg = f"there is no snapshot of step {step}; the nearest is of step {near}."
        raise UsageError(msg, f"Snapshots: {', '.join(map(str, steps))}.")
    return step


def _choose_weights(averages: Sequence[Average], step: int, relative_std: float) -> tuple[Tensor, float]:
    """Return the snapshots' weights and the miss, if that is small enough; else say which widths can be had."""
    start, stds = averages[0].start, [average.relative_std for average in averages]
    steps, updates = [average.step - start for average in averages], step - start
    if 0 < relative_std < 0.288:
        weights, miss = synthesis_weights(steps, stds, updates, relative_std)
        if miss <= MAX_MISS:
            return weights, miss
    reachable = [std for std in (*_WIDTHS, *stds) if synthesis_weights(steps, stds, updates, std)[1] <= MAX_MISS]
    msg = f"{len(averages)} snapshots up to step {step} make no average of width {relative_std:g}."
    raise UsageError(msg, f"They reach from {min(reachable):g} to {max(reachable):g}; more snapshots reach further.")


def _require_free(folder: Path, run: Path) -> None:
    """Refuse to write over anything but a model that is not the run's own."""
    if folder.resolve() == (run / "model").resolve():
        raise UsageError(f"{folder} is the run's own model.", "Name another folder with --out.")
    if folder.exists() and not (folder / MODEL_FILE).is_file():
        raise UsageError(f"{folder} is in the way: it is no model folder.", "Name another with --out.")
