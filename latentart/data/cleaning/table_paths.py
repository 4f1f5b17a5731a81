"""Tables whose paths are not those of the raw folder: absolute ones, bare names, names without ending."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import takewhile
from pathlib import Path, PurePosixPath

from latentart.data.cleaning.label_table import Labels, normal_path
from latentart.errors import DataError


def meet_files(labels: Labels, raw: Path, table: Path) -> Labels:
    """Return the table with the paths of the files it means, where not one of its own is a file of the raw folder.

    A file is meant by a path that ends in the same names, the last one with or without its ending.

    Raises:
        DataError: a path may mean several files.
    """
    paths = (raw / normal_path(source) for source in labels.sources())
    if not len(labels) or any(os.path.isfile(path) for path in paths):  # noqa: PTH113 - which no name makes raise
        return labels
    files = _files_below(raw, table)
    if not {normal_path(source) for source in labels.sources()}.isdisjoint(map(normal_path, files)):
        return labels
    finder = _Finder(files)
    meant = {source: file for source in labels.sources() for file in finder.find(source, table)}
    if not meant:
        return labels
    rows: dict[str, tuple[str, ...]] = {}
    for source, row in labels.rows.items():
        rows.setdefault(meant.get(source, source), row)
    written = {normal: source for source in rows if (normal := normal_path(source)) != source}
    count = f"{len(meant)} of {len(labels)} were found by name, first {next(iter(meant.values()))!r}"
    told = f"{table.name}: its paths are not relative to the raw folder; {count}."
    return replace(labels, rows=rows, written=written, warnings=[*labels.warnings, told])


class _Finder:
    """Finds files by the last names of their paths."""

    def __init__(self, files: Iterable[str]) -> None:
        self.by_name: dict[str, list[str]] = defaultdict(list)
        for file in files:
            name = normal_path(file).rpartition("/")[2]
            for key in {name, PurePosixPath(name).stem}:
                self.by_name[key].append(file)

    def find(self, source: str, table: Path) -> list[str]:
        names = normal_path(source).split("/")
        found = self.by_name.get(names[-1], [])
        if len(found) > 1:
            most = max(_num_shared(names, file) for file in found)
            found = [file for file in found if _num_shared(names, file) == most]
        if len(found) > 1:
            msg = f"{table.name} has a path that may mean {found[0]!r} or {found[1]!r}."
            raise DataError(msg, "Write its paths relative to the raw folder, folders and endings included.")
        return found


def _num_shared(names: Sequence[str], file: str) -> int:
    """Return how many folders are the same, from the file upwards."""
    pairs = zip(reversed(names[:-1]), reversed(normal_path(file).split("/")[:-1]), strict=False)
    return len(list(takewhile(lambda pair: pair[0] == pair[1], pairs)))


def _files_below(raw: Path, table: Path) -> list[str]:
    return [
        (Path(folder) / name).relative_to(raw).as_posix()
        for folder, _, names in os.walk(raw)
        for name in sorted(names)
        if Path(folder) / name != table
    ]
