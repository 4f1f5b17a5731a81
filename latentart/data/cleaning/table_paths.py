"""Tables whose paths are not those of the raw folder: absolute ones, bare names, names without ending."""

from __future__ import annotations

import os
import re
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import TypeAlias
from urllib.parse import unquote

from latentart.data.cleaning.label_table import Labels, normal_path
from latentart.errors import DataError

Names: TypeAlias = "tuple[str, ...]"
LOOKED_FOR = 100  # paths, beside a raw folder that holds none of them


def meet_files(labels: Labels, raw: Path, table: Path) -> Labels:
    """Return the table with the paths of the files it means, where its own are no files of the raw folder.

    A file that no other path names is meant by one that ends in the same names, the last one with or without its
    ending; where there is none, in whatever case and with whatever ending. Of an address the query goes. Where some of
    its own are files of the raw folder, one of the two is the whole end of the other.

    Raises:
        DataError: a path may mean several files, or lies beside the raw folder, where all do.
    """
    named = {normal_path(source) for source in labels.sources()}
    files, has_links = _files_below(raw, table)
    gone = named.difference(map(normal_path, files))
    if has_links:  # what lies beyond one, where no walk goes, is there
        gone = {path for path in gone if not _is_file(raw, path)}
    finder = _Finder((file for file in files if normal_path(file) not in named), is_strict=len(gone) < len(named))
    lost = [source for source in labels.sources() if normal_path(source) in gone]
    meant = {source: file for source in lost for file in finder.find(source, table)} if finder.ends else {}
    if not meant:
        bases = table.parent.resolve(), raw.parent
        beside = (base for path in sorted(gone)[:LOOKED_FOR] for base in bases if _is_file(base, path))
        if len(gone) == len(named) and (base := next(beside, None)):
            msg = f"No file in {str(raw)!r} is named in {table.name}: the names are found under {str(base)!r}."
            raise DataError(msg, "Set data.raw to that folder.")
        return labels
    rows: dict[str, tuple[str, ...]] = {}
    for source, row in labels.rows.items():
        rows.setdefault(meant.get(source, source), row)
    written = {normal: source for source in rows if (normal := normal_path(source)) != source}
    count = f"{len(meant)} of {len(labels)} were found by name, first {next(iter(meant.values()))!r}"
    which = "not all its paths are" if len(gone) < len(named) else "its paths are not"
    told = f"{table.name}: {which} relative to the raw folder; {count}."
    return replace(labels, rows=rows, written=written, warnings=[*labels.warnings, told])


class _Finder:
    """Finds files by the last names of their paths, each path written from its end on."""

    def __init__(self, files: Iterable[str], *, is_strict: bool) -> None:
        self.is_strict = is_strict
        self.ends = sorted((end, file) for file in files for end in _ends_of(file))
        self.folded = sorted((_folded(end), file) for end, file in self.ends)

    def find(self, source: str, table: Path) -> list[str]:
        if "://" in source:
            source = unquote(re.sub(r"[?#].*", "", source))
        last, *folders = reversed(normal_path(source).split("/"))
        for name in (last, PurePosixPath(last).stem):
            for ends, names in ((self.ends, (name, *folders)), (self.folded, _folded((name, *folders)))):
                if found := self._find_in(ends, names, table):
                    return found
        return []

    def _find_in(self, ends: Sequence[tuple[Names, str]], names: Names, table: Path) -> list[str]:
        for length in range(len(names), 0, -1):
            is_whole = self.is_strict and length < len(names)
            found = _beginning_with(ends, names[:length], is_whole=is_whole)
            if len(found) > 1:
                msg = f"{table.name} has a path that may mean {found[0]!r} or {found[1]!r}."
                raise DataError(msg, "Write its paths relative to the raw folder, folders and endings included.")
            if found:
                return found
        return []


def _beginning_with(ends: Sequence[tuple[Names, str]], names: Names, *, is_whole: bool) -> list[str]:
    """Return up to two files whose path ends so, or is that as a whole."""
    first = bisect_left(ends, (names,))
    near = ends[first : first + 2]
    return [file for end, file in near if (end if is_whole else end[: len(names)]) == names]


def _folded(names: Names) -> Names:
    return tuple(map(str.casefold, names))


def _ends_of(file: str) -> set[tuple[str, ...]]:
    """Return the names of a path from its end on, the first with and without its ending."""
    name, *folders = reversed(normal_path(file).split("/"))
    return {(name, *folders), (PurePosixPath(name).stem, *folders)}


def _is_file(folder: Path, path: str) -> bool:
    return os.path.isfile(folder / path)  # noqa: PTH113 - which no name makes raise


def _files_below(raw: Path, table: Path) -> tuple[list[str], bool]:
    """Return the files below the raw folder, and whether links to folders are there, in which no walk goes."""
    files, has_links = [], False
    for folder, folders, names in os.walk(raw):
        place = "" if Path(folder) == raw else f"{Path(folder).relative_to(raw).as_posix()}/"
        has_links |= any(os.path.islink(os.path.join(folder, name)) for name in folders)  # noqa: PTH114, PTH118
        files += [f"{place}{name}" for name in sorted(names)]
    own = table.relative_to(raw).as_posix() if table.is_relative_to(raw) else ""
    return [file for file in files if file != own], has_links
