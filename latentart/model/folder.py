"""A model folder: everything that sampling needs and nothing else.

``model.json`` (architecture, style names, latent statistics, schedule, training summary), ``autoencoder.safetensors``,
``denoiser.safetensors`` and ``MANIFEST.json`` with a SHA-256 of each.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import nn

from latentart import __version__
from latentart.builders import AnyAutoencoder, build_autoencoder, build_denoiser, build_task
from latentart.core.diffusion.objective import DiffusionTask
from latentart.core.latents import LatentNormalizer
from latentart.core.networks.autoencoder import Autoencoder
from latentart.core.networks.conditioning import Denoiser
from latentart.data.names import one_spelling
from latentart.errors import ModelError, UsageError, listed, nearest, shortened
from latentart.layout import Workspace
from latentart.model.description import FORMAT, Description, read_description, require_fitting_files, unknown_model
from latentart.process.devices import Placement
from latentart.process.memory import explain_out_of_memory
from latentart.storage.folders import commit_folder, read_json, recover_folder, verify_folder, write_json_atomic
from latentart.storage.tensors import load_matching, read_tensors, require_finite, write_tensors

MODEL_FILE = "model.json"


@dataclass(frozen=True)
class Model:
    """A trained model, its networks placed and in evaluation mode.

    Attributes:
        about: the content of model.json.
        denoiser, task: None where only the autoencoder is trained so far.
    """

    about: dict[str, Any]
    autoencoder: Autoencoder
    normalizer: LatentNormalizer
    denoiser: Denoiser | None = None
    task: DiffusionTask | None = None

    @property
    def style_names(self) -> list[str]:
        """The styles in the order of their ids."""
        return list(self.about["style_names"])

    @property
    def resolution(self) -> int:
        """Side of the pictures it was trained on, in pixels."""
        return int(self.about["resolution"])

    def style_id(self, style: str) -> int:
        """Return the id of a style, asked for as written or without regard to case, spaces and underscores.

        Raises:
            UsageError: no such style; the nearest is offered.
        """
        found = self.find_style(style)
        if found is None:
            msg = f"this model has no style '{shortened(style)}'.{nearest(style, self.style_names)}"
            raise UsageError(msg, f"Styles: {listed(self.style_names)}.")
        return found

    def find_style(self, style: str) -> int | None:
        """Return the id of a style asked for as ``style_id`` takes it, None where there is none."""
        return self._styles.find(style)

    @cached_property
    def _styles(self) -> Places:
        return Places(self.about["style_names"])

    @property
    def most_plus_signs(self) -> int:
        """The most plus signs that the name of a style has."""
        return self._styles.most_plus_signs

    @property
    def label_columns(self) -> dict[str, list[str]]:
        """The values of each column of labels beside the style, in the order of their ids; a folder may have none."""
        return {str(column["name"]): list(column["values"]) for column in self.about.get("labels", [])}

    def label(self, text: str) -> tuple[str, str]:
        """Return (column, value) of ``column=value``, each asked for as a style is.

        Raises:
            UsageError: no such column or value; the nearest is offered.
        """
        columns = self.label_columns
        if not columns:
            msg = f"'{text}': this model knows no labels beside its styles."
            raise UsageError(msg, "Train one with ldm.labels=[…], which names columns of the table of labels.")
        name, equals, value = text.partition("=")
        name = next((known for known in columns if text.startswith(f"{known}=")), name)
        place = Places(list(columns)).find(name)
        if not equals or place is None:
            msg = f"'{text}' names no column of labels.{nearest(name, columns)}"
            raise UsageError(msg, f"Write COLUMN=VALUE. Columns: {', '.join(columns)}.")
        column = list(columns)[place]
        value = text[len(name) + 1 :]
        found = Places(columns[column]).find(value)
        if found is None:
            msg = f"this model has no {column} '{shortened(value)}'.{nearest(value, columns[column])}"
            raise UsageError(msg, f"Values: {listed(columns[column])}.")
        return column, columns[column][found]


class Places:
    """Where names stand in a list, found at once however many there are."""

    def __init__(self, known: Sequence[str]) -> None:
        self._exact = {name: i for i, name in reversed(list(enumerate(known)))}
        self._folded: dict[str, int | None] = {}
        for i, name in enumerate(known):
            self._folded[_fold(name)] = None if _fold(name) in self._folded else i
        self.most_plus_signs = max((name.count("+") for name in known), default=0)

    def find(self, name: str) -> int | None:
        """Return the place of a name as written, else of the only one that is the same but for case and separators."""
        return self._exact.get(name, self._folded.get(_fold(name)))


def _fold(name: str) -> str:
    return one_spelling(name).casefold().replace("_", " ").replace("-", " ")


def save_model(folder: Path, about: dict[str, Any], networks: dict[str, nn.Module], *, replace: bool = True) -> None:
    """Write a model folder, in place of an older one if that may go: at every instant a whole one is there.

    Raises:
        ResourceError: the disk does not take it, or one is there that may not go.
    """

    def write(temporary: Path) -> None:
        write_json_atomic(temporary / MODEL_FILE, {"format": FORMAT, "latentart": __version__, **about})
        for name, network in networks.items():
            write_tensors(temporary / f"{name}.safetensors", dict(network.state_dict()))

    commit_folder(folder, write, replace=replace)


def load_model(folder: Path, placement: Placement) -> Model:
    """Read a model folder.

    Raises:
        ModelError: it is missing, damaged, from a newer version, or its parts do not fit.
    """
    recover_folder(folder)
    if not (folder / MODEL_FILE).is_file():
        msg = f"there is no model at {folder}."
        hint = (
            "Train one with `latentart train vae` and `latentart train ldm`, or give --model DIR, as runs/NAME/model."
        )
        raise ModelError(msg, hint)
    about = read_json(folder / MODEL_FILE)
    description = read_description(about, folder / MODEL_FILE)
    require_fitting_files(folder, description)
    verify_folder(folder)
    try:
        model = _build(folder, about, description)
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and explain_out_of_memory(error):
            raise
        raise unknown_model(folder / MODEL_FILE, error) from None
    for network in (model.autoencoder, model.denoiser):
        if network is not None:
            placement.place(network).eval().requires_grad_(requires_grad=False)
    return model


def _build(folder: Path, about: dict[str, Any], description: Description) -> Model:
    autoencoder = build_autoencoder(description.autoencoder)
    autoencoder.uses_tanh = description.uses_tanh
    normalizer = LatentNormalizer(tuple(description.latents.mean), tuple(description.latents.std))
    _load(autoencoder, folder, "autoencoder")
    if description.denoiser is None or description.diffusion is None:
        return Model(about, autoencoder, normalizer)
    denoiser = build_denoiser(description.denoiser, autoencoder.latent_channels, description.label_counts)
    _load(denoiser, folder, "denoiser")
    return Model(about, autoencoder, normalizer, denoiser, build_task(description.diffusion))


def _load(network: nn.Module, folder: Path, name: str) -> None:
    path = folder / f"{name}.safetensors"
    tensors = read_tensors(path)
    load_matching(network, tensors, name)
    require_finite(tensors, str(path))


def require_denoiser(model: Model, folder: Path) -> tuple[Denoiser, DiffusionTask]:
    """Return the denoiser and its task.

    Raises:
        ModelError: the folder holds an autoencoder alone.
    """
    if model.denoiser is None or model.task is None:
        msg = f"the model at {folder} has no denoiser yet."
        raise ModelError(msg, "Train it with `latentart train ldm`.")
    return model.denoiser, model.task


def trained_steps(folder: Path, network: str) -> int:
    """Return after how many steps of ``network`` ("vae" or "ldm") a model folder was written; 0 if there is none."""
    recover_folder(folder)
    if not (folder / MODEL_FILE).is_file():
        return 0
    match read_json(folder / MODEL_FILE):
        case {"training": {**parts}} if isinstance(part := parts.get(network), dict) and isinstance(
            part.get("step"), int
        ):
            return int(part["step"])
    return 0


def imported_from(folder: Path) -> dict[str, Any]:
    """Return what a model folder says of the file or folder that its autoencoder was imported from."""
    match read_json(folder / MODEL_FILE):
        case {"training": {"vae": {"imported": name, "sha256": digest}}}:
            return {"imported": name, "sha256": digest}
    return {}


def weights_hash(folder: Path, name: str = "autoencoder") -> str:
    """Return the SHA-256 of one weights file of a model folder, from its manifest."""
    match read_json(folder / "MANIFEST.json"):
        case {"files": {**files}} if isinstance(entry := files.get(f"{name}.safetensors"), dict):
            return str(entry.get("sha256"))
    raise ModelError(f"{folder / 'MANIFEST.json'} is damaged.")


def load_autoencoder(workspace: Workspace, placement: Placement) -> Model:
    """Return the workspace's autoencoder.

    Raises:
        ModelError: it is not trained yet, or damaged.
    """
    return load_model(find_autoencoder(workspace), placement)


def autoencoder_config(workspace: Workspace) -> AnyAutoencoder:
    """Return what the workspace's autoencoder is: the one that was imported from diffusers, else the config's."""
    path = workspace.vae_run / "model" / MODEL_FILE
    if not is_pretrained(path.parent):
        return workspace.config.vae.model
    return read_description(read_json(path), path).autoencoder


def is_pretrained(folder: Path) -> bool:
    """Tell whether there is a model folder whose autoencoder diffusers builds."""
    recover_folder(folder)
    match read_json(folder / MODEL_FILE) if (folder / MODEL_FILE).is_file() else None:
        case {"autoencoder": {"kind": "diffusers"}}:
            return True
    return False


def find_autoencoder(workspace: Workspace) -> Path:
    """Return the model folder of the workspace's autoencoder.

    Raises:
        ModelError: it is not trained yet.
    """
    folder = workspace.vae_run / "model"
    recover_folder(folder)
    if not (folder / MODEL_FILE).is_file():
        msg = f"there is no trained autoencoder in {workspace.vae_run}."
        raise ModelError(msg, "Run `latentart train vae` first.")
    return folder
