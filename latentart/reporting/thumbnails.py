"""Small copies of pictures as text that stands inside a page."""

from __future__ import annotations

import base64
import io
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from PIL import Image

Item = TypeVar("Item")

MAX_PIXELS = 64 * 2**20  # of a preview; a page of 128 samples of 512 px has half of that
QUALITIES = (85, 70, 50)
SHRINK = 0.7


@dataclass(frozen=True)
class Thumbnail:
    """A small picture, as the address of an ``<img>``; the size is in pixels."""

    address: str
    width: int
    height: int


def make_thumbnail(path: Path, sides: tuple[int, int], max_bytes: int) -> Thumbnail | None:
    """Return a JPEG of at most ``sides`` (width, height) and ``max_bytes``; None where the file is no sound picture."""
    if not path.is_file():  # also keeps us from waiting on a named pipe
        return None
    try:
        with Image.open(path) as picture:
            if picture.width * picture.height > MAX_PIXELS:
                return None
            # nearly to the size in whole steps first, which is far quicker
            picture.thumbnail(sides, Image.Resampling.LANCZOS, reducing_gap=1.0)
            small = picture.convert("RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None
    return to_thumbnail(small, max_bytes)


def to_thumbnail(small: Image.Image, max_bytes: int) -> Thumbnail:
    """Return an RGB picture as a JPEG of at most so many bytes, made smaller where it has to be."""
    while True:
        for quality in QUALITIES:
            buffer = io.BytesIO()
            small.save(buffer, format="JPEG", quality=quality)
            if len(buffer.getvalue()) <= max_bytes or min(small.size) <= 8:
                address = "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
                return Thumbnail(address, *small.size)
        small.thumbnail((max(1, int(small.width * SHRINK)), max(1, int(small.height * SHRINK))))


def make_thumbnails(paths: Sequence[Path], sides: tuple[int, int], max_bytes: int) -> list[Thumbnail | None]:
    """Return the same of several pictures, in their order; they are decoded side by side."""
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        return list(pool.map(lambda path: make_thumbnail(path, sides, max_bytes), paths))


def thin_evenly(items: Sequence[Item], most: int) -> list[Item]:
    """Return at most so many, evenly spread, the first and the last among them."""
    if len(items) <= most:
        return list(items)
    return [items[round(i * (len(items) - 1) / (most - 1))] for i in range(most)]
