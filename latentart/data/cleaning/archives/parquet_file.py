"""Parquet tables with pictures in a column, as Hugging Face's: labels are listed first, pictures read when decoded.

Names are the numbers of rows. Only what is asked for is read: row group by row group, a few rows at a time.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO

from latentart.data.cleaning.archives.member import Member, label_field, label_text
from latentart.data.pictures.formats import BadImage
from latentart.storage.json_files import parse_json

LABELS_AT_ONCE, PICTURES_AT_ONCE = 256, 16
MISSING = 'Parquet is read after: pip install "latentart[parquet]"'
_reading: list[Any] = []  # what the last picture came from: its table, the rows after it, their number


def members(file: BinaryIO, label: str) -> Iterator[Member]:
    """Yield the rows of a table that has a column of pictures, with their labels.

    Raises:
        BadImage: it is damaged, has no such column, or pyarrow is not installed.
    """
    with _named_errors():
        table = _open(file)
        image, names = _picture_column(table), table.schema_arrow.names
        field = label_field((name for name in names if name != image.partition(".")[0]), label)
        classes = _classes(table, field)
        row = 0
        for group in range(table.num_row_groups):
            for number, value in enumerate(_labels(table, group, field)):
                yield Member(f"{row:08}", f"{group} {number}", label=_label(value, classes))
                row += 1


def open_member(file: BinaryIO, place: str) -> io.BufferedReader:
    """Return a row's picture as a file.

    Raises:
        BadImage: the row has none, or the table is damaged.
    """
    group, number = map(int, place.split())
    with _named_errors():
        info = os.fstat(file.fileno())
        key = (info.st_dev, info.st_ino, info.st_size, info.st_mtime_ns, group)
        if not _reading or _reading[0] != key or _reading[2] > number:
            _reading[:] = [key, _pictures(file, group), 0]
        else:
            file.close()
        content = None
        try:
            while _reading[2] <= number:
                content = next(_reading[1], None)
                _reading[2] += 1
        except BaseException:
            _reading.clear()  # it ends here, and would pass for one without more rows
            raise
    if content is None:
        raise BadImage("empty", "a row without the bytes of a picture")
    return io.BufferedReader(io.BytesIO(content))


def _pictures(file: BinaryIO, group: int) -> Iterator[bytes | None]:
    table = _open(file)
    column = _picture_column(table)
    with file:
        for batch in table.iter_batches(PICTURES_AT_ONCE, row_groups=[group], columns=[column], use_threads=False):
            for value in batch.column(0):
                held = value.as_py()
                yield held.get("bytes") if isinstance(held, dict) else held


def _labels(table: Any, group: int, field: str | None) -> Iterator[Any]:
    if field is None:
        yield from (None for _ in range(table.metadata.row_group(group).num_rows))
        return
    for batch in table.iter_batches(LABELS_AT_ONCE, row_groups=[group], columns=[field], use_threads=False):
        yield from batch.column(0).to_pylist()


def _label(value: Any, classes: list[str]) -> str:
    if isinstance(value, list):  # of a picture with several the first counts
        value = value[0] if value else None
    is_number = isinstance(value, int) and 0 <= value < len(classes)
    return label_text(classes[value] if is_number else value)


def _picture_column(table: Any) -> str:
    """Return the column of pictures: bytes, or bytes beside their path; one of the usual name before others."""
    import pyarrow.types as types

    found = {}
    for field in table.schema_arrow:
        if types.is_struct(field.type) and field.type.get_field_index("bytes") >= 0:
            found[field.name] = f"{field.name}.bytes"
        elif types.is_binary(field.type) or types.is_large_binary(field.type):
            found[field.name] = field.name
    if not found:
        raise BadImage("other_format", "a table without a column of pictures")
    return next(
        (found[name] for name in ("image", "img", "picture", "jpg", "png") if name in found), next(iter(found.values()))
    )


def _classes(table: Any, field: str | None) -> list[str]:
    """Return the names that the numbers in a column of Hugging Face's stand for, or none."""
    try:
        features = parse_json(table.schema_arrow.metadata[b"huggingface"].decode())["info"]["features"]
        names = features[field].get("feature", features[field]).get("names", [])
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError):
        return []
    return [str(name) for name in names] if isinstance(names, list) else []


def _open(file: BinaryIO) -> Any:
    os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")  # others take address space ahead, which workers lack
    from pyarrow import parquet

    return parquet.ParquetFile(file, pre_buffer=False)


@contextmanager
def _named_errors() -> Iterator[None]:
    try:
        yield
    except ImportError:
        raise BadImage("other_format", MISSING) from None
    except (BadImage, MemoryError):
        raise
    except Exception as error:  # of the reader, on what a stranger wrote
        raise BadImage("damaged", f"the table is not sound: {str(error).partition(chr(10))[0][:200]}") from error
