"""Short movies of pictures, GIF or WebP, with text inside."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import ExifTags, Image

from latentart.data.pictures.marks import gif_block
from latentart.data.pictures.stills import describing
from latentart.storage.whole import whole_file

SUFFIXES = (".gif", ".webp")
FRAME_MS = 100
HOLD_MS = 2000


def save_movie(
    frames: Sequence[Image.Image], path: Path, text: str, *, frame_ms: int = FRAME_MS, xmp: str = ""
) -> None:
    """Write RGB frames of one size as an endless movie, the last held longer; the file appears whole or not at all.

    The suffix says which: GIF has 256 colors a frame, WebP all, slightly rounded. ``text``, of ASCII, goes into the
    comment of a GIF and into the EXIF description of a WebP; ``xmp`` is a packet, as that of ``marks``.

    Raises:
        ValueError: no frames, or another suffix.
    """
    suffix = path.suffix.lower()
    if not frames or suffix not in SUFFIXES:
        msg = f"movie: got {len(frames)} frames for {path.name}, expected some for one of {', '.join(SUFFIXES)}"
        raise ValueError(msg)
    path.parent.mkdir(parents=True, exist_ok=True)
    first, *others = frames
    durations = [*[frame_ms] * len(others), HOLD_MS]
    options: dict[str, Any] = {"comment": text.encode()}
    if suffix == ".webp":
        options = {"exif": describing(text), "xmp": xmp.encode(), "quality": 90}
    with whole_file(path) as temporary:
        kind = suffix.removeprefix(".")
        first.save(temporary, kind, save_all=True, append_images=others, duration=durations, loop=0, **options)
        if xmp and suffix == ".gif":  # which Pillow does not write
            _insert(temporary, gif_block(xmp))


def _insert(gif: Path, block: bytes) -> None:
    """Put an extension where the blocks of a GIF begin: behind its head and the colors of all frames."""
    content = gif.read_bytes()
    colors = 3 * 2 ** ((content[10] & 7) + 1) if content[10] & 128 else 0
    gif.write_bytes(content[: 13 + colors] + block + content[13 + colors :])


def read_movie_text(movie: Image.Image) -> str | None:
    """Return the text in an opened GIF, or in a WebP or JPEG, a still too; None where there is none."""
    if movie.format == "GIF":
        comment = movie.info.get("comment")
        return comment.decode("utf-8", "replace") if isinstance(comment, bytes) else None
    text = movie.getexif().get(ExifTags.Base.ImageDescription)
    return text if isinstance(text, str) else None


def shrink_to(size: tuple[int, int], max_pixels: float) -> tuple[int, int]:
    """Return width and height of the same shape with at most ``max_pixels`` pixels, at least 1 each."""
    scale = min(1.0, (max_pixels / (size[0] * size[1])) ** 0.5)
    return max(1, int(size[0] * scale)), max(1, int(size[1] * scale))
