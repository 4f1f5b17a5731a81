"""Pixels of any mode in, 8-bit sRGB out: deep grey, alpha, palettes, CMYK, Lab and color profiles.

Whatever needs a copy of the pixels is done in bands of rows, so that a picture takes 8 bytes of memory for each
pixel, the source and the result, and not 20.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from io import BytesIO

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image, ImageChops, ImageCms

BAND_PIXELS = 1 << 20
PROBE_STEPS = 33  # per channel
LARGEST_PROFILE = 1 << 24  # bytes: the transforms of some profiles are kept
DEEP_CEILINGS = {"I": (65535.0,), "F": (1.0, 255.0, 65535.0)}  # the first that holds the largest value is white


def flatten_to_srgb(image: Image.Image, background: tuple[int, int, int]) -> Image.Image:
    """Return a picture of any mode as 8-bit sRGB over a plain ground; color under zero alpha never shows.

    An RGB picture is changed in place and returned.
    """
    profile = image.info.get("icc_profile")
    if not isinstance(profile, bytes) or len(profile) > LARGEST_PROFILE:
        profile = None
    if image.mode == "RGB" and not profile and not image.has_transparency_data:
        return image
    levels = _black_and_white(image) if image.mode.startswith(("I", "F")) else None
    ground = image if image.mode == "RGB" else Image.new("RGB", image.size)
    for top, band in _bands(image):
        shallow = _scale_to_8_bit(band, *levels) if levels else band
        ground.paste(_flatten_band(shallow, profile, background), (0, top))
    return ground


def _bands(image: Image.Image) -> Iterator[tuple[int, Image.Image]]:
    rows = max(1, BAND_PIXELS // image.width)
    for top in range(0, image.height, rows):
        yield top, image.crop((0, top, image.width, min(top + rows, image.height)))


def _flatten_band(band: Image.Image, profile: bytes | None, background: tuple[int, int, int]) -> Image.Image:
    if not band.has_transparency_data:
        return _srgb_from(band, profile)
    if band.mode == "La":
        band = band.convert("LA")  # the only way out of grey multiplied by alpha
    rgba = band.convert("RGBA")
    color = _srgb_from(rgba.convert("L" if band.mode in ("1", "L", "LA") else "RGB"), profile)
    ground = Image.new("RGB", band.size, background)
    ground.paste(color, mask=rgba.getchannel("A"))
    return ground


def _black_and_white(image: Image.Image) -> tuple[float, float]:
    """Return which values of a 16- or 32-bit grey picture stand for black and for white."""
    tags = getattr(image, "tag_v2", {})
    black, white = 0.0, 4095.0 if tags.get(ExifTags.Base.BitsPerSample) == (12,) else 65535.0
    if image.mode in DEEP_CEILINGS:
        extremes = [
            (float(values.min()), float(values.max())) for _, band in _bands(image) for values in [_values(band)]
        ]
        low, high = min(low for low, _ in extremes), max(high for _, high in extremes)
        fitting = [ceiling for ceiling in DEEP_CEILINGS[image.mode] if low >= 0 and high <= ceiling]
        black, white = (0.0, fitting[0]) if fitting else (low, high)
    return (white, black) if tags.get(ExifTags.Base.PhotometricInterpretation) == 0 else (black, white)


def _values(image: Image.Image) -> npt.NDArray[np.float32]:
    return np.nan_to_num(np.asarray(image, dtype=np.float32), nan=0.0, posinf=0.0, neginf=0.0)


def _scale_to_8_bit(band: Image.Image, black: float, white: float) -> Image.Image:
    values = _values(band)
    scaled = (values - np.float32(black)) * np.float32(255 / ((white - black) or 1))
    grey = Image.fromarray(np.rint(scaled).astype(np.uint8))
    key = band.info.get("transparency")
    if key is not None:
        grey.putalpha(Image.fromarray(np.where(values == key, 0, 255).astype(np.uint8)))
    return grey


def _srgb_from(image: Image.Image, profile: bytes | None) -> Image.Image:
    if image.mode not in ("L", "RGB", "CMYK"):
        image = image.convert("RGB")
    transform = _transform_to_srgb(profile, image.mode) if profile else None
    return transform.apply(image) if transform else image.convert("RGB")


@lru_cache(maxsize=8)  # the pictures of one source share a profile
def _transform_to_srgb(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    """Return the way from a profile to sRGB, or None if it makes no sense or moves no color by more than a level."""
    try:
        source = ImageCms.ImageCmsProfile(BytesIO(profile))
        transform = ImageCms.buildTransform(source, ImageCms.createProfile("sRGB"), mode, "RGB")
    except Exception:  # broken, or of another color space: as good as none
        return None
    steps = np.linspace(0, 255, PROBE_STEPS).astype(np.uint8)
    probe = Image.fromarray(np.stack(np.meshgrid(steps, steps, steps), -1).reshape(-1, PROBE_STEPS, 3)).convert(mode)
    moved = ImageChops.difference(transform.apply(probe), probe.convert("RGB")).getextrema()
    return transform if np.max(moved) > 1 else None
