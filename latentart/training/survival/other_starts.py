"""Starts that are not from nothing: with the weights of another model, or with more styles than a run had.

``start.json`` in a run says which model it began with, so that a call after a crash needs no option to begin alike.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from latentart.errors import ModelError, UsageError, listed
from latentart.model.description import read_description
from latentart.model.folder import MODEL_FILE, load_model, require_denoiser, weights_hash
from latentart.model.label_rows import TABLE, Rows
from latentart.process.devices import Placement
from latentart.storage.checkpoints import Checkpoint
from latentart.storage.folders import read_json, write_json_atomic
from latentart.storage.saved_values import Saved, read_saved
from latentart.storage.tensors import load_matching
from latentart.training.steps.ldm_step import LdmStep
from latentart.training.survival.resuming import require_same_shape

START = "start.json"


class _Noted(Saved):
    """What ``start.json`` holds: where the model lay, and the SHA-256 of its denoiser."""

    model: str
    denoiser: str


@dataclass(frozen=True)
class Origin:
    """The model that a run begins with: its folder, the SHA-256 of its denoiser, what is taken of it, a word on that.

    Attributes:
        weights: its denoiser's. rows: how its table of labels becomes the run's.
        latents: the scale of the latents that it knows.
    """

    folder: Path
    sha256: str
    weights: Mapping[str, Tensor]
    rows: Rows
    latents: Mapping[str, Any]
    note: str

    def begin(self, step_fn: LdmStep) -> None:
        """Give a denoiser and its averages the weights; the optimizer is new."""
        weights = {**self.weights, TABLE: self.rows.carry(self.weights[TABLE], step_fn.seed)}
        for network in (step_fn.denoiser, step_fn.ema.network, *(track.network for track in step_fn.tracks.values())):
            load_matching(network, weights, "denoiser")

    def write_note(self, run: Path) -> None:
        """Note in a run what it begins with."""
        write_json_atomic(run / START, {"model": str(self.folder), "denoiser": self.sha256})


def find_origin(run: Path, asked: Path | None, checkpoint: Checkpoint | None) -> Path | None:
    """Return the model folder that a run is to begin with: the one asked for, else the one it has noted.

    None where it begins from nothing, or goes on.

    Raises:
        UsageError: the run goes on and did not begin with the model asked for.
        ModelError: its note is damaged, or the model that it names is another by now.
    """
    path, noted = run / START, None
    if path.is_file():
        noted = read_saved(_Noted, read_json(path), path)
    if checkpoint is not None:
        if asked is not None and (noted is None or Path(noted.model) != asked.resolve()):
            msg = f"{run} is at step {checkpoint.step} and did not begin with {asked}."
            raise UsageError(msg, f"Move {run} away to begin with it, or leave --from out to go on.")
        return None
    if asked is not None or noted is None:
        return asked.resolve() if asked else None
    folder = Path(noted.model)
    if not (folder / MODEL_FILE).is_file() or weights_hash(folder, "denoiser") != noted.denoiser:
        msg = f"{run} was to begin with the model at {folder}, which has changed or gone since."
        raise ModelError(msg, f"Name one with --from, or delete {path} to begin from nothing.")
    return folder


def read_origin(folder: Path, settings: Mapping[str, Any], data: Mapping[str, Any]) -> Origin:
    """Return what a run with these settings and data takes of a model folder.

    Raises:
        ModelError: it is damaged, has no denoiser or one of another shape, or its latents are another autoencoder's.
    """
    model = load_model(folder, Placement(torch.device("cpu"), "fp32"))
    denoiser, _ = require_denoiser(model, folder)
    theirs, ours = weights_hash(folder), data["autoencoder"]
    if theirs != ours:
        msg = f"the model at {folder} draws latents of another autoencoder (SHA-256 {theirs[:12]}…, here {ours[:12]}…)."
        hint = f"`latentart weights import {folder}/autoencoder.safetensors --as autoencoder` takes it into a workspace"
        raise ModelError(msg, f"{hint} that has none yet: move runs/vae away first, or begin without --from.")
    about = read_description(model.about, folder / MODEL_FILE).model_dump(mode="json")
    require_same_shape(folder, {"ldm": {"model": about["denoiser"], "diffusion": about["diffusion"]}}, settings)
    rows, sha256 = Rows.between(about, data), weights_hash(folder, "denoiser")
    new = f"new, beside the null row: {listed(rows.names, 10)}" if rows.names else "none is new"
    note = f"begins with the weights of {folder} (denoiser {sha256[:12]}…); of the styles and labels {new}"
    return Origin(folder, sha256, dict(denoiser.state_dict()), rows, about["latents"], note)


def restore_with_room(step_fn: LdmStep, checkpoint: Checkpoint, data: Mapping[str, Any]) -> None:
    """Take a checkpoint, with rows for the styles and labels of ``data`` that it has not; then the averages begin anew.

    Old rows and their moments stay as they are. An average begins with the weights and spans its share of the updates
    from here on: what was before knew nothing of the new ones.

    Raises:
        ModelError: it does not fit otherwise.
    """
    rows, tensors = Rows.between(checkpoint.state["data"], data), dict(checkpoint.tensors)
    is_larger = len(rows.source) > len(tensors["denoiser"][TABLE])
    if is_larger:
        for name, part in checkpoint.tensors.items():
            if TABLE in part:
                tensors[name] = {**part, TABLE: rows.carry(part[TABLE], step_fn.seed)}
        parameters = [parameter for group in step_fn.optimizer.param_groups for parameter in group["params"]]
        index = next(i for i, one in enumerate(parameters) if one is step_fn.denoiser.style_embedding.weight)
        names = tensors["optimizer"].keys() & {f"{index}.exp_avg", f"{index}.exp_avg_sq"}
        moments = {name: rows.carry_state(tensors["optimizer"][name]) for name in names}
        tensors["optimizer"] = {**tensors["optimizer"], **moments}
    step_fn.restore(tensors, checkpoint.state["optimizers"])
    if is_larger:
        step_fn.averages_from = checkpoint.step
