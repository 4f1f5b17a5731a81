"""Pictures that would take too much memory are reduced while they are read, and look as they do when read whole."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
from PIL import Image

from latentart.data.pictures.decode import Decoded, decode_stream
from latentart.data.pictures.formats import BadImage

WIDTH, HEIGHT = 403, 307  # no multiple of any reduction
TURNED = Image.Exif()
TURNED[0x0112] = 6


def gradients(mode: str = "RGB") -> Image.Image:
    """Draw soft ramps and edges, with an alpha of its own where the mode has one."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    color = np.stack([x * 255 / WIDTH, y * 255 / HEIGHT, (x // 67 + y // 59) % 2 * 180], -1)
    if mode == "I;16":
        return Image.fromarray((x * 90 + y * 80).astype(np.uint16))
    image = Image.fromarray(color.astype(np.uint8))
    if mode in ("RGBA", "LA"):
        image.putalpha(Image.fromarray((x * 200 // WIDTH + 55).astype(np.uint8)))
    return image.quantize(200) if mode == "P" else image.convert(mode)


def encoded(mode: str, file_format: str, **options: Any) -> bytes:
    """Return a file of these gradients."""
    buffer = io.BytesIO()
    gradients(mode).save(buffer, file_format, **options)
    return buffer.getvalue()


def deep_png(color: int, channels: int) -> bytes:
    """Return a PNG of 16 bits a channel with every filter, packed in many chunks, that tells its turn at its end."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    values = np.stack([x * 150, y * 200, (x + y) * 90, x * 100 + 20_000], -1)[..., :channels]
    rows, step = values.astype(">u2").view(np.uint8).reshape(HEIGHT, -1).astype(int), 2 * channels
    packed = bytearray()
    for i, row in enumerate(rows):
        up, left = rows[i - 1] if i else 0 * row, np.r_[np.zeros(step, int), row[:-step]]
        corner = np.r_[np.zeros(step, int), up[:-step]]
        far = [abs(up - corner), abs(left - corner), abs(left + up - 2 * corner)]
        paeth = np.choose(np.argmin(far, 0), [left, up, corner])
        guess = [0 * row, left, up, (left + up) // 2, paeth][i % 5]
        packed += bytes([i % 5]) + ((row - guess) % 256).astype(np.uint8).tobytes()
    content = zlib.compress(bytes(packed))
    pieces = [(b"IDAT", content[i : i + 1000]) for i in range(0, len(content), 1000)]
    header = struct.pack(">IIBBBBB", WIDTH, HEIGHT, 16, color, 0, 0, 0)
    chunks = [(b"IHDR", header), *pieces, (b"eXIf", TURNED.tobytes()[6:]), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )


def tiled_tiff(side: int, *, is_planar: bool) -> bytes:
    """Return a TIFF in tiles, of interleaved or of separate colors, packed with deflate."""
    pixels = np.asarray(gradients())
    down, across = -(-HEIGHT // side), -(-WIDTH // side)
    padded = np.pad(pixels, [(0, down * side - HEIGHT), (0, across * side - WIDTH), (0, 0)])
    planes = [padded[..., i : i + 1] for i in range(3)] if is_planar else [padded]
    tiles = [
        zlib.compress(plane[y * side : (y + 1) * side, x * side : (x + 1) * side].tobytes())
        for plane in planes
        for y in range(down)
        for x in range(across)
    ]
    tags = {258: [8] * 3, 259: [8], 284: [1 + is_planar], 322: [side], 323: [side]}
    return tiff_of(tags, (324, 325), tiles)


def striped_tiff(rows: int, *, is_planar: bool, bits: int = 3) -> bytes:
    """Return a TIFF in strips, of separate or of interleaved colors, not packed, that tells its depth so often."""
    pixels = np.asarray(gradients())
    planes = pixels.transpose(2, 0, 1) if is_planar else [pixels]
    strips = [plane[y : y + rows].tobytes() for plane in planes for y in range(0, HEIGHT, rows)]
    return tiff_of({258: [8] * bits, 259: [1], 278: [rows], 284: [1 + is_planar]}, (273, 279), strips)


def tiff_of(tags: dict[int, list[int]], places: tuple[int, int], pieces: list[bytes]) -> bytes:
    """Return a TIFF of three colors with these tags and pieces, whose offsets and lengths stand in ``places``."""
    starts = 8 + np.cumsum([0, *map(len, pieces)])
    tags = tags | {256: [WIDTH], 257: [HEIGHT], 262: [2], 277: [3]}
    tags |= {places[0]: starts[:-1].tolist(), places[1]: [*map(len, pieces)]}
    after, entries = b"", b""
    for tag, values in sorted(tags.items()):
        value = struct.pack(f"<{len(values)}I", *values)
        if len(values) > 1:
            after, value = after + value, struct.pack("<I", starts[-1] + len(after))
        entries += struct.pack("<HHI", tag, 4, len(values)) + value
    start = struct.pack("<HHI", 0x4949, 42, starts[-1] + len(after))
    return start + b"".join(pieces) + after + struct.pack("<H", len(tags)) + entries + bytes(4)


def flipped(content: bytes, place: int) -> bytes:
    """Return a file with one wrong bit."""
    return content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]


def decoded(content: bytes, share: float) -> Decoded:
    """Decode a file where so large a share of its pixels may be decoded whole."""
    return decode_stream(io.BytesIO(content), max_side=40, max_pixels=int(WIDTH * HEIGHT * share))


MODES = ("L", "LA", "P", "RGB", "RGBA", "I;16")
CASES: dict[str, tuple[Callable[[], bytes], float]] = {
    **{f"png {mode}": (partial(encoded, mode, "PNG", exif=TURNED), 43) for mode in MODES},
    "png 1": (partial(encoded, "1", "PNG"), 40),
    "png with a clear color": (partial(encoded, "P", "PNG", transparency=bytes(range(200))), 43),
    "png of 16 colors": (partial(encoded, "L", "PNG", bits=4), 40),
    **{f"png deep {n}": (partial(deep_png, color, n), 43) for color, n in ((0, 1), (4, 2), (2, 3), (6, 4))},
    **{
        f"tiff {mode} {packing}": (partial(encoded, mode, "TIFF", compression=packing, tiffinfo={278: 16}), 43)
        for mode, packing in [
            ("RGB", "raw"), ("RGBA", "tiff_lzw"), ("P", "packbits"), ("CMYK", "jpeg"), ("I;16", "tiff_adobe_deflate"),
        ]
    },
    "tiff turned": (partial(encoded, "RGB", "TIFF", exif=TURNED, compression="tiff_lzw", tiffinfo={278: 16}), 43),
    "tiff in one strip": (partial(encoded, "RGB", "TIFF", tiffinfo={278: HEIGHT}), 43),
    "tiff in tiles": (partial(tiled_tiff, 48, is_planar=False), 43),
    "tiff in tiles of one color": (partial(tiled_tiff, 48, is_planar=True), 43),
    "tiff in strips of one color": (partial(striped_tiff, 100, is_planar=True), 43),
    "tiff that tells its depth once": (partial(striped_tiff, 100, is_planar=False, bits=1), 43),
    "jpeg": (partial(encoded, "RGB", "JPEG", exif=TURNED), 90),
    "jpeg 2000": (partial(encoded, "RGB", "JPEG2000"), 33),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_a_picture_reduced_while_it_is_read_is_the_picture(name: str) -> None:
    """Every depth, mode, packing and turn: as large as when read whole, and as alike as the dB say."""
    make, least = CASES[name]
    content = make()

    whole, reduced = decoded(content, 2.0), decoded(content, 0.4)

    assert (reduced.width, reduced.height, reduced.picture.size) == (whole.width, whole.height, whole.picture.size)
    error = np.asarray(whole.picture, float) - np.asarray(reduced.picture, float)
    assert 10 * np.log10(255**2 / max(np.mean(error**2), 1e-9)) > least


@pytest.mark.parametrize(
    ("make", "reason", "advice"),
    [
        (partial(encoded, "RGB", "WEBP"), "too_large", "more than may be decoded"),
        (
            partial(encoded, "RGB", "TIFF", compression="tiff_lzw", tiffinfo={278: HEIGHT}),
            "too_large",
            "in strips or tiles",
        ),
        (partial(encoded, "F", "TIFF"), "too_large", "with 16 or 8"),
        (partial(encoded, "RGB", "JPEG", progressive=True, subsampling=0), "too_large", "as baseline"),
        (lambda: deep_png(2, 3)[:-2000], "truncated", "ends before"),
        (lambda: flipped(deep_png(2, 3), 3000), "damaged", "checksum"),
    ],
)
def test_what_cannot_be_reduced_is_refused_with_advice(make: Callable[[], bytes], reason: str, advice: str) -> None:
    """The reason is its own, and says how to save it."""
    with pytest.raises(BadImage, match=advice) as caught:
        decoded(make(), 0.52)

    assert caught.value.reason_code == reason


def test_bombs_stay_bombs() -> None:
    """A file that is far too small for its pixels, and one that unpacks to a single color."""
    for level in (9, 1):
        buffer = io.BytesIO()
        Image.new("L", (4000, 4000), 7).save(buffer, "PNG", compress_level=level)
        buffer.seek(0)
        with pytest.raises(BadImage) as caught:
            decode_stream(buffer, max_side=40, max_pixels=1 << 20)
        assert caught.value.reason_code == "bomb"
