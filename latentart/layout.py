"""A workspace: one config and the folders beside it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from latentart.config.workspace import CONFIG_NAME, Config, find_config, load_config
from latentart.data.index import IndexEntry, read_index, style_names


@dataclass(frozen=True)
class Workspace:
    """Where everything of one undertaking lies."""

    folder: Path
    config: Config

    @classmethod
    def open(cls, config_path: Path | None = None, overrides: Sequence[str] = ()) -> Workspace:
        """Return the workspace of a config file, else of the current folder.

        Raises:
            ConfigError: there is no config, or it is wrong.
        """
        path = config_path or find_config(Path())
        return cls(path.parent, load_config(path, overrides))

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
    def vae_run(self) -> Path:
        """The autoencoder's run."""
        return self.folder / "runs" / "vae"

    @property
    def ldm_run(self) -> Path:
        """The denoiser's run."""
        return self.folder / "runs" / "ldm"

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
        entries = read_index(self.data / "index.jsonl")
        return entries, style_names(entries)
