"""`latentart init`: a new workspace is a folder with one config in it."""

from __future__ import annotations

import itertools
import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from latentart.config.denoiser import expect_of_few
from latentart.config.presets import MANY
from latentart.config.workspace import CONFIG_NAME, SCHEMA_NAME, resolve, schema
from latentart.data.cleaning.raw_files import find_raw_files, is_raw
from latentart.data.index import write_lines
from latentart.data.pictures.other_kinds import name_other_kind
from latentart.errors import DataError, ResourceError, UsageError
from latentart.layout import Workspace


def init_workspace(folder: Path, preset: str, raw: Path | None, overrides: Sequence[str] = ()) -> Workspace:
    """Make a workspace in a new or empty folder; done again with the same words it changes nothing.

    Raises:
        UsageError: the folder holds other things, or a workspace with another config.
        DataError: the folder of pictures does not exist.
        ResourceError: the folder cannot be written.
    """
    values: dict[str, Any] = {"preset": preset}
    if raw is not None:
        if not is_raw(raw):
            msg = f"there is no folder of pictures at {raw}."
            raise DataError(msg, "Name it with --data FOLDER, one sub-folder per style.")
        values["data"] = {"raw": _path_from(folder, raw)}
    config = resolve(values, overrides, "init")
    path = folder / CONFIG_NAME
    if path.is_file():
        if path.read_text(encoding="utf-8", errors="replace") == config.to_text():
            return Workspace(folder, config)
        msg = f"{folder} is a workspace already, with another config."
        raise UsageError(msg, f"Edit {path}, or name a new folder.")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        msg = f"{folder} exists and is not a workspace; nothing was written."
        raise UsageError(msg, "Name a new or empty folder; --data FOLDER says where the pictures are.")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_lines(folder / SCHEMA_NAME, [json.dumps(schema(), indent=1)])
        write_lines(path, config.to_text().splitlines())
    except OSError as error:
        msg = f"{folder} cannot be written: {error.strerror}."
        raise ResourceError(msg) from None
    return Workspace(folder, config)


def count_files(raw: Path) -> int:
    """Return how many files that may be pictures are below a raw folder or in it; no more than make a difference."""
    found = (one.source for one in find_raw_files(raw, []) if one.reason in ("", "no_style"))
    files = (source for source in found if name_other_kind(b"", source)[0] != "sidecar")
    return sum(1 for _ in itertools.islice(files, MANY))


def describe_few(raw: Path, count: int) -> str:
    """Return what to expect of a raw folder that holds few files or none, or an empty text."""
    return (
        expect_of_few(count)
        if count
        else f"{raw} holds no files that could be pictures: put yours there, one folder per style."
    )


def has_gpu() -> bool:
    """Tell whether a GPU's driver is installed; PyTorch, which takes seconds to load, is not asked."""
    return any(shutil.which(tool) for tool in ("nvidia-smi", "rocm-smi"))


def _path_from(folder: Path, raw: Path) -> str:
    """Return the raw folder's path relative to the workspace if it lies inside, else absolute."""
    absolute, home = Path(os.path.abspath(raw)), Path(os.path.abspath(folder))  # noqa: PTH100 - keeps links as named
    return str(absolute.relative_to(home) if absolute.is_relative_to(home) else absolute)
