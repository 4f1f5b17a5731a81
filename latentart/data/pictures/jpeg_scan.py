"""The scan of a JPEG, which Pillow fills with grey where it cannot read it: found damaged, if ``simplejpeg`` is there.

It comes with the extra ``strict``. A clean data set is the same with and without it, but for what is dropped.
"""

from __future__ import annotations

import hashlib
import re
from contextlib import suppress
from functools import cache
from io import BytesIO
from typing import Any

from PIL import Image

LARGEST_CHECKED_JPEG = 1 << 28  # the check holds the file in memory
SCAN_DAMAGE = re.compile(
    r"bad (Huffman|arithmetic) code|premature end of|found marker 0x\w\w instead of|(\d+) extraneous bytes before",
    re.IGNORECASE,
)
SPARE_BYTES = 16  # that many before a marker are a sloppy encoder's; more are picture that was not understood


def find_scan_damage(data: bytes) -> str:
    """Return what is wrong with the scan of a JPEG, or an empty string; always empty without ``simplejpeg``.

    Only words on the scan itself count: libjpeg-turbo also complains of profiles, versions and paddings.
    """
    try:
        import simplejpeg
    except ImportError:
        return ""
    try:
        colors = simplejpeg.decode_jpeg_header(data, strict=False)[2]
        # the smallest scale still reads every code of the scan, and all other strictness is Pillow's business
        colors = "CMYK" if colors in ("CMYK", "YCCK") else "GRAY"
        simplejpeg.decode_jpeg(data, colorspace=colors, min_height=1, min_width=1, min_factor=8, strict=True)
    except Exception as error:
        found = SCAN_DAMAGE.search(str(error))
        if found and not (found[2] and _is_spare(data, int(found[2]))):
            return str(error)
    return ""


def decode_strictly(data: bytes, size: tuple[int, int]) -> Any:
    """Return the pixels [H, W, 3] uint8 of a sound JPEG, decoded to that size (width, height) and checked in one go.

    They are those that Pillow's ``draft`` gives. None leaves it to Pillow: without ``simplejpeg``, where that decodes
    to other pixels, and where it has anything to complain of.
    """
    if min(size) < 16 or not _decodes_as_pillow():  # a tiny picture has one size at several scales
        return None
    with suppress(Exception):
        pixels = _simplejpeg_pixels(data, size)
        if pixels.shape == (size[1], size[0], 3):
            return pixels
    return None


@cache
def _decodes_as_pillow() -> bool:
    """Return whether both decoders agree on a small picture, whole and halved: both are libjpeg-turbo, of some age."""
    noise = Image.frombytes("RGB", (64, 48), hashlib.shake_128(b"").digest(64 * 48 * 3))
    for subsampling in (0, 2):
        file = BytesIO()
        noise.save(file, "JPEG", quality=90, subsampling=subsampling)
        for size in ((64, 48), (32, 24)):
            image = Image.open(file)
            image.draft(None, size)
            try:
                is_same = _simplejpeg_pixels(file.getvalue(), size).tobytes() == image.tobytes()
            except Exception:
                return False
            if not is_same:
                return False
    return True


def _simplejpeg_pixels(data: bytes, size: tuple[int, int]) -> Any:
    import simplejpeg

    return simplejpeg.decode_jpeg(
        data, colorspace="RGB", min_width=size[0], min_height=size[1], min_factor=1, strict=True
    )


def _is_spare(data: bytes, count: int) -> bool:
    return count <= SPARE_BYTES or bytes(count) + b"\xff" in data
