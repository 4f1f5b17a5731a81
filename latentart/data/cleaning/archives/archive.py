"""The one door to what lies in archives: which files are archives, what is in one, and the bytes of a member."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from io import BufferedReader
from typing import BinaryIO

from latentart.data.cleaning.archives import parquet_file, tar_file, zip_file
from latentart.data.cleaning.archives.member import Member
from latentart.data.names import HIDDEN, is_hidden
from latentart.data.pictures.formats import BadImage
from latentart.data.pictures.other_kinds import HEAD, name_other_kind

KINDS = {"zip": zip_file, "tar": tar_file, "parquet": parquet_file}
SIGNATURES = {"zip": (0, b"PK"), "tar": (257, b"ustar"), "parquet": (0, b"PAR1")}
MOST_MEMBERS = 10_000_000


def kind_of(name: str) -> str:
    """Return what kind of archive a file is by the ending of its name, or an empty string."""
    ending = name.lower().rpartition(".")[2]  # paths of pathlib leave a trace of each name in memory
    return ending if ending in KINDS else ""


def list_members(file: BinaryIO, name: str, label: str) -> Iterator[Member]:
    """Yield the members of an open archive that is called ``name``; ``label`` is the field that holds their labels.

    Raises:
        BadImage: it is no archive of its kind, or damaged, from here on.
    """
    kind = kind_of(name)
    start = file.read(HEAD)
    file.seek(0)
    offset, signature = SIGNATURES[kind]
    if not start.startswith(signature, offset):
        raise BadImage(*name_other_kind(start, "", file))
    number = 0
    for number, member in enumerate(KINDS[kind].members(file, label), 1):
        if number > MOST_MEMBERS:
            raise BadImage("too_large", f"an archive of more than {MOST_MEMBERS} files: the rest is left out")
        yield _judge(replace(member, place=f"{kind} {member.place}" if member.place else ""))
    if not number:
        raise BadImage("empty", "an archive without files")


def open_member(file: BinaryIO, place: str) -> BufferedReader:
    """Return the bytes of a member as a file, which owns the open archive.

    Raises:
        BadImage: they are damaged, or too large.
    """
    kind, _, numbers = place.partition(" ")
    try:
        return KINDS[kind].open_member(file, numbers)
    except MemoryError:
        raise BadImage("too_large", "takes more memory than a worker may use") from None


def _judge(member: Member) -> Member:
    """Drop what no archive should hold; names are never paths, but those that try to be tell of no good."""
    parts = member.name.split("/")
    if any(map(is_hidden, parts)):
        return replace(member, place="", reason="hidden", detail=HIDDEN)
    if member.reason:
        return member
    if parts[0] == "" or ".." in parts or member.name[1:2] == ":":
        return replace(member, place="", reason="not_a_regular_file", detail="a name that leads out of its archive")
    if kind_of(member.name):
        return replace(member, place="", reason="other_format", detail="an archive in an archive: take it out")
    return member
