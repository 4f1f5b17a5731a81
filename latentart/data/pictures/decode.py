"""Picture files in, upright 8-bit sRGB out: the one policy for everything a picture file can be.

Formats are known by content, never by extension. A file is opened only when it is a regular file, checked
(``verify``), decoded whole (``load``), and only then flattened, reduced and turned.
"""

from __future__ import annotations

import math
import os
import re
import stat
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from io import SEEK_END, BufferedReader
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import AvifImagePlugin, ExifTags, Image, ImageFile, PngImagePlugin, UnidentifiedImageError

from latentart.data.pictures.colors import flatten_to_srgb
from latentart.data.pictures.formats import (
    BadImage,
    is_cut,
    is_heif,
    is_misread_tiff,
    is_raw_camera_file,
    is_tiff,
    looks_like_picture,
)
from latentart.data.pictures.jpeg_scan import LARGEST_CHECKED_JPEG, decode_strictly, find_scan_damage
from latentart.data.pictures.other_kinds import HEAD, name_other_kind
from latentart.data.pictures.png import LARGEST_TEXT, mend_key, without_large_texts
from latentart.data.pictures.reducing import (
    BANDED,
    is_bomb,
    reduce_in_bands,
    reduce_when_decoded,
    refuse_bomb,
    stored_size,
)
from latentart.errors import extra

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF", "AVIF", "JPEG2000", "PPM")  # JPEG covers MPO
MAX_PIXELS = 89_478_485  # where Pillow starts to warn: 256 MiB as RGB
WHITE = (255, 255, 255)
BOMBS = (Image.DecompressionBombWarning, Image.DecompressionBombError)
NO_MEMORY = re.compile(
    r"(out of|not enough|insufficient) memory|memory (alloc|error|limit)|alloc\w* fail", re.IGNORECASE
)
TOO_MUCH_TEXT = re.compile("Decompressed data too large|Too much memory used in text")
# a worker may take so much; the decoders of some formats take more, measured with alpha, so they may have fewer pixels
BYTES_PER_PIXEL = 12
_STRICT = threading.RLock()
HUNGRY_FORMATS = {"WEBP": 18, "AVIF": 18, "HEIF": 18, "JPEG2000": 24}
UNREAD_TIFF = "a TIFF of a kind that is not read, or a raw camera file: save it with 8 bits per channel"
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


@dataclass(frozen=True, slots=True)
class Decoded:
    """A picture, and the width and height it has in its file when held upright; the picture may be reduced."""

    picture: Image.Image
    width: int
    height: int


def decode_image(
    path: Path,
    *,
    background: tuple[int, int, int] = WHITE,
    max_pixels: int = MAX_PIXELS,
    max_side: int | None = None,
) -> Image.Image:
    """Return the picture in a file as an upright 8-bit RGB image in sRGB, as ``decode_stream`` does.

    Raises:
        BadImage: the file is not a sound picture of at most ``max_pixels`` pixels.
    """
    with open_regular_file(path) as file:
        return decode_stream(file, background=background, max_pixels=max_pixels, max_side=max_side).picture


def flatten_image(image: Image.Image, background: tuple[int, int, int] = WHITE) -> Image.Image:
    """Return a picture that is open already as an upright 8-bit RGB image in sRGB; it is not changed itself."""
    turn = TURNS.get(_orientation(image))
    flat = flatten_to_srgb(image.copy(), background)
    flat = flat if turn is None else flat.transpose(turn)
    flat.info.clear()
    return flat


def open_regular_file(path: Path) -> BufferedReader:
    """Open a file for reading, but no link, pipe, device or folder.

    Raises:
        BadImage: not_a_regular_file or unreadable.
    """
    # the flags hold the door should the file be swapped after lstat: a pipe must never make us wait
    flags = sum(getattr(os, name, 0) for name in ("O_NOFOLLOW", "O_NONBLOCK", "O_BINARY"))
    try:
        if not stat.S_ISREG(path.lstat().st_mode):
            raise BadImage("not_a_regular_file", "a link, pipe, device or folder")
        file = os.fdopen(os.open(path, os.O_RDONLY | flags), "rb")
    except OSError as error:
        raise BadImage("unreadable", error.strerror or str(error)) from error
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise BadImage("not_a_regular_file", "a link, pipe, device or folder")
    return file


def decode_stream(
    file: BinaryIO,
    *,
    background: tuple[int, int, int] = WHITE,
    max_pixels: int = MAX_PIXELS,
    max_side: int | None = None,
) -> Decoded:
    """Return the picture in an open file as an upright 8-bit RGB image in sRGB, without any metadata.

    With ``max_side`` its shorter side is at most that long (Lanczos), never enlarged. Of an animation this is the
    first frame. Transparent parts show ``background``.

    Raises:
        BadImage: the content is not a sound picture of at most ``max_pixels`` pixels.
    """
    start = file.read(12)
    if not start:
        raise BadImage("empty", "the file is empty")
    with strict_pillow(max_pixels):
        try:
            try:
                return _decode(file, start, background, max_pixels, max_side)
            except ValueError as error:
                if not TOO_MUCH_TEXT.search(str(error)):
                    raise
                file = without_large_texts(file)
                return _decode(file, start, background, max_pixels, max_side)
        except BadImage:
            raise
        except Exception as error:  # decoders raise anything from SyntaxError to ZeroDivisionError
            raise _bad_image(error, file, start) from error


def _decode(
    file: BinaryIO, start: bytes, background: tuple[int, int, int], max_pixels: int, max_side: int | None
) -> Decoded:
    # one name for every state of the picture: the one before is freed as soon as the next is there
    image: Image.Image = _open(file, start, max_pixels)
    file_format, size, box = image.format or "", image.size, None
    is_large = _is_large(image, max_pixels)
    if is_large and max_side and file_format in BANDED:
        size = stored_size(image)
        image, factor, told = reduce_in_bands(image, file, background, max_side, max_pixels)
        box, orientation = (0.0, 0.0, size[0] / factor, size[1] / factor), _orientation(told)
    else:
        if max_side:
            box = reduce_when_decoded(image, file, max_side, max_pixels * BYTES_PER_PIXEL if is_large else None)
        if is_large and _is_large(image, max_pixels):
            raise BadImage("too_large", f"{size[0]} x {size[1]} pixels of {file_format}, too many to decode whole")
        if file_format in ("JPEG", "MPO"):
            orientation = _orientation(image)
            image = _load_jpeg(image, file)
        else:
            image.load()
            size = image.size if box is None else size  # a TIFF turns itself
            orientation = _orientation(image)  # which a PNG may tell at its end
        image = flatten_to_srgb(image, background)
    if is_large and not np.ptp(image.getextrema(), axis=1).any():
        raise BadImage("bomb", f"{size[0]} x {size[1]} pixels of one color")
    if max_side:
        image = _resize(image, _reduced_size(size, max_side), box)
    if (turn := TURNS.get(orientation)) is not None:
        image = image.transpose(turn)
    image.info.clear()  # a saver would write comments and profiles found here
    if file_format == "PNG" and is_cut(file):
        raise BadImage("truncated", "the end mark is missing")
    return Decoded(image, *(size if orientation < 5 else size[::-1]))


def _open(file: BinaryIO, start: bytes, max_pixels: int) -> ImageFile.ImageFile:
    formats = _readable_formats(start)
    file.seek(0)
    with strict_pillow(max_pixels if start[8:12] == b"WEBP" else None):  # whose decoder takes its memory at once
        image = Image.open(file, formats=formats)
    if _is_large(image, max_pixels):
        refuse_bomb(image, file)
    elif image.format == "PNG":
        image.verify()  # checksums, which load() does not look at; it leaves an image unusable
        file.seek(0)
        image = Image.open(file, formats=formats)
    if is_raw_camera_file(image, start):
        raise BadImage("other_format", "a raw camera file: develop it first")
    if is_misread_tiff(image):
        raise BadImage("other_format", UNREAD_TIFF)
    mend_key(image)
    return image


def _is_large(image: Image.Image, max_pixels: int) -> bool:
    """Return whether an opened picture, decoded whole, takes more memory than ``max_pixels`` pixels may."""
    needed = HUNGRY_FORMATS.get(image.format or "", BYTES_PER_PIXEL)
    return math.prod(image.size) * needed > max_pixels * BYTES_PER_PIXEL


def _readable_formats(start: bytes) -> tuple[str, ...]:
    if start[4:8] == b"ftyp":
        # a worker is one process of many already, and threads take address space, of which it has little
        AvifImagePlugin.DEFAULT_MAX_THREADS = 1
    if is_heif(start):
        with suppress(ImportError):  # an extra
            import pillow_heif

            if "HEIF" not in Image.OPEN:
                pillow_heif.register_heif_opener(thumbnails=False, decode_threads=1)
            return (*FORMATS, "HEIF")
    return FORMATS


def _load_jpeg(image: Image.Image, file: BinaryIO) -> Image.Image:
    """Decode an opened JPEG; its scan is checked where that is possible, at best while it is decoded."""
    if file.seek(0, SEEK_END) > LARGEST_CHECKED_JPEG:
        image.load()
        return image
    file.seek(0)
    data = file.read()
    pixels = decode_strictly(data, image.size) if image.mode == "RGB" else None
    if pixels is not None:
        loaded = Image.fromarray(pixels)
        loaded.info = image.info
        return loaded
    image.load()
    if damage := find_scan_damage(data):
        raise BadImage("damaged", damage)
    return image


@contextmanager
def strict_pillow(max_pixels: int | None) -> Iterator[None]:
    """Let Pillow raise on what has more pixels, and on nothing else; None sets no limit, for who reads a header."""
    # Pillow keeps its limit and its warnings in globals: set for one decode, of one thread, then put back
    with _STRICT, warnings.catch_warnings():
        limit_before, text_before = Image.MAX_IMAGE_PIXELS, PngImagePlugin.MAX_TEXT_CHUNK
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        Image.MAX_IMAGE_PIXELS, PngImagePlugin.MAX_TEXT_CHUNK = max_pixels, LARGEST_TEXT
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS, PngImagePlugin.MAX_TEXT_CHUNK = limit_before, text_before


def _bad_image(error: Exception, file: BinaryIO, start: bytes) -> BadImage:
    """Tell from a decoder's error and from the file what is wrong with it."""
    detail = str(error) or type(error).__name__
    if isinstance(error, MemoryError) or NO_MEMORY.search(detail):
        return BadImage("too_large", f"takes more memory than a worker may use ({detail})")
    if isinstance(error, BOMBS):  # its text names twice the limit
        num_pixels = int((re.findall(r"\d+", detail) or ["0"])[0])
        reason = "bomb" if is_bomb(num_pixels * 24, file) else "too_large"
        return BadImage(reason, f"{num_pixels} pixels, more than may be decoded")
    if isinstance(error, OSError) and error.errno is not None:
        return BadImage("unreadable", detail)
    if is_heif(start) and "HEIF" not in Image.OPEN:
        return BadImage("other_format", f"HEIC or HEIF is read after {extra('heif')}")
    is_unknown = isinstance(error, UnidentifiedImageError)  # its text holds an address, which differs in every run
    if is_unknown and not looks_like_picture(start):
        file.seek(0)
        return BadImage(*name_other_kind(file.read(HEAD), "", file))
    if is_cut(file):
        return BadImage("truncated", "the file ends before the picture does")
    if is_unknown and is_tiff(start):
        return BadImage("other_format", UNREAD_TIFF)
    if is_unknown:
        return BadImage("damaged", "starts like a picture, but its header is not sound")
    return BadImage("truncated" if "truncated" in detail.lower() else "damaged", detail)


def _orientation(image: Image.Image) -> int:
    with suppress(Exception):  # broken EXIF says nothing about the pixels
        return int(image.getexif().get(ExifTags.Base.Orientation, 1))
    return 1


def _reduced_size(size: tuple[int, int], max_side: int) -> tuple[int, int]:
    scale = max_side / min(size)
    return size if scale >= 1 else (max(max_side, round(size[0] * scale)), max(max_side, round(size[1] * scale)))


def _resize(image: Image.Image, size: tuple[int, int], box: tuple[float, float, float, float] | None) -> Image.Image:
    return image if size == image.size else image.resize(size, Image.Resampling.LANCZOS, box=box)
