"""Tar archives, WebDataset's shards among them: files of a sample follow each other and share their name to the dot."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator
from typing import Any, BinaryIO

from latentart.data.cleaning.archives.member import Member, Part, label_field, label_text
from latentart.data.pictures.formats import BadImage
from latentart.data.pictures.other_kinds import BESIDE_PICTURES
from latentart.storage.json_files import parse_json

LONGEST_HEADER = 1 << 20  # bytes; what follows a header is skipped, not read
LONGEST_LABEL = 1 << 16
MOST_OF_A_SAMPLE = 100
CLASS, FIELDS = ".cls", ".json"
BESIDE = (*BESIDE_PICTURES, CLASS)


def members(file: BinaryIO, label: str) -> Iterator[Member]:
    """Yield what lies in an archive, but no folders, nor what lies beside the pictures of a sample.

    Raises:
        BadImage: it is damaged.
    """
    sample: list[tarfile.TarInfo] = []
    for info in _entries(file):
        if sample and (_key(info) != _key(sample[0]) or len(sample) == MOST_OF_A_SAMPLE):
            yield from _members_of(sample, file, label)
            sample = []
        sample.append(info)
    yield from _members_of(sample, file, label)


def open_member(file: BinaryIO, place: str) -> io.BufferedReader:
    """Return a member's bytes as a file."""
    start, size = map(int, place.split())
    return io.BufferedReader(Part(file, start, size))


class _Headers:
    """A file of which only headers are read: a stranger's may claim to be as long as the disk."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.seek, self.tell = file.seek, file.tell

    def read(self, size: int) -> bytes:
        if not 0 <= size <= LONGEST_HEADER:
            raise BadImage("damaged", "one of its headers claims to be huge")
        return self._file.read(size)


def _entries(file: BinaryIO) -> Iterator[tarfile.TarInfo]:
    headers: Any = _Headers(file)
    last = -1
    try:
        archive: Any = tarfile.open(fileobj=headers, mode="r:", encoding="utf-8")  # noqa: SIM115 - it holds no file of its own
        while info := archive.next():
            archive.members = []  # it would keep every one
            if info.offset <= last:
                raise BadImage("damaged", "its headers run in a circle")
            last = info.offset
            if not info.isdir():
                yield info
        file.seek(archive.offset)
        if file.read(tarfile.BLOCKSIZE).strip(b"\0"):
            raise BadImage("damaged", "the archive is not sound from here on")
    except (tarfile.TarError, ValueError, OverflowError, RecursionError) as error:
        is_cut = "unexpected end" in str(error)
        raise BadImage("truncated" if is_cut else "damaged", "the archive is not sound from here on") from error


def _key(info: tarfile.TarInfo) -> str:
    folder, slash, name = info.name.rpartition("/")
    return folder + slash + name.partition(".")[0]


def _members_of(sample: list[tarfile.TarInfo], file: BinaryIO, label: str) -> Iterator[Member]:
    """Yield the pictures of a sample, or all its files where it has none."""
    shown = [info for info in sample if not _is_beside(info)]
    fields: dict[str, Any] = {}
    for info in sample if shown else []:
        if info.isreg() and info.size <= LONGEST_LABEL and _is_beside(info):
            fields |= _fields_of(info, file)
    field = label_field(fields, label)
    for info in shown or sample:
        reason, detail = _refusal(info)
        place = "" if reason else f"{info.offset_data} {info.size}"
        name = info.name.removeprefix("./")
        yield Member(name, place, info.size, label_text(fields.get(field or "")), reason, detail)


def _is_beside(info: tarfile.TarInfo) -> bool:
    return _ending(info) in BESIDE


def _ending(info: tarfile.TarInfo) -> str:
    name, dot, ending = info.name.lower().rpartition(".")
    return dot + ending if name and "/" not in ending else ""


def _fields_of(info: tarfile.TarInfo, file: BinaryIO) -> dict[str, Any]:
    ending = _ending(info)
    if ending not in (CLASS, FIELDS):
        return {}
    file.seek(info.offset_data)
    text = file.read(info.size).decode("utf-8", "replace")
    if ending == CLASS:
        return {"cls": text.strip()}
    try:
        fields = parse_json(text)
    except (ValueError, RecursionError):
        return {}
    return fields if isinstance(fields, dict) else {}


def _refusal(info: tarfile.TarInfo) -> tuple[str, str]:
    if info.issym() or info.islnk():
        return "not_a_regular_file", f"a link to {info.linkname} in an archive"
    if not info.isreg():
        return "not_a_regular_file", "a pipe or device in an archive"
    if info.issparse():
        return "other_format", "a file with holes: pack it again without them"
    return "", ""
