"""The user's raw folder: which files are in it and which style each belongs to. Nothing here opens a file."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from latentart.data.cleaning.label_table import Labels, normal_path
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


StyleOf: TypeAlias = Callable[[str], tuple[str, str]]  # the style of a source, or an empty one and why


def find_styles(raw: Path, labels: Labels | None = None) -> list[str]:
    """Return the styles in the order of names: those in the table of labels, or else the folders in ``raw``.

    Files directly in a ``raw`` without folders are one style named after it.
    """
    if labels is not None:
        return sorted({labels.style_of(source) for source in labels.sources()} - {""})
    with os.scandir(raw) as entries:
        names = [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]
    return sorted(name for name in names if not _is_hidden(name)) or [raw.name]


def find_raw_files(
    raw: Path, styles: Sequence[str], labels: Labels | None = None, labels_file: Path | None = None
) -> Iterator[RawFile]:
    """Yield every file below ``raw`` as it comes; no link is followed, and ``labels_file`` itself is passed over.

    With ``labels`` the table names each picture's style, and files it names that are not there follow as
    ``missing``. Without, all the files below a folder that is one of the ``styles`` belong to it.
    """
    passed_over = _source_of(labels_file, raw)
    if labels is None:
        yield from _walk(raw, _styles_by_folder(raw, styles), passed_over)
        return
    table = labels_file.name if labels_file else "the table of labels"
    there: set[str] = set()
    for found in _walk(raw, _styles_by_table(labels, table), passed_over):
        if found.source in labels:
            there.add(normal_path(found.source))
        yield found
    detail = f"named in {table}, but not there"
    for source in labels.sources():
        if normal_path(source) not in there:
            yield RawFile(source, labels.style_of(source), reason="missing", detail=detail)


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


def _walk(raw: Path, style_of: StyleOf, passed_over: str) -> Iterator[RawFile]:
    folders = [""]
    while folders:
        folder = folders.pop()
        try:
            with os.scandir(raw / folder) as entries:
                for entry in entries:
                    source = f"{folder}/{entry.name}" if folder else entry.name
                    if entry.is_dir(follow_symlinks=False):
                        folders.append(source)
                    elif source != passed_over:
                        yield _raw_file(entry, source, style_of)
        except OSError as error:
            if not folder:
                raise
            style, _ = style_of(f"{folder}/")
            yield RawFile(folder, style, reason="unreadable", detail=error.strerror or str(error))


def _raw_file(entry: os.DirEntry[str], source: str, style_of: StyleOf) -> RawFile:
    style, detail = style_of(source)
    if any(_is_hidden(part) for part in source.split("/")):
        return RawFile(source, style, reason="not_a_picture", detail="a hidden file or folder")
    if not entry.is_file(follow_symlinks=False):
        return RawFile(source, style, reason="not_a_regular_file", detail="a link, pipe or device")
    if not style:
        return RawFile(source, style, reason="no_style", detail=detail)
    try:
        info = entry.stat(follow_symlinks=False)
    except OSError as error:
        return RawFile(source, style, reason="unreadable", detail=error.strerror or str(error))
    # a database holds 63 bits, some file systems hold years beyond 2262
    return RawFile(source, style, info.st_size, info.st_mtime_ns % (1 << 63))


def _styles_by_folder(raw: Path, styles: Sequence[str]) -> StyleOf:
    shared = {style: style for style in styles}  # one string for all the files of a style
    folders = [raw / style for style in styles]
    only_style = "" if any(folder.is_dir() and not folder.is_symlink() for folder in folders) else raw.name

    def style_of(source: str) -> tuple[str, str]:
        folder, slash, _ = source.partition("/")
        return shared.get(folder, only_style) if slash else only_style, "lies beside the style folders"

    return style_of


def _styles_by_table(labels: Labels, table: str) -> StyleOf:
    unnamed, unlabeled = f"not named in {table}", f"no {labels.label} in {table}"

    def style_of(source: str) -> tuple[str, str]:
        return labels.style_of(source), unlabeled if source in labels else unnamed

    return style_of


def _source_of(path: Path | None, raw: Path) -> str:
    if path is None:
        return ""
    try:
        return (path.parent.resolve() / path.name).relative_to(raw.resolve()).as_posix()
    except ValueError:  # it lies elsewhere
        return ""


def _is_hidden(name: str) -> bool:
    return name.startswith(".") and name.strip(".") != ""  # a style may be called ...
