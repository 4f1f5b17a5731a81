"""ZIP archives: the list at their end is read entry by entry, so that memory does not grow with it.

Source: PKWARE, APPNOTE.TXT 6.3.10, sections 4.3 to 4.5.
"""

from __future__ import annotations

import io
import stat
import struct
import zlib
from collections.abc import Iterator
from typing import BinaryIO

from latentart.data.cleaning.archives.member import LARGEST, Member, Part
from latentart.data.pictures.formats import BadImage

END = struct.Struct("<4s4H2LH")
END64 = struct.Struct("<4sQ2H2L4Q")
LOCATOR64 = 20  # bytes between the two
LONGEST_COMMENT = 0xFFFF
ENTRY = struct.Struct("<4s4B4H3L5H2L")
LOCAL = struct.Struct("<4s5H3L2H")
UNKNOWN = 0xFFFFFFFF  # stands in the ZIP64 field
STORED, DEFLATED = 0, 8
ENCRYPTED = 1
BOMB_RATIO = 500  # of a member too large to unpack


def members(file: BinaryIO, label: str) -> Iterator[Member]:
    """Yield what an archive lists, but no folders.

    Raises:
        BadImage: the list is damaged.
    """
    del label  # none is told but by names
    start, length, shift = _find_list(file)
    file.seek(start)
    left = length
    while left >= ENTRY.size:
        head = ENTRY.unpack(_read(file, ENTRY.size))
        _, _, _, _, _, flags, method, _, _, crc, packed, size, *lengths, _, _, attributes, offset = head
        name, extra = _read(file, lengths[0]), _read(file, lengths[1])
        file.seek(lengths[2], io.SEEK_CUR)
        left -= ENTRY.size + sum(lengths)
        if head[0] != b"PK\1\2":
            raise BadImage("damaged", "its list of files is not sound")
        size, packed, offset = _wide((size, packed, offset), extra)
        if name.endswith((b"/", b"\\")):
            continue
        place = f"{offset + shift} {packed} {size} {method} {crc}"
        reason, detail = _refusal(flags, method, attributes >> 16)
        yield Member(_text(name), "" if reason else place, size, reason=reason, detail=detail)


def open_member(file: BinaryIO, place: str) -> io.BufferedReader:
    """Return a member's bytes as a file; what is stored is not copied.

    Raises:
        BadImage: it is damaged, or too large to unpack.
    """
    offset, packed, size, method, crc = map(int, place.split())
    if method == DEFLATED and max(size, packed) > LARGEST:
        raise BadImage("bomb" if size > BOMB_RATIO * packed else "too_large", f"unpacks to {size} bytes")
    file.seek(offset)
    signature, *_, name_length, extra_length = LOCAL.unpack(_read(file, LOCAL.size))
    if signature != b"PK\3\4" or (method == STORED and packed != size):
        raise BadImage("damaged", "its place in the archive is not sound")
    start = offset + LOCAL.size + name_length + extra_length
    if method == STORED:
        return io.BufferedReader(Part(file, start, size))
    with file:
        file.seek(start)
        try:
            content = zlib.decompressobj(-zlib.MAX_WBITS).decompress(file.read(packed), size + 1)
        except zlib.error as error:
            raise BadImage("damaged", "cannot be unpacked") from error
    if len(content) != size or zlib.crc32(content) != crc:
        raise BadImage("damaged", "its checksum does not match")
    return io.BufferedReader(io.BytesIO(content))


def _find_list(file: BinaryIO) -> tuple[int, int, int]:
    """Return where the list of files begins, its length, and by how much its offsets are too small."""
    total = file.seek(0, io.SEEK_END)
    before = file.seek(max(0, total - END.size - LONGEST_COMMENT - LOCATOR64 - END64.size))
    tail = file.read()
    at = tail.rfind(b"PK\5\6")
    if at < 0 or len(tail) - at < END.size:
        raise BadImage("truncated", "the list of files at its end is missing")
    _, disk, _, _, _, length, offset, _ = END.unpack_from(tail, at)
    wide = at - LOCATOR64 - END64.size
    if wide >= 0 and tail[wide : wide + 4] == b"PK\6\6":
        *_, disk, _, _, _, length, offset = END64.unpack_from(tail, at := wide)
    start = before + at - length
    if disk or start < offset:
        raise BadImage("damaged", "its list of files is not where it should be, as in one of several parts")
    return start, length, start - offset


def _wide(numbers: tuple[int, ...], extra: bytes) -> tuple[int, ...]:
    """Return the sizes and the offset, from the ZIP64 field where they stand there."""
    while len(extra) >= 4 and UNKNOWN in numbers:
        kind, length = struct.unpack_from("<2H", extra)
        if kind == 1:
            wide = iter(struct.unpack_from(f"<{min(length, len(extra) - 4) // 8}Q", extra, 4))
            return tuple(next(wide, UNKNOWN) if number == UNKNOWN else number for number in numbers)
        extra = extra[4 + length :]
    return numbers


def _refusal(flags: int, method: int, mode: int) -> tuple[str, str]:
    if stat.S_ISLNK(mode):
        return "not_a_regular_file", "a link in an archive"
    if flags & ENCRYPTED:
        return "other_format", "encrypted: unpack the archive with its password"
    if method not in (STORED, DEFLATED):
        return "other_format", f"packed in a way that is not read ({method}): pack it again, with deflate"
    return "", ""


def _text(name: bytes) -> str:
    try:
        text = name.decode("utf-8")  # as most write it, whether they say so or not
    except UnicodeDecodeError:
        text = name.decode("cp437")
    return text.partition("\0")[0].replace("\\", "/")


def _read(file: BinaryIO, length: int) -> bytes:
    content = file.read(length)
    if len(content) < length:
        raise BadImage("truncated", "the archive ends too soon")
    return content
