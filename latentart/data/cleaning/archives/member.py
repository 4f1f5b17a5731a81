"""A picture in an archive: its name, where its bytes lie, its label, and what speaks against it."""

from __future__ import annotations

import io
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, BinaryIO

from latentart.data.cleaning.label_table import DEFAULT_LABEL, label_of

LABEL_FIELDS = ("style", "cls", "label", "labels", "class", "class_name", "label_name", "category")
LARGEST = 1 << 28  # bytes of a member that is unpacked in memory


@dataclass(frozen=True, slots=True)
class Member:
    """A member of an archive; ``name`` has ``/`` between its parts and is nothing but a name.

    ``place`` says where its bytes lie, in the words of the archive's kind; ``size`` is -1 where only reading tells;
    ``label`` is what the archive itself says of its style; ``reason`` says why it is dropped without being opened.
    """

    name: str
    place: str = ""
    size: int = -1
    label: str = ""
    reason: str = ""
    detail: str = ""


def label_field(names: Iterable[str], wanted: str) -> str | None:
    """Return which of a record's fields holds the label ``wanted``; of the usual one there are several names."""
    folded = {name.casefold(): name for name in reversed(list(names))}
    spellings = LABEL_FIELDS if wanted == DEFAULT_LABEL else (wanted.casefold(),)
    return next((folded[one] for one in spellings if one in folded), None)


def label_text(value: Any) -> str:
    """Return a field's value as a label, empty where it is none; of a list the first item counts."""
    return "" if value is None or isinstance(value, (dict, bytes)) else label_of(str(value), set())


class Part(io.RawIOBase):
    """A stretch of an open file, as a file of its own; with it the whole is closed."""

    def __init__(self, file: BinaryIO, start: int, size: int) -> None:
        self._file, self._start, self._size, self._at = file, start, size, 0

    def readable(self) -> bool:
        """Return that it can be read."""
        return True

    def seekable(self) -> bool:
        """Return that it can be read from anywhere."""
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go to a place in it, from its beginning, from here, or from its end."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        self._at = max(0, base + offset)
        return self._at

    def readinto(self, buffer: Any) -> int:
        """Fill a buffer as far as bytes are left."""
        self._file.seek(self._start + self._at)
        content = self._file.read(min(len(buffer), max(0, self._size - self._at)))
        buffer[: len(content)] = content
        self._at += len(content)
        return len(content)

    def close(self) -> None:
        """Close the whole file."""
        self._file.close()
        super().close()
