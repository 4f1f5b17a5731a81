"""`latentart weights import`: a file that others made becomes a model of this workspace, if every tensor fits.

Launch: ``latentart weights import old.pt --as autoencoder`` in a workspace with clean pictures.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from latentart.builders import build_autoencoder, build_denoiser
from latentart.errors import UsageError
from latentart.kinds import ModelPart
from latentart.layout import Workspace
from latentart.model.description import describe_autoencoder
from latentart.model.folder import find_autoencoder, load_model, save_model
from latentart.model.labels import label_columns
from latentart.model.weights.foreign import Found, fit_foreign, read_foreign
from latentart.process.devices import Placement
from latentart.scoring.reconstructions import Evaluation
from latentart.storage.checkpoints import list_checkpoints
from latentart.storage.checksums import sha256_of

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
    groups = read_foreign(file)
    build = _import_autoencoder if part == "autoencoder" else _import_denoiser
    about, networks, found = build(workspace, groups, key, placement)
    name = "vae" if part == "autoencoder" else "ldm"
    imported = {"step": 0, "imported": file.name, "sha256": sha256_of(file)}
    about["training"] = {**about.get("training", {}), name: imported}
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
