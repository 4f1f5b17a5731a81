"""A raw folder with everything people and the internet put into one: about 180 files, one or more for each fault.

All sound files show the same four colors in their quarters, each with a patch of its own, so that no two are equal
but the copies that are meant. Whoever reads a depth, a turn, an alpha or a profile wrongly shows other colors.
"""

from __future__ import annotations

import io
import os
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image, ImageCms

STYLES = ("Baroque", "Cubism", "[bold]Pop Art")
SIZE = WIDTH, HEIGHT = 64, 48
CORNERS = ((220, 20, 20), (20, 200, 20), (20, 20, 220), (220, 200, 20))  # top left, top right, bottom left and right
GREYS = ((30,) * 3, (90,) * 3, (160,) * 3, (230,) * 3)
WHITE, BLACK = (255,) * 3, (0,) * 3
TURNED = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # EXIF orientation: the transposition that stores such a picture
DAMAGE = ("truncated", "damaged")

Corners = tuple[tuple[int, int, int], ...]


@dataclass(frozen=True)
class Case:
    """A raw file and what is right for it: kept with these corner colors and this size, or dropped as one of these.

    ``needs`` names an optional decoder without which a file may as well be kept.
    """

    source: str
    verdict: str = "keep"
    reasons: tuple[str, ...] = ()
    corners: Corners = CORNERS
    within: int = 14
    size: tuple[int, int] = SIZE
    needs: str = ""


File = tuple[Case, bytes]


def write_hostile_set(folder: Path) -> list[Case]:
    """Write the set into a new folder and return what is right for each of its files."""
    groups = (
        _controls, _deep, _transparent, _turned, _profiled, _modes, _containers, _named, _cut, _silently_damaged,
        _no_pictures, _odd_sizes, _bombs, _copies,
    )  # fmt: skip
    cases = []
    for number, group in enumerate(groups):
        style = STYLES[number % len(STYLES)]
        for case, content in group():
            path = folder / style / case.source
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
            cases.append(replace(case, source=f"{style}/{case.source}"))
    return cases + _write_special_files(folder)


def picture(name: str, corners: Corners = CORNERS, size: tuple[int, int] = SIZE) -> Image.Image:
    """Draw the four quarters, and in the middle a patch of noise that depends on the name."""
    (width, height), seed = size, zlib.crc32(os.fsencode(name))
    image = Image.new("RGB", size)
    for i, color in enumerate(corners):
        x, y = i % 2 * width // 2, i // 2 * height // 2
        image.paste(color, (x, y, x + width // 2, y + height // 2))
    noise = np.random.default_rng(seed).integers(0, 256, (height // 6, width // 6, 3), dtype=np.uint8)
    image.paste(Image.fromarray(noise), (width // 2 - width // 12, height // 2 - height // 12))
    return image


def encoded(image: Image.Image, file_format: str, **options: Any) -> bytes:
    """Return the bytes of an image file; JPEG at quality 95."""
    buffer = io.BytesIO()
    image.save(buffer, file_format, **({"quality": 95} if file_format in ("JPEG", "MPO") else {}), **options)
    return buffer.getvalue()


def png_chunk(kind: bytes, content: bytes) -> bytes:
    """Return a PNG chunk with its checksum."""
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png_of(size: tuple[int, int], bits: int, color_type: int, rows: bytes, *chunks: bytes) -> bytes:
    """Return a PNG of compressed rows; color types are 0 grey, 2 RGB, 3 palette, 4 grey and alpha, 6 RGB and alpha."""
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", *size, bits, color_type, 0, 0, 0))
    middle = b"".join(chunks) + png_chunk(b"IDAT", rows)
    return b"\x89PNG\r\n\x1a\n" + header + middle + png_chunk(b"IEND", b"")


def png_rows(pixels: np.ndarray) -> bytes:
    """Return the compressed rows of a PNG of 8- or 16-bit pixels."""
    rows = pixels.astype(pixels.dtype.newbyteorder(">"))
    return zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows))


def tiff_of(
    pixels: np.ndarray, photometric: int, order: Literal["<", ">"] = "<", *, big: bool = False, **tags: Any
) -> bytes:
    """Return a TIFF of one strip, or of one for each plane (``t284=2``), packed where ``t259=8``.

    Tags are ``t`` and a number. Photometric 0 is grey with white as zero, 1 grey, 2 RGB.
    """
    height, width, *channels = pixels.shape
    depth, raw = (channels or [1])[0], pixels.astype(pixels.dtype.newbyteorder(order))
    values = {256: width, 257: height, 258: (8 * pixels.itemsize,) * depth, 259: 1, 262: photometric, 277: depth}
    values |= {278: height, 339: ({"u": 1, "i": 2, "f": 3}[pixels.dtype.kind],) * depth}
    values |= {int(tag[1:]): value for tag, value in tags.items()}
    strips = [plane.tobytes() for plane in raw.transpose(2, 0, 1)] if values.get(284) == 2 else [raw.tobytes()]
    strips = [zlib.compress(strip) for strip in strips] if values[259] == 8 else strips
    head, count, number, entry = (16, "Q", "Q", 20) if big else (8, "H", "I", 12)
    room = struct.calcsize(number)
    first = head + struct.calcsize(count) + (len(values) + 2) * entry + room
    values[279] = tuple(map(len, strips))
    values[273] = tuple(first + sum(values[279][:i]) for i in range(len(strips)))
    data, entries = b"".join(strips), b""
    for tag, value in sorted(values.items()):
        items = value if isinstance(value, tuple) else (value,)
        kind, code = (4, "I") if max(items) > 65535 else (3, "H")
        packed = struct.pack(f"{order}{len(items)}{code}", *items)
        if len(packed) > room:  # what does not fit into the entry follows the pixels
            packed, data = struct.pack(order + number, first + len(data)), data + packed
        entries += struct.pack(f"{order}HH{number}", tag, kind, len(items)) + packed.ljust(room, b"\0")
    mark = b"II" if order == "<" else b"MM"
    mark += struct.pack(f"{order}HHHQ", 43, 8, 0, 16) if big else struct.pack(f"{order}HI", 42, 8)
    return mark + struct.pack(order + count, len(values)) + entries + struct.pack(order + number, 0) + data


def exif_of(orientation: int) -> Image.Exif:
    """Return EXIF that holds nothing but an orientation."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


def swapped_profile() -> bytes:
    """Return sRGB's profile with the columns of red and blue exchanged."""
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    red, blue = profile.index(b"rXYZ"), profile.index(b"bXYZ")
    profile[red], profile[blue] = profile[blue], profile[red]
    return bytes(profile)


def keep(name: str, content: bytes, **right: Any) -> File:
    """Return a file that is to be kept."""
    return Case(name, **right), content


def drop(name: str, content: bytes, *reasons: str, needs: str = "") -> File:
    """Return a file that is to be dropped for one of these reasons."""
    return Case(name, "drop", reasons, needs=needs), content


def _controls() -> Iterator[File]:
    jpegs: dict[str, dict[str, Any]] = {
        "baseline.jpg": {},
        "progressive.jpg": {"progressive": True},
        "optimized.jpg": {"optimize": True},
        "restart markers.jpg": {"restart_marker_blocks": 2},
        "4-2-0.jpg": {"subsampling": 2},
        "4-4-4.jpg": {"subsampling": 0},
    }
    for name, options in jpegs.items():
        yield keep(name, encoded(picture(name), "JPEG", **options))
    for name in ("png", "webp", "bmp", "tiff", "gif"):
        yield keep(f"sound.{name}", encoded(picture(name), name, **({"lossless": True} if name == "webp" else {})))
    yield keep("grey.jpg", encoded(picture("grey", GREYS).convert("L"), "JPEG"), corners=GREYS)
    yield keep("lossy.webp", encoded(picture("lossy"), "WEBP", quality=90), within=20)
    for name, size in {"portrait.jpg": (60, 100), "landscape.jpg": (100, 60), "8 MP.jpg": (3600, 2400)}.items():
        yield keep(name, encoded(picture(name, size=size), "JPEG"), size=size)


def _deep() -> Iterator[File]:
    def pixels(name: str) -> np.ndarray:
        return np.asarray(picture(name, GREYS).convert("L")).astype(np.uint16)

    def color(name: str) -> np.ndarray:
        return np.asarray(picture(name)).astype(np.uint16) * 257

    twelve = (pixels("12").astype(np.uint32) * 4095 // 255).reshape(-1, 2)
    packed = np.stack([twelve[:, 0] >> 4, twelve[:, 0] << 4 | twelve[:, 1] >> 8, twelve[:, 1]], 1).astype(np.uint8)
    files = {
        "grey16.png": png_of(SIZE, 16, 0, png_rows(pixels("a") * 257)),
        "grey16.tif": tiff_of(pixels("b") * 257, 1),
        "grey16 big endian.tif": tiff_of(pixels("c") * 257, 1, ">"),
        "grey16 white is zero.tif": tiff_of(65535 - pixels("d") * 257, 0),
        "grey8 white is zero.tif": tiff_of(255 - pixels("e").astype(np.uint8), 0),
        "grey16.pgm": encoded(Image.fromarray(pixels("f") * 257), "PPM"),
        "int32.tif": tiff_of(pixels("g").astype(np.int32) * 257, 1),
        "float 0 to 1.tif": tiff_of(pixels("h").astype(np.float32) / 255, 1),
        "float white is zero.tif": tiff_of(1 - pixels("i").astype(np.float32) / 255, 0),
        "12 bits.tif": tiff_of(packed.reshape(HEIGHT, -1), 1, t256=WIDTH, t258=12),
    }
    for name, content in files.items():
        yield keep(name, content, corners=GREYS)
    yield keep("rgb48.png", png_of(SIZE, 16, 2, png_rows(color("j"))))
    yield keep("rgb48.tif", tiff_of(color("k"), 2, ">"))
    yield keep("rgb48 big.tif", tiff_of(color("l"), 2, big=True))
    yield keep("planes.tif", tiff_of(np.asarray(picture("m")), 2, t284=2))
    yield keep("packed planes of 16 bits.tif", tiff_of(color("o"), 2, t284=2, t259=8))
    yield drop("planes of 16 bits.tif", tiff_of(color("p"), 2, t284=2), "other_format")
    swapped = tiff_of(pixels("q").astype(np.float32), 1, ">", t259=8)
    yield drop("packed float big endian.tif", swapped, "other_format")
    yield drop("float color.tif", tiff_of(np.asarray(picture("n")).astype(np.float32) / 255, 2), "other_format")


def _transparent() -> Iterator[File]:
    mixture = tuple((128 * value + 127 * 255) // 255 for value in CORNERS[3])
    corners = (WHITE, CORNERS[1], WHITE, mixture)
    alpha = np.repeat(np.array([[0, 255], [0, 128]], np.uint8), WIDTH // 2, 1).repeat(HEIGHT // 2, 0)

    def rgba(name: str) -> Image.Image:
        image = picture(name)
        image.putalpha(Image.fromarray(alpha))
        return image

    yield keep("color under alpha.png", encoded(rgba("a"), "PNG"), corners=corners)
    yield keep("color under alpha.webp", encoded(rgba("b"), "WEBP", lossless=True, exact=True), corners=corners)
    yield keep("color under alpha.tif", encoded(rgba("c"), "TIFF"), corners=corners)
    multiplied = (np.asarray(picture("d")).astype(int) * alpha[..., None] // 255).astype(np.uint8)
    yield keep("multiplied.tif", tiff_of(np.dstack([multiplied, alpha]), 2, t338=1), corners=corners)
    grey = np.asarray(picture("e", GREYS).convert("L"))
    grey_corners = (WHITE, GREYS[1], WHITE, (242,) * 3)
    multiplied = (grey.astype(int) * alpha // 255).astype(np.uint8)
    yield keep("grey multiplied.tif", tiff_of(np.dstack([multiplied, alpha]), 1, t338=1), corners=grey_corners)
    yield keep("grey and alpha.png", png_of(SIZE, 8, 4, png_rows(np.dstack([grey, alpha]))), corners=grey_corners)
    key = (CORNERS[0], CORNERS[1], WHITE, CORNERS[3])
    yield keep("key color.png", encoded(picture("f"), "PNG", transparency=CORNERS[2]), corners=key)
    deep = np.asarray(picture("g")).astype(np.uint16) * 257
    deep_key = png_chunk(b"tRNS", struct.pack(">3H", *(value * 257 for value in CORNERS[2])))
    yield keep("key color 48.png", png_of(SIZE, 16, 2, png_rows(deep), deep_key), corners=key)
    two_bits = np.repeat(
        np.repeat(np.array([[0b00000000, 0b01010101], [0b10101010, 0b11111111]], np.uint8), 8, 1), 24, 0
    )
    shades = (BLACK, WHITE, (170,) * 3, WHITE)  # the second one is transparent
    yield keep("key grey 2.png", png_of(SIZE, 2, 0, png_rows(two_bits), png_chunk(b"tRNS", b"\0\1")), corners=shades)
    palette = picture("h").quantize(64)
    index = palette.getpixel((2, HEIGHT - 2))
    yield keep("palette and alpha.png", encoded(palette, "PNG", transparency=index), corners=key, within=40)
    yield keep("transparent.gif", encoded(palette, "GIF", transparency=index), corners=key, within=40)


def _turned() -> Iterator[File]:
    for orientation, undo in TURNED.items():
        stored = picture(f"turn {orientation}").transpose(Image.Transpose(undo))
        yield keep(f"turn {orientation}.jpg", encoded(stored, "JPEG", exif=exif_of(orientation)))
    for name in ("png", "webp", "tiff", "avif"):
        image = picture(name).transpose(Image.Transpose.ROTATE_90)
        options = {"lossless": True} if name == "webp" else {}
        yield keep(f"turn 6.{name}", encoded(image, name, exif=exif_of(6), **options), within=20)
    xmp = b'<x:xmpmeta><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'
    image = picture("xmp").transpose(Image.Transpose.ROTATE_90)
    itxt = png_chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + xmp)
    yield keep("turn by xmp.png", png_of(SIZE[::-1], 8, 2, png_rows(np.asarray(image)), itxt))
    yield keep("turn by xmp.jpg", encoded(image, "JPEG", xmp=xmp))
    yield keep("broken exif.jpg", encoded(picture("exif"), "JPEG", exif=b"Exif\0\0MM\0*\xff\xff\xff\xff garbage"))


def _profiled() -> Iterator[File]:
    swapped = tuple(color[::-1] for color in CORNERS)
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for name in ("jpeg", "png", "tiff"):
        yield keep(f"swapped.{name}", encoded(picture(name), name, icc_profile=swapped_profile()), corners=swapped)
    yield keep("sRGB.jpg", encoded(picture("srgb"), "JPEG", icc_profile=srgb))
    yield keep("broken profile.png", encoded(picture("broken"), "PNG", icc_profile=b"not a profile"))
    grey = encoded(picture("grey", GREYS).convert("L"), "JPEG", icc_profile=swapped_profile())
    yield keep("profile of colors on grey.jpg", grey, corners=GREYS)


def _modes() -> Iterator[File]:
    yield keep("cmyk.jpg", encoded(picture("cmyk").convert("CMYK"), "JPEG"))
    inks = 255 - np.asarray(Image.fromarray(255 - np.asarray(picture("ycck"))).convert("YCbCr"))
    ycck = bytearray(encoded(Image.fromarray(np.dstack([inks, 0 * inks[..., 0]]), "CMYK"), "JPEG", subsampling=0))
    ycck[ycck.index(b"Adobe") + 11] = 2
    yield keep("ycck.jpg", bytes(ycck))
    yield keep("cmyk.tif", encoded(picture("cmyk tif").convert("CMYK"), "TIFF"))
    lab = ImageCms.buildTransform(ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), "RGB", "LAB")
    yield keep("lab.tif", encoded(lab.apply(picture("lab")), "TIFF"))
    yield keep("palette.png", encoded(picture("palette").quantize(64), "PNG"), within=40)
    two = (BLACK, WHITE, WHITE, BLACK)
    yield keep("1 bit.png", encoded(picture("1", two).convert("1"), "PNG"), corners=two)


def _containers() -> Iterator[File]:
    later = [Image.new("RGB", SIZE, color) for color in ("blue", "yellow")]
    for name in ("gif", "webp", "png", "tiff"):
        options = {"lossless": True} if name == "webp" else {}
        content = encoded(picture(f"many {name}"), name, save_all=True, append_images=later, **options)
        yield keep(f"many.{name}", content, within=40)
    for name in ("pair.mpo", "pair.jpg"):
        yield keep(name, encoded(picture(name), "MPO", save_all=True, append_images=later))
    for name, kind in {
        "png.jpg": "PNG",
        "jpeg.png": "JPEG",
        "gif.webp": "GIF",
        "x.jfif": "JPEG",
        "no name": "JPEG",
    }.items():
        yield keep(name, encoded(picture(name), kind), within=40)
    yield keep("sound.avif", encoded(picture("avif"), "AVIF", quality=95), within=20)
    yield keep("sound.jp2", encoded(picture("jp2"), "JPEG2000"))
    yield keep("sound.j2k", encoded(picture("j2k"), "JPEG2000", no_jp2=True))
    yield keep("sound.ppm", encoded(picture("ppm"), "PPM"))
    for name in ("jpeg", "png", "gif", "webp"):
        yield keep(f"bytes after its end.{name}", encoded(picture(f"after {name}"), name) + b"trailing" * 99, within=40)
    if find_spec("pillow_heif"):
        import pillow_heif

        heic = io.BytesIO()
        turned = picture("heic").transpose(Image.Transpose.ROTATE_90)
        pillow_heif.from_pillow(turned).save(heic, exif=exif_of(6).tobytes())
        yield keep("turned.heic", heic.getvalue(), within=20)


def _named() -> Iterator[File]:
    names = (
        "\u6d6e\u4e16\u7d75.png", "rtl \u202egnp.png", "\U0001f3a8.png", "new\nline.png", "tab\t.png",
        "\x1b[31mred.png", "quote'\".png", "$(touch x);`id`.png", "-rf.png", "x..\\..\\up.png", "%2e%2e%2fup.png",
        "[red]x[bold].png", "<img src=x onerror=alert(1)>.png", "=1+cmd|' !A0.png", "%s%n{0}.png", "CON.png", "nul",
        " .png", "dots...", "A.PNG", "a.PNG", "caf\u00e9.png", "cafe\u0301.png", "l" * 251 + ".png",
        os.fsdecode(b"latin \xe9.png"),
    )  # fmt: skip
    for name in names:
        yield keep(name, encoded(picture(name), "PNG"))


def _cut() -> Iterator[File]:
    for name in ("jpeg", "png", "webp", "bmp", "tiff", "gif", "avif", "jpeg2000", "ppm"):
        noise = encoded(picture(f"cut {name}", size=(600, 480)), name)
        yield drop(f"half.{name}", noise[: len(noise) // 2], "truncated")
        yield drop(f"header.{name}", noise[:24], *DAMAGE, "not_a_picture")
    progressive = encoded(picture("cut progressive"), "JPEG", progressive=True)
    yield drop("half progressive.jpg", progressive[: len(progressive) // 2], "truncated")
    yield drop("no end mark.jpg", progressive[:-2], "truncated")
    png = encoded(picture("end"), "PNG")
    yield drop("no end chunk.png", png[:-12], "truncated")
    yield drop("half an end chunk.png", png[:-5], "truncated")
    for number, content in enumerate((b"", b"\xff", bytes(5000), np.random.default_rng(1).bytes(5000))):
        yield drop(f"nothing {number}.jpg", content, "not_a_picture" if any(content) else "empty")


def _silently_damaged() -> Iterator[File]:
    png = bytearray(encoded(picture("checksum"), "PNG"))
    png[png.index(b"IDAT") + 30] ^= 1
    yield drop("bad checksum.png", bytes(png), "damaged")
    noise = Image.fromarray(np.random.default_rng(2).integers(0, 256, (96, 128, 3), dtype=np.uint8))
    jpeg = encoded(noise, "JPEG")
    scan = jpeg.index(b"\xff\xda") + 14
    half = jpeg[: (scan + len(jpeg)) // 2].rstrip(b"\xff") + b"\xff\xd9"
    yield drop("half a scan and an end mark.jpg", half, "damaged", needs="simplejpeg")
    middle = jpeg[scan + 2000 : scan + 6000].split(b"\xff")  # the bytes between marks, so that no mark appears
    scrambled = b"\xff".join(part[:1] + part[:0:-1] for part in middle)
    content = jpeg[: scan + 2000] + scrambled + jpeg[scan + 6000 :]
    yield drop("scrambled scan.jpg", content, "damaged", needs="simplejpeg")


def _no_pictures() -> Iterator[File]:
    for name, (reason, content) in {
        "page.jpg": ("web_page", b"<!doctype html><html><body>404</body></html>"),
        "text.png": ("not_a_picture", b"\xef\xbb\xbfnot a picture"),
        "drawing.svg": ("other_format", b"<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>"),
        "paper.pdf": ("other_format", b"%PDF-1.7\n"),
        "archive.png": ("other_format", b"PK\3\4" + bytes(100)),
        "film.jpg": ("other_format", b"\0\0\0\x18ftypisom" + bytes(100)),
        "sound.webp": ("not_a_picture", b"RIFF\xff\0\0\0WAVEfmt "),
        "program.eps": ("other_format", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(x) run\n"),
        "Thumbs.db": ("sidecar", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(100)),
        ".DS_Store": ("hidden", b"\0\0\0\1Bud1"),
        "._apple.jpg": ("hidden", b"\0\5\x16\7\0\2\0\0Mac OS X"),
        "layers.psd": ("other_format", b"8BPS\0\1" + bytes(100)),
        "icon.ico": ("other_format", encoded(picture("ico"), "ICO", sizes=[(32, 32)])),
        "old.tga": ("other_format", encoded(picture("tga"), "TGA")),
        "raw.dng": ("other_format", tiff_of(np.asarray(picture("dng")), 2, t254=1, t50706=(1, 4, 0, 0))),
        "raw.cr2": ("other_format", b"II*\0\x10\0\0\0CR\2\0" + bytes(100)),
        "pointer.jpg": ("lfs_pointer", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"),
        "caption.txt": ("sidecar", b"a woman, oil on canvas"),
        "nothing.txt": ("sidecar", b""),
        "features.npz": ("sidecar", b"PK\3\4" + bytes(100)),
        "sea.xmp": ("sidecar", b"<x:xmpmeta/>"),
        "stream.jxl": ("other_format", b"\xff\x0a" + bytes(100)),
        "box.jxl": ("other_format", b"\0\0\0\x0cJXL \r\n\x87\n" + bytes(100)),
        "old.pcx": ("other_format", encoded(picture("pcx"), "PCX")),
        "texture.dds": ("other_format", encoded(picture("dds"), "DDS")),
        "quite.qoi": ("other_format", b"qoif" + bytes(100)),
        "login.png": ("web_page", b"\r\n\r\n<HTML>\n<body><svg ></svg></body>"),
    }.items():
        yield drop(name, content, reason)
    yield drop("stub.heic", b"\0\0\0\x18ftypheic" + bytes(100), "other_format", *DAMAGE)


def _odd_sizes() -> Iterator[File]:
    for name, size, reason in (
        ("1 x 1.png", (1, 1), "too_small"),
        ("15 x 40.png", (15, 40), "too_small"),
        ("4000 x 24.png", (4000, 24), "extreme_aspect"),
    ):
        yield drop(name, encoded(Image.new("RGB", size, CORNERS[0]), "PNG"), reason)
    yield keep("blank.png", encoded(Image.new("RGB", SIZE, CORNERS[1]), "PNG"), corners=(CORNERS[1],) * 4)


def _bombs() -> Iterator[File]:
    tiny = zlib.compress(b"0")
    packer = zlib.compressobj(9)
    huge = b"".join(packer.compress(bytes(1 << 20)) for _ in range(108)) + packer.flush()
    jpeg = encoded(picture("claim"), "JPEG")
    size_at = jpeg.index(b"\xff\xc0") + 5
    webp = b"VP8X\x0a\0\0\0\0\0\0\0" + b"\xff\x3f\0" * 2 + b"VP8L\0\0\0\0"
    for name, content in {
        "900 MP.png": png_of((30_000, 30_000), 1, 0, huge),
        "100 MP.png": png_of((10_000, 10_000), 1, 0, zlib.compress(bytes(1251 * 10_000))),
        "2^31.png": png_of((2**31 - 1, 2**31 - 1), 8, 2, tiny),
        "4 GP.jpg": jpeg[:size_at] + b"\xff\xff\xff\xff" + jpeg[size_at + 4 :],
        "65535^2.gif": b"GIF89a\xff\xff\xff\xff\0\0\0,\0\0\0\0\xff\xff\xff\xff\0\x08\0;",
        "10^10.bmp": b"BM" + struct.pack("<IIIIiiHHIIIIII", 999, 0, 54, 40, 10**5, 10**5, 1, 24, 0, 0, 0, 0, 0, 0),
        "10^10.tif": tiff_of(np.zeros((2, 2), np.uint8), 1, t256=10**5, t257=10**5),
        "268 MP.webp": b"RIFF" + struct.pack("<I", len(webp) + 4) + b"WEBP" + webp,
    }.items():
        yield drop(name, content, "bomb")
    for name, kind in {"text": b"zTXt", "profile": b"iCCP"}.items():
        rows, chunk = png_rows(np.asarray(picture(name))), png_chunk(kind, b"a\0\0" + zlib.compress(bytes(50_000_000)))
        yield keep(f"large {name}.png", png_of(SIZE, 8, 2, rows, chunk))
    image = picture("400 frames")
    yield keep(
        "400 frames.gif", encoded(image, "GIF", save_all=True, append_images=[image, Image.new("RGB", SIZE)] * 200)
    )
    endless = bytearray(encoded(picture("endless"), "TIFF"))
    start = struct.unpack("<I", endless[4:8])[0]
    last = start + 2 + 12 * struct.unpack("<H", endless[start : start + 2])[0]
    endless[last : last + 4] = endless[4:8]  # the page after this one is this one
    yield keep("endless pages.tif", bytes(endless))


def _copies() -> Iterator[File]:
    content = encoded(picture("copy"), "PNG")
    yield keep("copy 1.png", content)
    yield drop("copy 2.png", content, "duplicate")
    yield keep("smaller copy.jpg", encoded(picture("copy").resize((48, 36)), "JPEG"), size=(48, 36), within=30)


def _write_special_files(folder: Path) -> list[Case]:
    """Write what is no regular file, as far as this system has it."""
    style, other = folder / STYLES[0], folder / STYLES[1]
    (style / "folder.jpg").mkdir()
    (style / "folder.jpg" / "inside").write_bytes(encoded(picture("inside"), "PNG"))
    links = {
        "inside.png": "baseline.jpg",
        "outside.png": "/etc/hostname",
        "dangling.png": "nothing",
        "self.png": "self.png",
    }
    for name, target in (links | {"loop": ".."}).items():
        (other / name).symlink_to(target)
    os.mkfifo(other / "pipe.jpg")
    (other / "no rights.png").write_bytes(encoded(picture("no rights"), "PNG"))
    (other / "no rights.png").chmod(0)
    return [
        Case(f"{STYLES[0]}/folder.jpg/inside"),
        *(Case(f"{STYLES[1]}/{name}", "drop", ("not_a_regular_file",)) for name in (*links, "loop", "pipe.jpg")),
        Case(f"{STYLES[1]}/no rights.png", "either", ("unreadable",)),  # the superuser may read it
    ]
