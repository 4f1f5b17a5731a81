"""Pictures reduced while they are read: JPEG for speed, and all that would take too much memory when decoded whole.

JPEG and JPEG 2000 hold smaller pictures of themselves. PNG and TIFF are read a band of rows at a time.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator, Mapping, Sequence
from io import SEEK_END, BytesIO
from typing import Any, BinaryIO

from PIL import Image, ImageFile

from latentart.data.pictures.colors import BAND_PIXELS, flatten_to_srgb
from latentart.data.pictures.formats import BITS_PER_SAMPLE, STRIPS_AND_TILES, BadImage
from latentart.data.pictures.png import bits_per_pixel, png_bands

JPEG_MARGIN = 1.4
"""How much larger than asked for a JPEG is decoded at least when it is reduced while decoding.

libjpeg reduces by 2, 4 or 8 with a filter of its own, which shows the more the less Lanczos has left to do. Smallest
PSNR against the whole way, over 32 pictures of 1/f noise, smooth edges and grain of 1,300 x 1,500 to 4,000 x 3,000
pixels, quality 75 and 95, 4:4:4 and 4:2:0: 35.7 dB at 1.0, 38.8 at 1.2, 39.9 at 1.3, 40.4 at 1.35, 40.9 at 1.4.
"""
BOMB_RATIO = 1000  # of unpacked to packed bytes; deflate reaches 1032, where there is nothing to tell
MOST_HEAD = 1 << 20  # bytes in which a JPEG 2000 tells how it is coded
BANDED = ("PNG", "TIFF")
GAP = 3  # how much larger than asked a picture is left for Lanczos: from there on Pillow calls its own steps fair
WIDTH, HEIGHT, COMPRESSION, PHOTOMETRIC, SAMPLES, ROWS_PER_STRIP, PLANES = 256, 257, 259, 262, 277, 278, 284  # tags
TILE_WIDTH, TILE_HEIGHT, YCBCR = 322, 323, 6
DECODING = (266, 292, 293, 317, 320, 338, 339, 347, 530, 34675)  # the turn is left out: the whole picture is turned
TAGS_KEPT = (WIDTH, BITS_PER_SAMPLE, COMPRESSION, PHOTOMETRIC, SAMPLES, PLANES, TILE_WIDTH, TILE_HEIGHT, *DECODING)
TYPES = {"B": 7, "H": 3, "I": 4}  # of a tag, by the letter that packs its values


def refuse_bomb(image: ImageFile.ImageFile, file: BinaryIO) -> None:
    """Refuse an opened large picture that is nothing, or not all there.

    Raises:
        BadImage: bomb.
    """
    bits = bits_per_pixel(file) if image.format == "PNG" else 1 if image.mode == "1" else 8 * len(image.getbands())
    if is_bomb(math.prod(image.size) * bits, file):
        raise BadImage("bomb", f"{image.width} x {image.height} pixels, for which the file is too small")


def is_bomb(num_bits: int, file: BinaryIO) -> bool:
    """Tell whether a file is too small for what it claims to unpack to."""
    return num_bits > 8 * BOMB_RATIO * file.seek(0, SEEK_END)


def reduce_when_decoded(
    image: Any, file: BinaryIO, max_side: int, room: int | None
) -> tuple[float, float, float, float] | None:
    """Let an opened JPEG, or a JPEG 2000 if there is ``room`` for so many bytes only, be decoded reduced.

    Return the box of the whole picture in what will be decoded, None where that is not reduced. Of the shorter side
    some is left above ``max_side``.

    Raises:
        BadImage: too_large, for a progressive JPEG whose coefficients take more than the room.
    """
    least, (width, height) = math.ceil(max_side * JPEG_MARGIN), image.size
    if (
        image.format == "JPEG2000"
        and room
        and (steps := min(_num_halvings(file), (min(image.size) // least).bit_length() - 1)) > 0
    ):
        scale = 1 << steps
        (tile,) = image.tile
        args: Any = tile.args
        # Pillow's own way, image.reduce, rounds half of the sizes otherwise than the decoder, which then gives up
        image._size = math.ceil(width / scale), math.ceil(height / scale)
        image.tile = [type(tile)(tile.codec_name, (0, 0, *image.size), tile.offset, (args[0], steps, *args[2:]))]
        edge = (1 - 1 / scale) / 2  # a pixel stands where the first of those that it is made of stood
        return edge, edge, min(image.width, width / scale + edge), min(image.height, height / scale + edge)
    if image.format not in ("JPEG", "MPO"):
        return None
    _, box = image.draft(None, (least, least)) or (None, None)
    if room and image.info.get("progressive"):
        factors = [across * down for _, across, down, _ in image.layer]
        if 2 * width * height * sum(factors) / max(factors) + 8 * math.prod(image.size) > room:
            raise BadImage("too_large", "a progressive JPEG can only be read whole: save it as baseline")
    return box


def _num_halvings(file: BinaryIO) -> int:
    """Return how often a JPEG 2000 can be halved: the levels of its wavelets, 0 where it does not tell."""
    file.seek(0)
    head = file.read(MOST_HEAD)
    coding = head.find(b"\xff\x52", max(0, head.find(b"\xff\x4f\xff\x51")))
    return head[coding + 9] if 0 <= coding < len(head) - 9 else 0


def stored_size(image: Image.Image) -> tuple[int, int]:
    """Return width and height of an opened picture as its rows are stored; a TIFF tells them turned."""
    tags = getattr(image, "tag_v2", {})
    return (tags[WIDTH], tags[HEIGHT]) if WIDTH in tags and HEIGHT in tags else image.size


def reduce_in_bands(
    image: Any, file: BinaryIO, background: tuple[int, int, int], max_side: int, max_pixels: int
) -> tuple[Image.Image, int, Image.Image]:
    """Return an opened PNG or TIFF in sRGB, by how much it is reduced, and what knows how it is turned.

    Its shorter side is not below ``max_side``. It, and what is decoded of it at once, have at most half of
    ``max_pixels`` pixels.

    Raises:
        BadImage: too_large, where there is no such way to read it.
    """
    (width, height), most_pixels = stored_size(image), max_pixels // 2
    factor = max(1, min(width, height) // (GAP * max_side))
    while math.ceil(width / factor) * math.ceil(height / factor) > most_pixels:
        factor += 1
    if min(width, height) < factor * max_side or width * factor > most_pixels:
        raise BadImage("too_large", f"{width} x {height} pixels, too many even when reduced to {max_side}")
    band_pixels = min(BAND_PIXELS, most_pixels // 2)
    bands = (
        _png_bands(image, file, band_pixels)
        if image.format == "PNG"
        else _tiff_bands(image, file, band_pixels, most_pixels)
    )
    reduced = Image.new("RGB", (math.ceil(width / factor), math.ceil(height / factor)))
    waiting, top = Image.new("RGB", (width, 0)), 0
    told: Image.Image = image
    for band in bands:
        told = band if image.format == "PNG" else image
        flat = flatten_to_srgb(band, background)
        joined = waiting.crop((0, 0, width, waiting.height + flat.height))
        joined.paste(flat, (0, waiting.height))
        is_end = top + joined.height >= height
        rows = joined.height if is_end else joined.height // factor * factor
        if rows:
            reduced.paste(joined.crop((0, 0, width, rows)).reduce(factor), (0, top // factor))
        waiting, top = joined.crop((0, rows, width, joined.height)), top + rows
    return reduced, factor, told


def _png_bands(image: ImageFile.ImageFile, file: BinaryIO, band_pixels: int) -> Iterator[Image.Image]:
    if image.info.get("interlace"):
        raise BadImage("too_large", "an interlaced PNG can only be read whole: save it without interlacing")
    return png_bands(image, file, max(1, band_pixels // image.width))


def _tiff_bands(
    image: ImageFile.ImageFile, file: BinaryIO, band_pixels: int, most_pixels: int
) -> Iterator[Image.Image]:
    """Yield the strips or the rows of tiles of a TIFF, some at a time, each decoded from a small TIFF of its own."""
    tags, (width, height) = image.tag_v2, stored_size(image)  # type: ignore[attr-defined]
    if image.mode in ("I", "F"):
        raise BadImage("too_large", "a TIFF of 32 bits per channel can only be read whole: save it with 16 or 8")
    is_tiled, is_plain = TILE_HEIGHT in tags, tags.get(COMPRESSION, 1) == 1 and tags.get(PHOTOMETRIC) != YCBCR
    offsets, counts = (_numbers(tags.get(tag, ())) for tag in STRIPS_AND_TILES[is_tiled])
    planes = tags.get(SAMPLES, 1) if tags.get(PLANES) == 2 else 1
    across = math.ceil(width / tags[TILE_WIDTH]) if is_tiled else 1
    rows = tags[TILE_HEIGHT] if is_tiled else min(height, tags.get(ROWS_PER_STRIP, height))
    if is_plain and not is_tiled and rows * width > band_pixels:  # strips that are not packed are cut into rows
        bits = _numbers(tags.get(BITS_PER_SAMPLE, 1))[0] * (1 if planes > 1 else tags.get(SAMPLES, 1))
        length, strips = math.ceil(width * bits / 8), math.ceil(height / rows)  # strips of each plane
        firsts = [offsets[i * strips : (i + 1) * strips] for i in range(planes)]
        offsets = [strip[y // rows] + y % rows * length for strip in firsts for y in range(height)]
        counts, rows = [length] * len(offsets), 1
    if rows * width > most_pixels:
        raise BadImage("too_large", "a TIFF packed in large pieces can only be read whole: save it in strips or tiles")
    pieces, step = across * math.ceil(height / rows), across * max(1, band_pixels // (rows * width))
    kept = {tag: _numbers(tags[tag]) for tag in TAGS_KEPT if tag in tags}
    for first in range(0, pieces, step):
        here = [plane * pieces + i for plane in range(planes) for i in range(first, min(first + step, pieces))]
        kept[HEIGHT] = [min(step // across * rows, height - first // across * rows)]
        kept |= {} if is_tiled else {ROWS_PER_STRIP: [rows]}
        content = [_read(file, offsets[i], counts[i]) for i in here]
        yield Image.open(_tiff_of(tags.prefix, kept, STRIPS_AND_TILES[is_tiled], content), formats=("TIFF",))


def _numbers(value: Any) -> Any:
    return value if isinstance(value, (tuple, list, bytes)) else (value,)


def _read(file: BinaryIO, offset: int, count: int) -> bytes:
    file.seek(offset)
    content = file.read(count)
    if len(content) < count:
        raise ValueError("image file is truncated")
    return content


def _tiff_of(
    prefix: bytes, tags: Mapping[int, Sequence[int]], places: tuple[int, int], pieces: Sequence[bytes]
) -> BytesIO:
    """Return a TIFF with these tags, of whole numbers or of bytes, and these strips or tiles."""
    order = "<" if prefix == b"II" else ">"
    file, entries = BytesIO(prefix + struct.pack(f"{order}HI", 42, 0)), b""
    file.seek(8)
    offsets = [8 + sum(map(len, pieces[:i])) for i in range(len(pieces))]
    file.writelines(pieces)
    for tag, values in sorted({**tags, places[0]: offsets, places[1]: [*map(len, pieces)]}.items()):
        kind = "B" if isinstance(values, bytes) else "H" if max(values) < 1 << 16 else "I"
        content = struct.pack(f"{order}{len(values)}{kind}", *values)
        if len(content) > 4:
            at = file.tell()
            file.write(content)
            content = struct.pack(f"{order}I", at)
        entries += struct.pack(f"{order}HHI", tag, TYPES[kind], len(values)) + content.ljust(4, b"\0")
    start = file.tell()
    file.write(struct.pack(f"{order}H", len(entries) // 12) + entries + bytes(4))
    file.seek(4)
    file.write(struct.pack(f"{order}I", start))
    file.seek(0)
    return file
