"""Picture files in, upright 8-bit sRGB out: the one policy for everything a picture file can be.

Formats are known by content, never by extension. A file is opened only when it is a regular file, checked
(``verify``), decoded whole (``load``), and only then turned, converted and flattened.
"""

from __future__ import annotations

import os
import stat
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import BufferedReader, BytesIO
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import ExifTags, Image, ImageCms, UnidentifiedImageError

from latentart.errors import DataError

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF", "AVIF", "JPEG2000", "PPM")  # JPEG covers MPO
MAX_PIXELS = 89_478_485  # where Pillow starts to warn: 256 MiB as RGB
WHITE = (255, 255, 255)

SIGNATURES = (b"\xff\xd8\xff", b"\x89PNG\r\n", b"GIF8", b"II*\0", b"MM\0*", b"\0\0\0\x0cjP  ")
DEEP_CEILINGS = {"I": (65535.0,), "F": (1.0, 255.0, 65535.0)}  # the first that holds the largest value is white
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class BadImage(DataError):  # noqa: N818 - says what the file is, not that we failed
    """A file is no sound picture; ``reason_code`` is one word for counting, ``detail`` says more.

    Codes: too_few_bytes, not_a_picture, truncated, damaged, bomb, unreadable, not_a_regular_file.
    """

    def __init__(self, reason_code: str, detail: str) -> None:
        super().__init__(f"{reason_code.replace('_', ' ')}: {detail}")
        self.reason_code = reason_code
        self.detail = detail


def decode_image(path: Path, *, background: tuple[int, int, int] = WHITE, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Return the picture in a file as an upright 8-bit RGB image in sRGB.

    Raises:
        BadImage: the file is not a sound picture of at most ``max_pixels`` pixels.
    """
    with open_regular_file(path) as file:
        return decode_stream(file, background=background, max_pixels=max_pixels)


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
    file: BinaryIO, *, background: tuple[int, int, int] = WHITE, max_pixels: int = MAX_PIXELS
) -> Image.Image:
    """Return the picture in an open file as an upright 8-bit RGB image in sRGB, without any metadata.

    Of an animation this is the first frame. Transparent parts show ``background``.

    Raises:
        BadImage: the content is not a sound picture of at most ``max_pixels`` pixels.
    """
    start = file.read(12)
    if not start:
        raise BadImage("too_few_bytes", "the file is empty")
    try:
        with _strict_pillow(max_pixels):
            file.seek(0)
            Image.open(file, formats=FORMATS).verify()  # checksums, which load() does not look at
            file.seek(0)
            image = Image.open(file, formats=FORMATS)  # verify() leaves an image unusable
            image.load()
            rgb = _turn_upright(_flatten(image, background), _orientation(image))
    except Exception as error:  # decoders raise anything from SyntaxError to ZeroDivisionError
        raise _bad_image(error, start) from error
    rgb.info.clear()  # a saver would write comments and profiles found here
    return rgb


def resize_shorter_side(image: Image.Image, max_side: int) -> Image.Image:
    """Return the image with its shorter side at most ``max_side`` pixels (Lanczos), never enlarged."""
    scale = max_side / min(image.size)
    if scale >= 1:
        return image
    width, height = (max(max_side, round(side * scale)) for side in image.size)
    return image.resize((width, height), Image.Resampling.LANCZOS)


@contextmanager
def _strict_pillow(max_pixels: int) -> Iterator[None]:
    # Pillow keeps its limit and its warnings in globals: set for one decode, then put back
    limit_before = Image.MAX_IMAGE_PIXELS
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        Image.MAX_IMAGE_PIXELS = max_pixels
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS = limit_before


def _bad_image(error: Exception, start: bytes) -> BadImage:
    """Tell from a decoder's error and the first bytes of the file what is wrong with it."""
    detail = str(error) or type(error).__name__
    if isinstance(error, UnidentifiedImageError):  # its text holds a file number, which differs in every run
        if start.startswith(SIGNATURES) or start[4:12] == b"ftypavif" or start[8:12] == b"WEBP":
            return BadImage("damaged", "starts like a picture, but its header is not whole")
        return BadImage("not_a_picture", "the content is of no known picture format")
    if isinstance(error, Image.DecompressionBombWarning | Image.DecompressionBombError | MemoryError):
        return BadImage("bomb", detail)
    if "Decompressed data too large" in detail:
        return BadImage("bomb", detail)
    if isinstance(error, OSError) and error.errno is not None:
        return BadImage("unreadable", detail)
    return BadImage("truncated" if "truncated" in detail.lower() else "damaged", detail)


def _orientation(image: Image.Image) -> int:
    with suppress(Exception):  # broken EXIF says nothing about the pixels
        return int(image.getexif().get(ExifTags.Base.Orientation, 1))
    return 1


def _turn_upright(image: Image.Image, orientation: int) -> Image.Image:
    turn = TURNS.get(orientation)
    return image if turn is None else image.transpose(turn)


def _flatten(image: Image.Image, background: tuple[int, int, int]) -> Image.Image:
    """Return any mode as sRGB over a plain ground; color under zero alpha never shows."""
    profile = image.info.get("icc_profile")
    if image.mode.startswith(("I", "F")):
        return _srgb_from(_scale_to_8_bit(image), profile)
    if not image.has_transparency_data:
        return _srgb_from(image, profile)
    rgba = image.convert("RGBA")
    color = _srgb_from(rgba.convert("L" if image.mode in ("1", "L", "LA") else "RGB"), profile)
    ground = Image.new("RGB", image.size, background)
    ground.paste(color, mask=rgba.getchannel("A"))
    return ground


def _scale_to_8_bit(image: Image.Image) -> Image.Image:
    values = np.nan_to_num(np.asarray(image, dtype=np.float32), nan=0.0, posinf=0.0, neginf=0.0)
    low, high = float(values.min()), float(values.max())
    ceilings = DEEP_CEILINGS.get(image.mode, (65535.0,))
    fitting = [ceiling for ceiling in ceilings if low >= 0 and high <= ceiling]
    black, white = (0.0, fitting[0]) if fitting else (low, high)
    scaled = (values - np.float32(black)) * np.float32(255 / ((white - black) or 1))
    return Image.fromarray(np.rint(scaled).astype(np.uint8))


def _srgb_from(image: Image.Image, profile: bytes | None) -> Image.Image:
    if image.mode not in ("L", "RGB", "CMYK", "LAB"):
        image = image.convert("RGB")
    if profile:
        with suppress(Exception):  # a broken profile, or one of another color space, is as good as none
            source = ImageCms.ImageCmsProfile(BytesIO(profile))
            srgb = ImageCms.createProfile("sRGB")
            converted = ImageCms.profileToProfile(image, source, srgb, outputMode="RGB")
            if converted is not None:
                return converted
    return image.convert("RGB")
