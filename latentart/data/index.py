"""The index of a clean data set: one JSON line for each picture, the one truth of what training reads."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from latentart.errors import DataError
from latentart.storage.json_files import object_in
from latentart.storage.whole import require_file, whole_file

MAX_NAME = 1000  # letters of a style or label, wherever one comes in


@dataclass(frozen=True, slots=True)
class IndexEntry:
    """One clean picture.

    ``file`` lies relative to the index's folder, ``source`` relative to the raw folder, both with ``/``.
    ``style`` is the name as the user wrote it, ``sha256`` that of the source's bytes, ``width`` and ``height`` are
    the clean picture's, in pixels, and ``labels`` are all it has in the user's table. Names that are not UTF-8 hold
    surrogate escapes. ``twin`` is the ``sha256`` of the picture that it looks like; most have none.
    """

    file: str
    source: str
    style: str
    sha256: str
    width: int
    height: int
    labels: dict[str, str] = field(default_factory=dict)
    twin: str = ""


FIELDS = tuple(item.name for item in fields(IndexEntry))


def write_index(path: Path, entries: Iterable[IndexEntry]) -> None:
    """Write the entries in the given order; the file appears whole or not at all."""
    write_lines(path, (json.dumps(_to_json(entry)) for entry in entries))


def _to_json(entry: IndexEntry) -> dict[str, Any]:
    values = {name: getattr(entry, name) for name in FIELDS}
    return values if entry.twin else {name: value for name, value in values.items() if name != "twin"}


def write_lines(path: Path, lines: Iterable[str]) -> None:
    """Write lines of text to a file that appears whole or not at all, even when the power fails."""
    with (
        whole_file(path, is_durable=True) as temporary,
        temporary.open("w", encoding="utf-8", errors="backslashreplace", newline="\n") as file,
    ):
        file.writelines(f"{line}\n" for line in lines)


def read_index(path: Path) -> list[IndexEntry]:
    """Read the entries of an index in their order.

    Raises:
        DataError: there is no index, it is empty, or a line of it is damaged.
    """
    entries = list(iterate_index(path))
    if not entries:
        raise DataError(f"{path} names no picture.", "Run `latentart clean-data` again to make it anew.")
    return entries


def iterate_index(path: Path) -> Iterator[IndexEntry]:
    """Yield the entries of an index in their order; raises as ``read_index`` does, but for an empty one."""
    for number, line in enumerate(_lines(path), start=1):
        yield _entry_from_line(line, f"{path}, line {number}")


def scan_index(path: Path) -> Iterator[tuple[int, str, str]]:
    """Yield where each line begins, in bytes, with its style and source: faster than entries, which are checked more.

    Raises as ``read_index`` does.
    """
    offset, decode = 0, json.JSONDecoder().decode
    for number, line in enumerate(_lines(path), start=1):
        try:
            values = decode(line.decode())
            style, source = values["style"], values["source"]
            if type(style) is not str or type(source) is not str:
                raise TypeError
        except (ValueError, TypeError, LookupError, RecursionError) as error:
            raise _damaged(f"{path}, line {number}") from error
        yield offset, sys.intern(style), source
        offset += len(line)


def read_entry(path: Path, offset: int) -> IndexEntry:
    """Return the entry of the line that begins so many bytes from an index's start; raises as ``read_index`` does."""
    return _entry_from_line(next(_lines(path, offset), b""), f"{path}, byte {offset}")


def _lines(path: Path, offset: int = 0) -> Iterator[bytes]:
    try:
        require_file(path)
        with path.open("rb") as lines:
            lines.seek(offset)
            yield from lines
    except FileNotFoundError:
        raise DataError(f"no clean data set at {path.parent}:", "run `latentart clean-data`") from None
    except OSError as error:
        msg = f"{path}: cannot read the index: {error.strerror}."
        raise DataError(msg, "Move it away, then run `latentart clean-data`.") from error


def index_fingerprint(entries: Iterable[IndexEntry]) -> str:
    """Return a SHA-256 over what training reads; neither the order of entries nor their sources matter."""
    rows = sorted(json.dumps([entry.style, entry.file, entry.sha256, entry.width, entry.height]) for entry in entries)
    return hashlib.sha256("\n".join(rows).encode()).hexdigest()


def twins_fingerprint(entries: Iterable[IndexEntry]) -> str:
    """Return a SHA-256 over which pictures look like which, empty where none do."""
    rows = sorted(f"{entry.sha256} {entry.twin}" for entry in entries if entry.twin)
    return hashlib.sha256("\n".join(rows).encode()).hexdigest() if rows else ""


def style_names(entries: Iterable[IndexEntry]) -> list[str]:
    """Return the different styles, sorted, as the user wrote them."""
    return sorted({entry.style for entry in entries})


def _entry_from_line(line: bytes, place: str) -> IndexEntry:
    try:
        entry = IndexEntry(**(object_in(line) or {}))
    except TypeError as error:
        raise _damaged(place) from error
    if not _has_right_types(entry) or not _stays_inside(entry.file):
        raise _damaged(place)
    # equal strings are kept once: a million pictures have few styles
    labels = {sys.intern(name): sys.intern(value) for name, value in entry.labels.items()}
    return replace(entry, style=sys.intern(entry.style), labels=labels)


def _has_right_types(entry: IndexEntry) -> bool:
    if not isinstance(entry.labels, dict):
        return False
    names: list[Any] = [entry.style, *entry.labels, *entry.labels.values()]
    strings: list[Any] = [entry.file, entry.source, entry.sha256, entry.twin, *names]
    if not all(type(text) is str for text in strings) or not entry.style or len(max(names, key=len)) > MAX_NAME:
        return False
    return type(entry.width) is type(entry.height) is int


def _stays_inside(file: str) -> bool:
    parts: Sequence[str] = file.replace("\\", "/").split("/")
    return bool(file) and ".." not in parts and not Path(file).is_absolute()


def _damaged(place: str) -> DataError:
    return DataError(f"{place}: the index is damaged.", "Run `latentart clean-data` again to make it anew.")
