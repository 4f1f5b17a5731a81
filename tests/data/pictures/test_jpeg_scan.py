"""A scan that is decoded and checked in one pass gives the pixels of Pillow, or leaves the picture to it."""

from __future__ import annotations

import io
import sys
from typing import Any

import numpy as np
import pytest
from PIL import Image

from latentart.data.pictures import jpeg_scan
from latentart.data.pictures.decode import decode_stream
from latentart.data.pictures.jpeg_scan import decode_strictly

pytest.importorskip("simplejpeg")


def jpeg_of(size: tuple[int, int], **options: Any) -> bytes:
    """Return a JPEG of soft noise in color."""
    small = np.random.default_rng(size[0]).integers(0, 256, (size[1] // 8, size[0] // 8, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(small).resize(size, Image.Resampling.BICUBIC).save(file, "JPEG", **options)
    return file.getvalue()


@pytest.mark.parametrize("subsampling", [0, 1, 2])
@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("quality", [30, 95])
@pytest.mark.parametrize("share", [1, 2, 4, 8])
def test_the_pixels_are_those_of_pillow(subsampling: int, progressive: bool, quality: int, share: int) -> None:
    """Bit for bit, at every scale that Pillow's draft has."""
    content = jpeg_of((331, 257), subsampling=subsampling, progressive=progressive, quality=quality)
    expected = Image.open(io.BytesIO(content))
    expected.draft(None, (331 // share, 257 // share))

    pixels = decode_strictly(content, expected.size)

    np.testing.assert_array_equal(pixels, np.asarray(expected))


def test_a_data_set_is_the_same_without_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reduced and turned, with a profile or in grey."""
    exif = Image.Exif()
    exif[0x0112] = 6
    contents = [jpeg_of((800, 600), quality=90, exif=exif), jpeg_of((800, 600), quality=80)]
    with_extra = [decode_stream(io.BytesIO(content), max_side=128).picture for content in contents]
    monkeypatch.setitem(sys.modules, "simplejpeg", None)
    jpeg_scan._decodes_as_pillow.cache_clear()

    without = [decode_stream(io.BytesIO(content), max_side=128).picture for content in contents]
    jpeg_scan._decodes_as_pillow.cache_clear()

    assert [picture.size for picture in without] == [(128, 171), (171, 128)]
    assert [picture.tobytes() for picture in with_extra] == [picture.tobytes() for picture in without]


def test_what_it_cannot_do_as_pillow_does_is_left_to_pillow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tiny pictures, other sizes than asked for, damage, and a decoder that gives other pixels."""
    content = jpeg_of((64, 64), quality=90)

    assert decode_strictly(content, (64, 64)) is not None
    assert decode_strictly(content, (15, 15)) is None
    assert decode_strictly(content, (63, 63)) is None
    assert decode_strictly(content[: len(content) // 2], (64, 64)) is None
    monkeypatch.setattr(jpeg_scan, "_decodes_as_pillow", lambda: False)
    assert decode_strictly(content, (64, 64)) is None
