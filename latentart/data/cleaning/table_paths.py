"""Tables whose paths are not those of the raw folder: absolute ones, bare names, names without ending."""

from __future__ import annotations

import os
from bisect import bisect_left
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path, PurePosixPath

from latentart.data.cleaning.label_table import Labels, normal_path
from latentart.errors import DataError

LOOKED_FOR = 100  # paths, beside a raw folder that holds none of them


def meet_files(labels: Labels, raw: Path, table: Path) -> Labels:
    """Return the table with the paths of the files it means, where its own are no files of the raw folder.

    A file that no other path names is meant by one that ends in the same names, the last one with or without its
    ending. Where some of its own are files of the raw folder, one of the two is the whole end of the other.

    Raises:
        DataError: a path may mean several files, or lies beside the raw folder, where all do.
    """
    named = {normal_path(source) for source in labels.sources()}
    files = _files_below(raw, table)
    gone = named.difference(map(normal_path, files))
    gone = {path for path in gone if not _is_file(raw, path)}  # a link's, in which no walk goes, is there
    finder = _Finder((file for file in files if normal_path(file) not in named), is_strict=len(gone) < len(named))
    lost = (source for source in labels.sources() if normal_path(source) in gone)
    meant = {source: file for source in lost for file in finder.find(source, table)}
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

    def find(self, source: str, table: Path) -> list[str]:
        names = tuple(reversed(normal_path(source).split("/")))
        for length in range(len(names), 0, -1):
            found = self._beginning_with(names[:length], is_whole=self.is_strict and length < len(names))
            if len(found) > 1:
                msg = f"{table.name} has a path that may mean {found[0]!r} or {found[1]!r}."
                raise DataError(msg, "Write its paths relative to the raw folder, folders and endings included.")
            if found:
                return found
        return []

    def _beginning_with(self, names: tuple[str, ...], *, is_whole: bool) -> list[str]:
        """Return up to two files whose path ends so, or is that as a whole."""
        first = bisect_left(self.ends, (names,))
        near = self.ends[first : first + 2]
        return [file for end, file in near if (end if is_whole else end[: len(names)]) == names]


def _ends_of(file: str) -> set[tuple[str, ...]]:
    """Return the names of a path from its end on, the first with and without its ending."""
    name, *folders = reversed(normal_path(file).split("/"))
    return {(name, *folders), (PurePosixPath(name).stem, *folders)}


def _is_file(folder: Path, path: str) -> bool:
    return os.path.isfile(folder / path)  # noqa: PTH113 - which no name makes raise


def _files_below(raw: Path, table: Path) -> list[str]:
    return [
        (Path(folder) / name).relative_to(raw).as_posix()
        for folder, _, names in os.walk(raw)
        for name in sorted(names)
        if Path(folder) / name != table
    ]
