"""What picture files say of themselves: how they start, what they are, whether their end is there.

Nothing here makes pixels. It is asked when a decoder has failed, because decoders say "broken" in many ways and
seldom why.
"""

from __future__ import annotations

import struct
from contextlib import suppress
from io import SEEK_END
from typing import BinaryIO

from PIL import Image, ImageFile

from latentart.errors import DataError

SIGNATURES = (
    b"\xff\xd8\xff",
    b"\x89PNG\r\n\x1a\n",
    b"GIF87a",
    b"GIF89a",
    b"\0\0\0\x0cjP  ",
    b"\xff\x4f\xff\x51",
    *(TIFF_SIGNATURES := (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")),
)
HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1")
BITS_PER_SAMPLE, DNG_VERSION = 258, 50706  # tags of TIFF
SUBFILE_TYPE, REDUCED = 254, 1  # a tag, and the bit that says "of another picture in this file"
STRIPS_AND_TILES = ((273, 279), (324, 325))  # tags of their offsets and of their numbers of bytes


class BadImage(DataError):  # noqa: N818 - says what the file is, not that we failed
    """A file is no sound picture; ``reason_code`` is one word for counting, ``detail`` says more.

    Codes: empty, not_a_picture, web_page, lfs_pointer, other_format, truncated, damaged, bomb, too_large,
    unreadable, not_a_regular_file.
    """

    def __init__(self, reason_code: str, detail: str) -> None:
        super().__init__(f"{reason_code.replace('_', ' ')}: {detail}")
        self.reason_code = reason_code
        self.detail = detail


def looks_like_picture(start: bytes) -> bool:
    """Return whether a file that starts with these 12 bytes says that it is a picture of a format we read."""
    is_bmp = start[:2] == b"BM" and start[6:10] == bytes(4)
    is_webp, is_avif = start[8:12] == b"WEBP", start[4:12] in (b"ftypavif", b"ftypavis")
    return start.startswith(SIGNATURES) or is_bmp or is_webp or is_avif or is_heif(start)


def may_be_picture(start: bytes) -> bool:
    """Return whether a file that starts with these 12 bytes is worth a decoder, PPM and its kin included."""
    return looks_like_picture(start) or (start[:1] == b"P" and start[1:2] in b"1234567FfUuYy" and start[2:3].isspace())


def is_heif(start: bytes) -> bool:
    """Return whether a file that starts with these 12 bytes may be HEIC or HEIF (or AVIF under a general name)."""
    return start[4:8] == b"ftyp" and start[8:12] in HEIF_BRANDS


def is_tiff(start: bytes) -> bool:
    """Return whether a file starts like TIFF or BigTIFF, as raw camera files do too."""
    return start.startswith(TIFF_SIGNATURES)


def is_raw_camera_file(image: Image.Image, start: bytes) -> bool:
    """Return whether an opened TIFF is a raw camera file: what Pillow sees of it is a small preview."""
    tags = getattr(image, "tag_v2", {})
    return start[8:10] == b"CR" or DNG_VERSION in tags or bool(tags.get(SUBFILE_TYPE, 0) & REDUCED)


def is_misread_tiff(image: ImageFile.ImageFile) -> bool:
    """Return whether Pillow would give wrong pixels of an opened TIFF without a word, as these two kinds show."""
    if image.format != "TIFF":
        return False
    tile = image.tile[0]
    raw_mode = str(tile.args[0]) if tile.args else ""
    is_swapped = tile.codec_name == "libtiff" and raw_mode.endswith(("BS", "BF"))
    is_deep_plane = len(raw_mode) == 1 and max(getattr(image, "tag_v2", {}).get(BITS_PER_SAMPLE, (8,))) > 8
    return is_swapped or is_deep_plane


def is_cut(file: BinaryIO) -> bool:
    """Return whether a picture file ends before its own header, boxes or end mark say."""
    size = file.seek(0, SEEK_END)
    file.seek(0)
    start = file.read(12)
    with suppress(Exception):  # a header that makes no sense says nothing
        if start.startswith(b"\xff\xd8\xff"):
            return _jpeg_is_cut(file, size)
        if start.startswith(b"\x89PNG"):
            return _png_is_cut(file, size)
        if start.startswith(b"GIF8"):
            return not _ends_with(file, size, b";")
        if start.startswith(b"\xff\x4f\xff\x51"):
            return not _ends_with(file, size, b"\xff\xd9")
        if start[:4] == b"RIFF":
            return struct.unpack("<I", start[4:8])[0] + 8 > size
        if start[:2] == b"BM":
            return struct.unpack("<I", start[2:6])[0] > size
        if start[4:8] in (b"ftyp", b"jP  "):
            return _boxes_are_cut(file, size)
        if is_tiff(start):
            return _tiff_is_cut(file, size)
    return False


def _ends_with(file: BinaryIO, size: int, mark: bytes) -> bool:
    file.seek(max(0, size - len(mark)))
    return file.read() == mark


def _jpeg_is_cut(file: BinaryIO, size: int) -> bool:
    position = 2
    while position + 4 <= size:  # over the segments: one may hold a thumbnail with an end mark of its own
        file.seek(position)
        lead, marker, length = struct.unpack(">BBH", file.read(4))
        if lead != 0xFF:
            return False
        if marker == 0xDA:  # the scan, in which an end mark cannot be anything else
            return b"\xff\xd9" not in file.read()
        position += 1 if marker == 0xFF else 2 + length
    return True


def _png_is_cut(file: BinaryIO, size: int) -> bool:
    position = 8
    while position + 12 <= size:
        file.seek(position)
        length, kind = struct.unpack(">I4s", file.read(8))
        position += 12 + length
        if kind == b"IEND":
            break
    else:
        return True
    return position > size


def _boxes_are_cut(file: BinaryIO, size: int) -> bool:
    position = 0
    while position < size:
        file.seek(position)
        length, kind = struct.unpack(">I4s", file.read(8))
        if length == 1:
            (length,) = struct.unpack(">Q", file.read(8))
        if length == 0:  # to the end of the file
            return kind == b"jp2c" and not _ends_with(file, size, b"\xff\xd9")
        if length < 8:
            return False
        position += length
    return position > size


def _tiff_is_cut(file: BinaryIO, size: int) -> bool:
    file.seek(0)
    start = file.read(16)
    order, is_big = "<" if start[:1] == b"I" else ">", 43 in start[2:4]
    (directory,) = struct.unpack(f"{order}Q" if is_big else f"{order}I", start[8:] if is_big else start[4:8])
    file.seek(directory)
    (num_tags,) = struct.unpack(f"{order}Q" if is_big else f"{order}H", file.read(8 if is_big else 2).ljust(2, b"\xff"))
    if directory + num_tags * (20 if is_big else 12) > size:
        return True
    tags = getattr(Image.open(file, formats=("TIFF",)), "tag_v2", {})
    pairs = (
        pair for at, count in STRIPS_AND_TILES for pair in zip(tags.get(at, ()), tags.get(count, ()), strict=False)
    )
    return any(offset + count > size for offset, count in pairs)
