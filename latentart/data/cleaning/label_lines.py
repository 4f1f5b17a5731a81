"""A table of labels as JSON lines, an object for each picture, as Hugging Face's metadata.jsonl."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from latentart.errors import DataError
from latentart.storage.json_files import parse_json

ENDINGS = (".jsonl", ".ndjson")
PATHS = "file_names"  # a list of pictures that share their labels, where others have one file_name


def json_columns(path: Path) -> list[str]:
    """Return the keys of all the lines, in the order in which they first come.

    Raises:
        DataError: a line is no JSON object.
    """
    return list(dict.fromkeys(key for _, row in _rows(path) for key in row))


def json_cells(path: Path, keys: list[str]) -> Iterator[tuple[int, list[str]]]:
    """Yield (line, what it has for each key as text); of a list of paths each is a row of its own.

    Raises:
        DataError: a line is no JSON object.
    """
    for line, row in _rows(path):
        cells = [_text(row.get(key)) for key in keys]
        paths = row.get(PATHS)
        for one in paths if isinstance(paths, list) else [paths]:
            if PATHS in keys:
                cells[keys.index(PATHS)] = _text(one)
            yield line, list(cells)


def _rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    with path.open(encoding="utf-8-sig", errors="surrogateescape") as file:
        for line, text in enumerate(file, 1):
            if not text.strip():
                continue
            try:
                row = parse_json(text)
            except (ValueError, RecursionError):
                row = None
            if not isinstance(row, dict):
                raise DataError(f"Line {line} of {str(path)!r} is no JSON object.", "Write one object in each line.")
            yield line, row


def _text(value: Any) -> str:
    return "" if value is None or isinstance(value, dict) else str(value)
