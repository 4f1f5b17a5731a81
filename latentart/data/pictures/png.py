"""What PNG files need beside a decoder: large texts left out, a transparent color mended, rows read in bands."""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Iterator
from io import BytesIO
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageFile

LARGEST_TEXT = 1 << 24  # bytes of one text or profile when unpacked; Pillow's own limit cuts sound color profiles
ALL_TEXTS = 1 << 25
TEXTS = (b"tEXt", b"zTXt", b"iTXt", b"iCCP")
CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # by the type of color
PIXELS = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}  # by their bytes
PIECE = 1 << 16  # bytes of packed rows that are read at once
KEY_SCALES = {"L;2": 85, "L;4": 17}  # from a grey of 2 or 4 bits to one of 8


def without_large_texts(file: BinaryIO) -> BytesIO:
    """Return a PNG without the texts and the color profile that unpack to more than a reader may keep.

    Everything else stays byte for byte, so that damage stays damage.
    """
    file.seek(0)
    slim, left = BytesIO(), ALL_TEXTS
    slim.write(file.read(8))
    while len(head := file.read(8)) == 8:
        length, kind = struct.unpack(">I4s", head)
        chunk = file.read(length + 4)
        if kind in TEXTS:
            size = _unpacked_size(kind, chunk[:-4])
            if size > min(LARGEST_TEXT, left):
                continue
            left -= size
        slim.write(head)
        slim.write(chunk)
    slim.seek(0)
    return slim


def mend_key(image: ImageFile.ImageFile) -> None:
    """Bring the transparent color of an opened PNG, given in the depth of the file, to the 8 bits of its pixels."""
    raw_mode, key = image.tile[0].args if image.tile else None, image.info.get("transparency")
    if raw_mode in KEY_SCALES and isinstance(key, int) and key < 256 // KEY_SCALES[raw_mode]:
        image.info["transparency"] = key * KEY_SCALES[raw_mode]
    elif raw_mode == "RGB;16B" and isinstance(key, tuple) and max(key) > 255:
        image.info["transparency"] = tuple(value >> 8 for value in key)


def bits_per_pixel(file: BinaryIO) -> int:
    """Return how many bits a pixel of a PNG takes before it is packed."""
    file.seek(24)
    depth, color = file.read(2)
    return depth * CHANNELS[color]


def png_bands(image: ImageFile.ImageFile, file: BinaryIO, rows: int) -> Iterator[Image.Image]:
    """Yield an opened PNG that is not interlaced, so many rows at a time; the last band knows how it is turned.

    Raises:
        ValueError: it is cut, or its content or a checksum is not sound.
    """
    bits, (width, left) = bits_per_pixel(file), image.size
    length = math.ceil(width * bits / 8)
    above, waiting, unpack = bytes(length), bytearray(), zlib.decompressobj()
    for kind, packed in _pieces(file):
        if kind == b"eXIf":
            image.info["exif"] = b"Exif\0\0" + packed
        while kind == b"IDAT" and packed and (lacking := min(rows, left) * (length + 1) - len(waiting)):
            waiting += unpack.decompress(packed, lacking)
            packed = unpack.unconsumed_tail
            if len(waiting) == rows * (length + 1) and left > rows:
                band, above = _unfiltered(image, waiting, above, bits)
                yield band
                left, waiting = left - rows, bytearray()
    if len(waiting) < left * (length + 1):
        raise ValueError("image file is truncated")
    yield _unfiltered(image, waiting, above, bits)[0]


def _pieces(file: BinaryIO) -> Iterator[tuple[bytes, bytes]]:
    """Yield the kind and content of the chunks of a PNG, packed rows in pieces."""
    file.seek(8)
    while len(head := file.read(8)) == 8 and head[4:] != b"IEND":
        left, kind = struct.unpack(">I4s", head)
        checksum = zlib.crc32(kind)
        while left:
            piece = file.read(min(left, PIECE) if kind == b"IDAT" else left)
            if not piece:
                raise ValueError("image file is truncated")
            left, checksum = left - len(piece), zlib.crc32(piece, checksum)
            yield kind, piece
        if file.read(4) != struct.pack(">I", checksum):
            raise ValueError(f"broken PNG file (bad checksum in {kind!r})")


def _unfiltered(image: ImageFile.ImageFile, rows: bytearray, above: bytes, bits: int) -> tuple[Image.Image, bytes]:
    """Return some rows of a PNG as a picture and the bytes of the last of them; ``above`` is the row before."""
    width, length, step = image.width, len(above), max(1, bits // 8)
    height, packed = len(rows) // (length + 1), zlib.compress(b"\0" + above + rows, 0)
    if step in PIXELS:
        mode, size = PIXELS[step], (length // step, height + 1)
        plain = Image.frombytes(mode, size, packed, "zip", mode, 0).tobytes()
        band = Image.frombytes(image.mode, (width, height), plain[length:], "raw", image.tile[0].args)
        above = plain[-length:]
    else:  # 16 bits a color, of which Pillow keeps one half
        args = (image.mode, (width, height + 1), packed, "zip")
        halves = [Image.frombytes(*args, f"{image.mode};16{half}", 0) for half in "BL"]
        above = np.stack([np.asarray(half)[-1] for half in halves], -1).tobytes()
        band = halves[0].crop((0, 1, width, height + 1))
    band.info = dict(image.info)
    if image.palette:
        band.putpalette(image.palette.palette, image.palette.mode)
    return band, above


def _unpacked_size(kind: bytes, content: bytes) -> int:
    """Return how many bytes a text takes, or one more than may be kept; what cannot be unpacked takes its own."""
    _, _, rest = content.partition(b"\0")
    if kind == b"tEXt" or (kind == b"iTXt" and rest[:1] == b"\0"):
        return len(content)
    packed = rest.split(b"\0", 3)[-1] if kind == b"iTXt" else rest[1:]
    try:
        return len(zlib.decompressobj().decompress(packed, LARGEST_TEXT + 1))
    except zlib.error:
        return len(content)
