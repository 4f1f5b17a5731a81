"""The user's raw folder: which files are in it and which style each belongs to. Nothing here opens a file."""

from __future__ import annotations

import os
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from latentart.errors import ConfigError, DataError


@dataclass(frozen=True, slots=True)
class RawFile:
    """A file of the raw folder.

    ``source`` is relative to the folder, with ``/``; ``style`` is empty for loose files. ``reason`` says why
    it is dropped without being opened.
    """

    source: str
    style: str
    size: int = 0
    mtime_ns: int = 0
    reason: str = ""
    detail: str = ""


def find_raw_files(raw: Path) -> tuple[list[str], list[RawFile]]:
    """Return the styles, and every file below ``raw``, both in the order of names; no link is followed.

    Each folder in ``raw`` is a style, with all the files below it. Files directly in a ``raw`` without folders
    are one style named after it.

    Raises:
        DataError: there are no files.
    """
    with os.scandir(raw) as entries:
        names = {entry.name for entry in entries if entry.is_dir(follow_symlinks=False)}
    styles = {name for name in names if not _is_hidden(name)}
    only_style = "" if styles else raw.name
    files: list[RawFile] = []
    folders = [""]
    while folders:
        folder = folders.pop()
        try:
            with os.scandir(raw / folder) as entries:
                for entry in entries:
                    source = f"{folder}/{entry.name}" if folder else entry.name
                    if entry.is_dir(follow_symlinks=False):
                        folders.append(source)
                    else:
                        files.append(_raw_file(entry, source, _style_of(source, styles) or only_style))
        except OSError as error:
            style = _style_of(f"{folder}/", styles) or only_style
            files.append(RawFile(folder, style, reason="unreadable", detail=error.strerror or str(error)))
    if not files:
        raise DataError(f"The raw folder {str(raw)!r} holds no files.", "Put your pictures there.")
    return sorted(styles) or [only_style], sorted(files, key=lambda found: found.source)


def check_folders(raw: Path, out: Path) -> tuple[Path, Path]:
    """Return the raw and the data folder with their full paths.

    Raises:
        DataError: ``raw`` is no folder.
        ConfigError: ``out`` is a file, or one of the folders lies in the other.
    """
    hint = "Set data.raw to the folder with your pictures."
    if not raw.exists():
        raise DataError(f"The raw folder {str(raw)!r} does not exist.", hint)
    if not raw.is_dir():
        raise DataError(f"{str(raw)!r} is not a folder.", hint)
    raw, out = raw.resolve(), out.resolve()
    if raw == out or raw in out.parents or out in raw.parents:
        raise ConfigError(
            f"The raw folder {str(raw)!r} and the data folder {str(out)!r} lie in one another.",
            "Set data.root to a folder of its own: nothing is ever written among your pictures.",
        )
    if out.exists() and not out.is_dir():
        raise ConfigError(f"{str(out)!r} is not a folder.", "Set data.root to a folder.")
    return raw, out


def _raw_file(entry: os.DirEntry[str], source: str, style: str) -> RawFile:
    if any(_is_hidden(part) for part in source.split("/")):
        return RawFile(source, style, reason="not_a_picture", detail="a hidden file or folder")
    if not entry.is_file(follow_symlinks=False):
        return RawFile(source, style, reason="not_a_regular_file", detail="a link, pipe or device")
    if not style:
        return RawFile(source, style, reason="no_style", detail="lies beside the style folders")
    try:
        info = entry.stat(follow_symlinks=False)
    except OSError as error:
        return RawFile(source, style, reason="unreadable", detail=error.strerror or str(error))
    return RawFile(source, style, info.st_size, info.st_mtime_ns)


def _style_of(source: str, styles: Collection[str]) -> str:
    first, slash, _ = source.partition("/")
    return first if slash and first in styles else ""


def _is_hidden(name: str) -> bool:
    return name.startswith(".")
