"""A workspace in a script or notebook: clean, train, and load what was trained."""

from __future__ import annotations

import contextlib
import json
import signal
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

from PIL import Image

from latentart.api.model import LoadedModel, SampleOptions, Size, absolute, place
from latentart.api.words import speaking_of_arguments
from latentart.config.workspace import find_config
from latentart.errors import StoppedBySignal
from latentart.layout import Workspace
from latentart.model.folder import trained_steps

if TYPE_CHECKING:
    from latentart.data.cleaning.report import CleanReport


@speaking_of_arguments()
def init_workspace(
    folder: str | Path,
    *,
    data: str | Path | None = None,
    preset: str = "wikiart-256",
    settings: Mapping[str, Any] | None = None,
    device: str = "auto",
) -> OpenWorkspace:
    """Make a workspace in a new or empty folder, and open it; done again with the same words it changes nothing.

    ``data`` is the folder of your pictures, with one sub-folder per style; ``settings`` are written into the config.

    Raises:
        UsageError: the folder holds other things, or a workspace with another config.
        ConfigError: no such preset or setting.
        DataError: the folder of pictures does not exist.
        ResourceError: the folder cannot be written, or there is no such device.
    """
    from latentart.workspace.init import init_workspace as init

    raw = None if data is None else absolute(data)
    return OpenWorkspace(init(absolute(folder), preset, raw, _overrides(settings)), device)


@speaking_of_arguments()
def open_workspace(
    path: str | Path = ".", *, settings: Mapping[str, Any] | None = None, device: str = "auto"
) -> OpenWorkspace:
    """Return the workspace in a folder with a ``latentart.json``, or of such a file.

    ``settings`` go before what the file says, as ``{"ldm.training.steps": 500}``; ``device`` is as in ``load``.

    Raises:
        ConfigError: there is no config, or something in it is wrong.
        ResourceError: there is no such device.
    """
    where = absolute(path)
    config = find_config(where) if where.is_dir() else where
    return OpenWorkspace(Workspace.open(config, _overrides(settings)), device)


class OpenWorkspace:
    """A workspace: ``open_workspace`` and ``init_workspace`` make one.

    Each step skips what is finished and goes on with what is not, as its command does. Ctrl-C ends a training with a
    saved checkpoint and ``KeyboardInterrupt``. Cleaning starts processes: in a script it stands below
    ``if __name__ == "__main__":``.

    Attributes:
        folder: where its config lies.
    """

    def __init__(self, workspace: Workspace, device: str) -> None:
        self.folder, self._workspace, self._device = workspace.folder, workspace, device
        place(device)  # it is refused here and not an hour later

    def __repr__(self) -> str:
        """Say where it is."""
        return f"<OpenWorkspace {self.folder}>"

    @speaking_of_arguments()
    def clean(self, *, progress: bool = False) -> CleanReport:
        """Clean the raw folder into the workspace's pictures, as `latentart clean-data`, and return the report.

        Raises:
            DataError: there is no raw folder, or no sound picture in it.
        """
        from latentart.workspace.clean_data import clean_data

        return clean_data(self._workspace, quiet=not progress)

    def train_vae(self, stage: str = "all", *, progress: bool = False) -> Path:
        """Train one stage of the autoencoder, or all that are left, and return the model folder.

        Raises:
            UsageError: there is no such stage.
            DataError: nothing is cleaned yet, or the pictures have changed since the training began.
            ModelError: the stage before it is not finished, or a checkpoint does not fit.
            ResourceError: memory or disk do not suffice.
            DownloadError: the weights of the perceptual distance are not here.
            TrainingDivergedError: the numbers are no longer finite.
        """
        from latentart.training.train_vae import train_vae

        with _interrupted_by_ctrl_c(), speaking_of_arguments():
            return train_vae(self._workspace, stage, place(self._device), quiet=not progress).model

    def train_ldm(self, *, progress: bool = False) -> Path:
        """Train the denoiser on the autoencoder's latents, and return the model folder.

        Raises:
            DataError: nothing is cleaned yet, or the pictures have changed since the training began.
            ModelError: there is no trained autoencoder, or a checkpoint does not fit.
            ResourceError: memory or disk do not suffice.
            TrainingDivergedError: the numbers are no longer finite.
        """
        from latentart.training.train_ldm import train_ldm

        placement = place(self._device, self._workspace.config.ldm.training.run.precision)
        with _interrupted_by_ctrl_c(), speaking_of_arguments():
            return train_ldm(self._workspace, placement, quiet=not progress).model

    @speaking_of_arguments()
    def model(self) -> LoadedModel:
        """Return the newest model; where no denoiser is trained yet, the autoencoder alone.

        What it draws follows the group ``sample`` of the workspace's config.

        Raises:
            ModelError: nothing is trained yet, or the folder is damaged.
        """
        whole = self._workspace.ldm_run / "model"
        folder = whole if trained_steps(whole, "ldm") else self._workspace.vae_run / "model"
        return LoadedModel(folder, self._device, self._workspace.config.sample)

    def sample(
        self,
        style: str,
        seeds: Iterable[float] = range(4),
        *,
        labels: Mapping[str, str] | None = None,
        size: Size | None = None,
        progress: bool = False,
        **options: Unpack[SampleOptions],
    ) -> list[Image.Image]:
        """Return pictures of the newest model, which is loaded each time: ``model`` keeps one for several calls.

        Arguments and errors are those of ``LoadedModel.sample``.
        """
        return self.model().sample(style, seeds, labels=labels, size=size, progress=progress, **options)

    @speaking_of_arguments()
    def report(self, run: str | None = None) -> Path:
        """Write a run as one HTML page, as `latentart report`, and return its path; else that of the denoiser.

        Raises:
            UsageError: there is no such run, or something else lies where the page would go.
            ResourceError: the disk does not take it.
        """
        from latentart.reporting.report import find_run, report

        return report(find_run(self._workspace.runs, run)).path


def _overrides(settings: Mapping[str, Any] | None) -> list[str]:
    """Return settings as the command line has them."""
    return [f"{name}={json.dumps(value, default=str)}" for name, value in (settings or {}).items()]


@contextlib.contextmanager
def _interrupted_by_ctrl_c() -> Iterator[None]:
    """Let a training that Ctrl-C has ended end as Python expects it.

    Raises:
        KeyboardInterrupt: it was pressed; the checkpoint is saved.
    """
    try:
        yield
    except StoppedBySignal as stopped:
        if stopped.exit_code != 128 + signal.SIGINT:
            raise
        raise KeyboardInterrupt(str(stopped)) from None
