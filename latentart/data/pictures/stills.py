"""Single pictures as JPEG or WebP, with text inside; PNG is in ``grids``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from PIL import ExifTags, Image

from latentart.storage.whole import whole_file

LARGEST = {".png": 2**31 - 1, ".jpg": 65_500, ".jpeg": 65_500, ".webp": 16_383}  # side, by suffix
MOST_TEXT = 60_000  # letters in a JPEG, whose segments have 64 KB


def describing(text: str) -> Image.Exif:
    """Return EXIF of which a text of ASCII is the description."""
    exif = Image.Exif()
    exif[ExifTags.Base.ImageDescription] = text
    return exif


def save_still(picture: Image.Image, path: Path, text: str, xmp: str = "") -> None:
    """Write a JPEG, slightly rounded, or a WebP, not rounded at all; the file appears whole or not at all.

    ``text``, of ASCII, becomes the EXIF description; ``xmp`` is a packet, as that of ``marks``.
    """
    is_webp = path.suffix.lower() == ".webp"
    how: dict[str, Any] = {"lossless": True} if is_webp else {"quality": 95, "subsampling": 0}
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as temporary:
        picture.save(temporary, "WEBP" if is_webp else "JPEG", exif=describing(text), xmp=xmp.encode(), **how)
