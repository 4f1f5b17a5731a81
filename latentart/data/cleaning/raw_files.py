"""The user's raw folder: which files are in it and which style each belongs to; of these only archives are opened."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TypeAlias

from latentart.data.cleaning.archives.archive import kind_of
from latentart.data.cleaning.label_table import Labels, normal_path
from latentart.data.cleaning.raw_file import RawFile, follow
from latentart.data.cleaning.raw_members import USUAL_ARCHIVES, Archives
from latentart.data.names import HIDDEN, is_hidden, one_spelling
from latentart.errors import ConfigError, DataError

StyleOf: TypeAlias = Callable[[str], tuple[str, str]]  # the style of a source, or an empty one and why


def find_styles(raw: Path, labels: Labels | None = None, level: int = 1, link_root: str = "") -> list[str]:
    """Return the styles in the order of names: those in the table of labels, or else the folders in ``raw``.

    Those are ``level`` levels below it. Names that differ only in how Unicode spells their letters are one.
    Files directly in a ``raw`` without folders are one style named after it.
    """
    if labels is not None:
        return sorted({labels.style_of(source) for source in labels.sources()} - {""})
    names = {one_spelling(folder.name) for folder in folders_at(raw, level, link_root)}
    return sorted(names) or ([one_spelling(raw.name)] if level == 1 else [])


def folders_at(raw: Path, level: int, link_root: str = "") -> list[Path]:
    """Return the folders that lie ``level`` levels below ``raw``, none of them hidden or the system's own.

    Of links only those are there that are followed.
    """
    folders = [raw]
    for _ in range(level):
        folders = [below for folder in folders for below in _folders_in(folder, raw, link_root)]
    return folders


def _folders_in(folder: Path, raw: Path, link_root: str) -> list[Path]:
    folders, others = list_folder(folder)
    links = [folder / name for name in others if link_root and (folder / name).is_symlink()]
    if not links or folder.resolve() != raw.resolve() / folder.relative_to(raw):  # a link was followed already
        return folders
    return sorted([*folders, *(link for link in links if (real := follow(link, raw, link_root)) and real.is_dir())])


def list_folder(folder: Path) -> tuple[list[Path], list[str]]:
    """Return the folders in a folder, and the names of what else is in it, in order and without what is hidden."""
    try:
        with os.scandir(folder) as entries:
            shown = sorted((entry for entry in entries if not is_hidden(entry.name)), key=lambda entry: entry.name)
    except (PermissionError, NotADirectoryError):  # which the walk over all files will tell; or an archive
        return [], []
    folders = [Path(entry.path) for entry in shown if entry.is_dir(follow_symlinks=False)]
    return folders, [entry.name for entry in shown if not entry.is_dir(follow_symlinks=False)]


def find_raw_files(
    raw: Path,
    styles: Sequence[str],
    labels: Labels | None = None,
    labels_file: Path | None = None,
    level: int = 1,
    link_root: str = "",
    archives: Archives = USUAL_ARCHIVES,
) -> Iterator[RawFile]:
    """Yield every file below ``raw`` as it comes, or in it if it is an archive; ``labels_file`` itself is passed over.

    In the place of an archive its members come.

    Links are followed into ``link_root`` alone; those to folders, which lie in a folder that a link led to, are not.

    With ``labels`` the table names each picture's style, and files it names that are not there follow as
    ``missing``. Without, all the files below a folder ``level`` levels down that is one of the ``styles`` belong to it.
    """
    passed_over = _source_of(labels_file, raw)
    table = labels_file.name if labels_file else "the table of labels"
    style_of = _styles_by_folder(raw, styles, level, link_root) if labels is None else _styles_by_table(labels, table)
    there: set[str] = set()
    for entry in _walk(raw, style_of, passed_over, link_root):
        is_archive = entry.archive and not entry.reason
        for found in archives.members_of(entry, raw, labels, level, link_root) if is_archive else [entry]:
            if labels is not None and found.source in labels:
                there.add(normal_path(found.source))
            yield found
    if labels is None:
        return
    detail = f"named in {table}, but not there"
    for source in labels.sources():
        if normal_path(source) not in there:
            yield RawFile(source, labels.style_of(source), reason="missing", detail=detail)


def is_raw(path: Path) -> bool:
    """Tell whether pictures may be in it: a folder, or an archive."""
    return path.is_dir() or (bool(kind_of(path.name)) and path.is_file())


def check_folders(raw: Path, out: Path) -> tuple[Path, Path]:
    """Return the raw and the data folder with their full paths.

    Raises:
        DataError: ``raw`` is neither a folder nor an archive.
        ConfigError: ``out`` is a file, or one of the folders lies in the other.
    """
    hint = "Name the folder with your pictures: data.raw in the config, or `latentart clean-data FOLDER`."
    if not raw.exists():
        raise DataError(f"The raw folder {str(raw)!r} does not exist.", hint)
    if not is_raw(raw):
        raise DataError(f"{str(raw)!r} is not a folder, nor an archive that is read.", hint)
    raw, out = raw.resolve(), out.resolve()
    if raw == out or raw in out.parents or out in raw.parents:
        raise ConfigError(
            f"The raw folder {str(raw)!r} and the data folder {str(out)!r} lie in one another.",
            "Set data.root, or --out, to a folder of its own: nothing is ever written among your pictures.",
        )
    if out.exists() and not out.is_dir():
        raise ConfigError(f"{str(out)!r} is not a folder.", "Set data.root, or --out, to a folder.")
    return raw, out


def _walk(raw: Path, style_of: StyleOf, passed_over: str, link_root: str) -> Iterator[RawFile]:
    if not raw.is_dir():
        info = raw.stat()
        yield RawFile(raw.name, "", info.st_size, info.st_mtime_ns % (1 << 63), archive=".")
        return
    folders = [("", True)]
    while folders:
        folder, follows = folders.pop()
        try:
            with os.scandir(raw / folder) as entries:
                for entry in entries:
                    source = f"{folder}/{entry.name}" if folder else entry.name
                    real = follow(raw / source, raw, link_root) if link_root and entry.is_symlink() else None
                    if entry.is_dir(follow_symlinks=False):
                        folders.append((source, follows and not is_hidden(entry.name)))
                    elif real is not None and real.is_dir() and follows and not is_hidden(entry.name):
                        folders.append((source, False))
                    elif source != passed_over:
                        yield _raw_file(entry, source, style_of, real)
        except OSError as error:
            if not folder:
                raise
            style, _ = style_of(f"{folder}/")
            yield RawFile(folder, style, reason="unreadable", detail=error.strerror or str(error))


def _raw_file(entry: os.DirEntry[str], source: str, style_of: StyleOf, real: Path | None) -> RawFile:
    style, detail = style_of(source)
    if any(is_hidden(part) for part in source.split("/")):
        return RawFile(source, style, reason="hidden", detail=HIDDEN)
    if not (entry.is_file(follow_symlinks=False) if real is None else real.is_file()):
        return RawFile(source, style, reason="not_a_regular_file", detail=_describe_odd(Path(entry.path)))
    archive = source if kind_of(source) else ""
    if not style and not archive:
        return RawFile(source, style, reason="no_style", detail=detail)
    try:
        info = entry.stat(follow_symlinks=False) if real is None else real.stat()
    except OSError as error:
        return RawFile(source, style, reason="unreadable", detail=error.strerror or str(error))
    # a database holds 63 bits, some file systems hold years beyond 2262
    return RawFile(source, style, info.st_size, info.st_mtime_ns % (1 << 63), archive=archive)


def _describe_odd(path: Path) -> str:
    if not path.is_symlink():
        return "a pipe or device"
    return f"a link to {os.readlink(path)}{'' if path.exists() else ', which is not there'}"  # noqa: PTH115 - a text


def _styles_by_folder(raw: Path, styles: Sequence[str], level: int, link_root: str) -> StyleOf:
    shared = {style: style for style in styles}  # one string for all the files of a style
    only_style = "" if folders_at(raw, level, link_root) or level > 1 else one_spelling(raw.name)

    def style_of(source: str) -> tuple[str, str]:
        parts = source.split("/")
        folder = one_spelling(parts[level - 1]) if len(parts) > level else ""
        return shared.get(folder, only_style), "lies beside the style folders"

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
