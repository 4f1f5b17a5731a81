"""The embedded data set: pictures in eight styles drawn from a seed, and a raw folder as untidy as real ones."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path
from random import Random

from PIL import Image

from latentart.data.synthetic.styles import STYLES, Canvas
from latentart.errors import DataError, nearest
from latentart.storage.whole import remove_temporaries, whole_file

__all__ = ["BROKEN_FILES", "FILE_NAMES", "STYLES", "draw_picture", "write_raw_folder"]

FILE_NAMES = {
    "Action_painting": "drips",
    "Color_Field_Painting": "fields",
    "Cubism": "still_life",
    "High_Renaissance": "portrait",
    "Minimalism": "shape",
    "Pointillism": "meadow",
    "Pop_Art": "burst",
    "Ukiyo_e": "waves",
}

# What must not get into a clean data set. The cut JPEG opens and verifies but does not load; the PNG opens
# and loads but does not verify; the others do not open.
BROKEN_FILES = {
    "Cubism/still_life_scan.jpg": "cut JPEG",
    "Minimalism/untitled.jpg": "empty file",
    "Pop_Art/burst_download.jpg": "HTML page",
    "Action_painting/drips_recovered.jpg": "random bytes",
    "Ukiyo_e/waves_copy.png": "PNG with a wrong checksum",
}

HTML_PAGE = b"<!DOCTYPE html>\n<html><head><title>404 Not Found</title></head><body>Not Found</body></html>\n"
NOTES = b"Scans and downloads, not sorted out yet. Some of these do not open.\n"

# Turns a picture into what a camera held that way stores beside the EXIF orientation that undoes it.
TURNS = {
    3: Image.Transpose.ROTATE_180,
    6: Image.Transpose.ROTATE_90,
    8: Image.Transpose.ROTATE_270,
}
ORIENTATION_TAG = 0x0112


def draw_picture(style: str, seed: int, index: int, size: tuple[int, int]) -> Image.Image:
    """Draw the RGB picture number ``index`` of a style; the same arguments always give the same bytes.

    Args:
        style: a key of ``STYLES``.
        seed: which data set; another seed draws other pictures.
        index: which picture of the style.
        size: (width, height) in pixels. One picture looks the same at every size of one aspect ratio.

    Raises:
        DataError: there is no such style, or the size is not positive.
    """
    if style not in STYLES:
        message = f"No synthetic style is called {style!r}.{nearest(style, STYLES)}"
        raise DataError(message, f"There are {', '.join(STYLES)}.")
    if min(size) < 1:
        raise DataError(f"A picture cannot be {size[0]}x{size[1]} pixels.", "Use at least 1x1.")
    canvas = Canvas(size)
    STYLES[style](canvas, _rng("picture", style, seed, index))
    return canvas.picture()


def write_raw_folder(folder: Path, *, seed: int, pictures_per_style: int, size: int) -> int:
    """Write ``folder/<Style>/<name>`` as a person would have it, ``BROKEN_FILES`` included.

    Most pictures are JPEG and square, some PNG, upright or wide; a few are stored turned, with the EXIF
    orientation that says so. The shorter side has ``size`` pixels. A file that exists is left as it is, so
    an interrupted run goes on where it stopped.

    Returns:
        The number of good pictures this call wrote: broken files and files left as they were do not count.

    Raises:
        DataError: ``folder`` is a file.
    """
    if folder.exists() and not folder.is_dir():
        raise DataError(f"{folder} is a file.", "Name a folder for the pictures.")
    num_written = 0
    for style, name in FILE_NAMES.items():
        (folder / style).mkdir(parents=True, exist_ok=True)
        remove_temporaries(folder / style)
        for index in range(pictures_per_style):
            path = folder / style / f"{name}_{index + 1:04d}.{'png' if index % 8 == 5 else 'jpg'}"
            if not path.exists():
                _write_whole(path, _picture_file(style, seed, index, size))
                num_written += 1
    for path, content in _untidy_files(folder, seed, size).items():
        if not path.exists():
            _write_whole(path, content)
    return num_written


def _picture_file(style: str, seed: int, index: int, size: int) -> bytes:
    rng = _rng("file", style, seed, index)
    longer = round(size * rng.uniform(1.05, 1.3))
    sides = rng.choice([(size, size), (size, size), (size, longer), (longer, size)])
    picture = draw_picture(style, seed, index, sides)
    if index % 8 == 5:
        return _encoded(picture, "PNG")
    if index % 40 == 1:
        return _encoded(picture, "JPEG", orientation=rng.choice(list(TURNS)))
    return _encoded(picture, "JPEG")


def _encoded(picture: Image.Image, file_format: str, orientation: int | None = None) -> bytes:
    exif = Image.Exif()
    if orientation is not None:
        exif[ORIENTATION_TAG] = orientation
        picture = picture.transpose(TURNS[orientation])
    buffer = io.BytesIO()
    picture.save(buffer, file_format, quality=95, subsampling=0, exif=exif)
    return buffer.getvalue()


def _untidy_files(folder: Path, seed: int, size: int) -> dict[Path, bytes]:
    contents = {folder / "notes.txt": NOTES}
    for name, kind in BROKEN_FILES.items():
        style = name.partition("/")[0]
        picture = draw_picture(style, seed, -1, (size, size))  # a number no good picture has
        contents[folder / name] = _broken(kind, picture, _rng("broken", style, seed))
    return contents


def _broken(kind: str, picture: Image.Image, rng: Random) -> bytes:
    match kind:
        case "cut JPEG":
            whole = _encoded(picture, "JPEG")
            return whole[: len(whole) * 6 // 10]
        case "empty file":
            return b""
        case "HTML page":
            return HTML_PAGE
        case "random bytes":
            return rng.randbytes(8192)
        case _:
            png = bytearray(_encoded(picture, "PNG"))
            start = png.index(b"IDAT")
            checksum = start + 4 + int.from_bytes(png[start - 4 : start], "big")
            png[checksum] ^= 0xFF
            return bytes(png)


def _write_whole(path: Path, content: bytes) -> None:
    with whole_file(path) as temporary:
        temporary.write_bytes(content)


def _rng(*purpose: object) -> Random:
    digest = hashlib.sha256("/".join(map(str, purpose)).encode()).digest()
    return Random(int.from_bytes(digest[:8], "big"))
