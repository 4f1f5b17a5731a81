"""What PNG files need beside a decoder: large texts left out, and a transparent color mended."""

from __future__ import annotations

import struct
import zlib
from io import BytesIO
from typing import BinaryIO

from PIL import ImageFile

LARGEST_TEXT = 1 << 24  # bytes of one text or profile when unpacked; Pillow's own limit cuts sound color profiles
ALL_TEXTS = 1 << 25
TEXTS = (b"tEXt", b"zTXt", b"iTXt", b"iCCP")
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
