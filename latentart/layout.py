"""A workspace: one config and the folders beside it."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from latentart.config.workspace import CONFIG_NAME, Config, find_config, load_config
from latentart.data.index import IndexEntry, read_index, style_names
from latentart.errors import ConfigError

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Workspace:
    """Where everything of one undertaking lies; ``overrides`` went before its file, None where there was none."""

    folder: Path
    config: Config
    overrides: Sequence[str] | None = None

    @classmethod
    def open(cls, config_path: Path | None = None, overrides: Sequence[str] = ()) -> Workspace:
        """Return the workspace of a config file, else of the current folder.

        Raises:
            ConfigError: there is no config, or it is wrong.
        """
        path = config_path or find_config(Path())
        return cls(path.parent, load_config(path, overrides), overrides)

    @property
    def raw(self) -> Path:
        """The user's pictures; read only."""
        return self.folder / Path(self.config.data.raw).expanduser()

    @property
    def data(self) -> Path:
        """Our clean copies and their index."""
        return self.folder / Path(self.config.data.root).expanduser()

    @property
    def config_path(self) -> Path:
        """The config file in its usual place."""
        return self.folder / CONFIG_NAME

    @property
    def runs(self) -> Path:
        """Where the two runs lie, and kept ones beside them."""
        return self.folder / "runs"

    @property
    def vae_run(self) -> Path:
        """The autoencoder's run."""
        return self.runs / "vae"

    @property
    def ldm_run(self) -> Path:
        """The denoiser's run."""
        return self.runs / "ldm"

    def run_of(self, model: Path, usual: Path) -> Path:
        """Return the run that what is found out about a model goes into: its own, if that is a kept one."""
        run = model.resolve().parent
        is_kept = run.parent == self.runs.resolve() and run.name not in (self.vae_run.name, self.ldm_run.name)
        return self.runs / run.name if is_kept else usual

    @property
    def cache(self) -> Path:
        """Where latent caches lie; safe to delete."""
        return self.folder / "cache"

    @property
    def samples(self) -> Path:
        """Where samples go."""
        return self.folder / "samples"

    def read_pictures(self) -> tuple[list[IndexEntry], list[str]]:
        """Return the clean set's entries and its style names.

        Raises:
            DataError: there is no clean set yet, or its index is damaged.
        """
        self.name_outside("data.root")
        entries = read_index(self.data / "index.jsonl")
        return entries, style_names(entries)

    def require_resolution(self, autoencoder_factor: int) -> None:
        """Refuse an autoencoder, perhaps one that others trained, whose latents the denoiser cannot train on.

        Raises:
            ConfigError: so it is.
        """
        if misfit := self.config.misfit(autoencoder_factor):
            raise ConfigError(f"{misfit}.")

    def name_outside(self, *settings: str, raw: Path | None = None) -> None:
        """Say which of these settings lead out of the workspace: a stranger may have written them into its file.

        To be called before what lies there is read. What the command line names is not said, as ``raw`` may be.
        """
        if self.overrides is None:
            return
        data, weights, base = self.config.data, self.config.vae.perceptual.weights, raw or self.raw
        beside = (self.folder, base)  # what lies beside the pictures is named with them
        places = {
            "data.raw": (self.raw if raw is None else None, (self.folder,)),
            "data.root": (self.data, (self.folder,)),
            "data.labels": (base / data.labels, beside),
            "data.link_root": (base / Path(data.link_root).expanduser() if data.link_root else None, beside),
            "vae.perceptual.weights": (Path(weights).expanduser() if weights else None, (self.folder,)),
        }
        named = [text.partition("=")[0].strip() for text in self.overrides]
        for name in settings:
            path, homes = places[name]
            is_named = any(f"{name}.".startswith(f"{one}.") for one in named)
            if path is None or is_named or not path.exists():
                continue
            if not any(path.resolve().is_relative_to(home.resolve()) for home in homes):
                _say_outside(name, path)


@cache
def _say_outside(name: str, path: Path) -> None:
    """Say it once a process."""
    logger.warning("%s names %s, which lies outside of the workspace.", name, path)
