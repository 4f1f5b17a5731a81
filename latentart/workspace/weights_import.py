"""`latentart weights import`: a file that others made becomes a model of this workspace, if every tensor fits.

Launch: ``latentart weights import old.pt --as autoencoder`` in a workspace with clean pictures.
"""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from latentart.builders import build_autoencoder, build_denoiser
from latentart.errors import ModelError, UsageError
from latentart.kinds import ModelPart
from latentart.layout import Workspace
from latentart.model.description import describe_autoencoder, read_pretrained
from latentart.model.folder import find_autoencoder, load_model, save_model
from latentart.model.labels import label_columns
from latentart.model.weights.foreign import (
    Found,
    find_pretrained,
    fit_foreign,
    read_foreign,
    read_pretrained_tensors,
)
from latentart.process.devices import Placement
from latentart.scoring.reconstructions import Evaluation
from latentart.storage.checkpoints import list_checkpoints
from latentart.storage.checksums import sha256_of
from latentart.storage.folders import read_json

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Imported:
    """The model folder that was written, where in the file its weights were, and how many numbers they are."""

    model: Path
    key: str
    prefix: str
    parameters: int


def import_weights(
    workspace: Workspace, file: Path, part: ModelPart, key: str | None, out: Path | None, placement: Placement
) -> Imported:
    """Write a model folder with a file's weights: by default the run's own, where `encode` and `sample` look.

    The autoencoder's latents are measured on the workspace's pictures; a denoiser comes with the workspace's
    autoencoder. Nothing that is there is overwritten, and nothing is written unless every tensor fits.

    Raises:
        UsageError: something lies at ``out``, or several groups of tensors fit.
        ModelError: the file cannot be read or does not fit, or a denoiser has no autoencoder to go with.
        DataError: there are no clean pictures.
    """
    run = workspace.vae_run if part == "autoencoder" else workspace.ldm_run
    folder = out or run / "model"
    if os.path.lexists(folder):
        raise UsageError(f"{folder} exists; nothing is overwritten.", "Name another folder with --out.")
    if out is None and list_checkpoints(run):
        msg = f"{run} has checkpoints of its own, so this cannot be its model."
        raise UsageError(msg, f"Name another folder with --out, or move {run} away.")
    weights = file
    if part == "autoencoder" and file.is_dir():
        config, weights = find_pretrained(file)
        about, networks, found = _import_pretrained(workspace, config, weights, key, placement)
    else:
        build = _import_autoencoder if part == "autoencoder" else _import_denoiser
        about, networks, found = build(workspace, read_foreign(file), key, placement)
    name = "vae" if part == "autoencoder" else "ldm"
    imported = {"step": 0, "imported": file.resolve().name, "sha256": sha256_of(weights)}
    trained = about.get("training", {})
    about["training"] = {**trained, name: {**imported, **trained.get(name, {})}}
    if found.others:
        logger.warning("left out: %d tensors of other parts, such as '%s'", len(found.others), found.others[0])
    save_model(folder, about, networks, replace=False)
    return Imported(folder, found.key, found.prefix, sum(p.numel() for p in networks[part].parameters()))


Content = tuple[dict[str, Any], dict[str, nn.Module], Found]


def _import_autoencoder(workspace: Workspace, groups: Any, key: str | None, placement: Placement) -> Content:
    """Return what a model folder of the config's autoencoder holds; its output is that of the last stage."""
    entries, names = workspace.read_pictures()
    config, stage = workspace.config.vae.model, workspace.config.vae.stages[-1]
    autoencoder = build_autoencoder(config)
    autoencoder.uses_tanh = stage.tanh
    found = fit_foreign(autoencoder, groups, "autoencoder", key)
    autoencoder.load_state_dict(found.tensors)
    placement.place(autoencoder).eval()
    evaluation = Evaluation(workspace, entries, names, stage.resolution, placement)
    normalizer = evaluation.measure(autoencoder).normalizer()
    error = evaluation.error(autoencoder)
    logger.info("reconstructs this workspace's pictures with a mean error of %.3f of 2", error)
    about = describe_autoencoder(config, names, normalizer, resolution=stage.resolution, uses_tanh=stage.tanh)
    return about, {"autoencoder": autoencoder}, found


def _import_pretrained(
    workspace: Workspace, path: Path, weights: Path, key: str | None, placement: Placement
) -> Content:
    """Return what a model folder of an autoencoder that diffusers builds holds, scored at the denoiser's resolution."""
    entries, names = workspace.read_pictures()
    config = read_pretrained(read_json(path), path, weights)
    workspace.require_resolution(config.factor)
    autoencoder = build_autoencoder(config)
    found = fit_foreign(autoencoder, {"": read_pretrained_tensors(weights)}, "autoencoder", key)
    if found.others:  # it is another network than its config says
        raise ModelError(f"The saved autoencoder does not fit: '{found.others[0][:200]}' is not part of it.")
    autoencoder.load_state_dict(found.tensors)
    placement.place(autoencoder).eval()
    resolution = workspace.config.ldm.training.resolution
    evaluation = Evaluation(workspace, entries, names, resolution, placement)
    normalizer = evaluation.measure(autoencoder).normalizer()
    if not all(map(math.isfinite, (*normalizer.mean, *normalizer.std, evaluation.error(autoencoder)))):
        raise ModelError(f"{weights} makes numbers of these pictures that are not finite.")
    scores = evaluation.score(autoencoder, None)
    logger.info(
        "%s, %d latent channels, %d times smaller: %s", config.class_name, config.latent_channels, config.factor, scores
    )
    logger.info("its own factors of scale and shift are not used: latents are normalized by these pictures")
    about = describe_autoencoder(config, names, normalizer, resolution=resolution, uses_tanh=False)
    about["training"] = {"vae": scores.to_json()}
    return about, {"autoencoder": autoencoder}, found


def _import_denoiser(workspace: Workspace, groups: Any, key: str | None, placement: Placement) -> Content:
    """Return what a model folder of the config's denoiser holds, beside the workspace's autoencoder."""
    entries, names = workspace.read_pictures()
    columns = label_columns(entries, workspace.config.ldm.labels)
    model = load_model(find_autoencoder(workspace), placement)
    counts: Sequence[int] = [len(names), *(len(column.values) for column in columns)]
    denoiser = build_denoiser(workspace.config.ldm.model, model.autoencoder.latent_channels, counts)
    found = fit_foreign(denoiser, groups, "denoiser", key)
    denoiser.load_state_dict(found.tensors)
    logger.info("its styles are taken to be this workspace's, in this order: %s", ", ".join(names))
    about = {
        **{name: value for name, value in model.about.items() if name not in ("format", "latentart", "labels")},
        "resolution": workspace.config.ldm.training.resolution,
        "style_names": names,
        **({"labels": [column.to_json() for column in columns]} if columns else {}),
        "denoiser": workspace.config.ldm.model.model_dump(mode="json"),
        "diffusion": workspace.config.ldm.diffusion.model_dump(mode="json"),
    }
    return about, {"autoencoder": model.autoencoder, "denoiser": denoiser}, found
