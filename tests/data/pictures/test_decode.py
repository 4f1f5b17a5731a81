"""Any picture file is decoded upright, in sRGB and whole, or refused with a reason."""

from __future__ import annotations

import io
import os
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageCms

from latentart.data.pictures.decode import TURNS, decode_image, decode_stream
from latentart.data.pictures.formats import BadImage
from latentart.data.pictures.jpeg_scan import find_scan_damage

WIDTH, HEIGHT = 48, 32
RED, GREEN, BLUE, YELLOW = (220, 20, 20), (20, 200, 20), (20, 20, 220), (220, 200, 20)
CORNERS = (RED, GREEN, BLUE, YELLOW)  # top left, top right, bottom left, bottom right


def four_corners() -> Image.Image:
    """Draw a picture that shows every turn: four quarters of different color, wider than high."""
    image = Image.new("RGB", (WIDTH, HEIGHT))
    for i, color in enumerate(CORNERS):
        x, y = i % 2 * WIDTH // 2, i // 2 * HEIGHT // 2
        image.paste(color, (x, y, x + WIDTH // 2, y + HEIGHT // 2))
    return image


def encoded(image: Image.Image, file_format: str, **options: Any) -> bytes:
    """Return the bytes of an image file."""
    buffer = io.BytesIO()
    image.save(buffer, file_format, **options)
    return buffer.getvalue()


def decoded(tmp_path: Path, content: bytes, **options: Any) -> Image.Image:
    """Decode content from a file without a telling name."""
    path = tmp_path / "picture"
    path.write_bytes(content)
    return decode_image(path, **options)


def corner_colors(image: Image.Image) -> np.ndarray:
    """Return the colors in the middle of the four quarters."""
    w, h = image.size
    places = [(w // 4, h // 4), (3 * w // 4, h // 4), (w // 4, 3 * h // 4), (3 * w // 4, 3 * h // 4)]
    return np.array([image.getpixel(place) for place in places], dtype=int)


def assert_corners(image: Image.Image, expected: Any = CORNERS, within: int = 12) -> None:
    """Check mode and corner colors."""
    assert image.mode == "RGB"
    np.testing.assert_allclose(corner_colors(image), np.array(expected), atol=within)


def png_chunk(kind: bytes, content: bytes) -> bytes:
    """Return a PNG chunk with its checksum."""
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png_of(width: int, height: int, *chunks: bytes) -> bytes:
    """Return an 8-bit RGB PNG made of the given chunks."""
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(chunks) + png_chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("file_format", "options"),
    [
        ("JPEG", {"quality": 95}),
        ("JPEG", {"quality": 95, "progressive": True, "subsampling": 2}),
        ("MPO", {"quality": 95, "save_all": True}),
        ("PNG", {}),
        ("WEBP", {"lossless": True}),
        ("BMP", {}),
        ("TIFF", {"compression": "tiff_lzw"}),
        ("GIF", {}),
        ("AVIF", {"quality": 95}),
        ("JPEG2000", {}),
        ("PPM", {}),
    ],
)
def test_formats_are_known_by_content(tmp_path: Path, file_format: str, options: dict[str, Any]) -> None:
    """Each format is read whatever its name, also with bytes after its end."""
    if file_format == "MPO":
        options = options | {"append_images": [Image.new("RGB", (WIDTH, HEIGHT))]}
    content = encoded(four_corners(), file_format, **options)

    image = decoded(tmp_path, content + b"trailing bytes")

    assert image.size == (WIDTH, HEIGHT)
    assert_corners(image)


@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_turned_pictures_come_out_upright(tmp_path: Path, file_format: str, orientation: int) -> None:
    """All eight EXIF orientations are undone, once, in every format that holds them."""
    undo = {6: Image.Transpose.ROTATE_90, 8: Image.Transpose.ROTATE_270}.get(orientation, TURNS.get(orientation))
    stored = four_corners() if undo is None else four_corners().transpose(undo)
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {} if file_format in ("PNG", "TIFF") else {"quality": 95}

    image = decoded(tmp_path, encoded(stored, file_format, exif=exif, **options))

    assert image.size == (WIDTH, HEIGHT)
    assert_corners(image)


def test_broken_exif_is_ignored(tmp_path: Path) -> None:
    """A sound picture with an unreadable EXIF block is kept as it lies."""
    content = encoded(four_corners(), "JPEG", quality=95, exif=b"Exif\0\0MM\0*\xff\xff\xff\xff garbage")

    assert_corners(decoded(tmp_path, content))


@pytest.mark.parametrize("file_format", ["PNG", "TIFF", "PPM", "JPEG2000"])
def test_16_bit_grey_is_scaled(tmp_path: Path, file_format: str) -> None:
    """A 16-bit ramp becomes the 8-bit ramp, not white."""
    ramp = np.tile(np.linspace(0, 65535, 256, dtype=np.uint16), (16, 1))

    image = decoded(tmp_path, encoded(Image.fromarray(ramp), file_format))

    np.testing.assert_array_equal(np.asarray(image)[0, :, 0], np.arange(256))


@pytest.mark.parametrize(("white", "black"), [(1.0, 0.0), (255.0, 0.0), (65535.0, 0.0), (1e6, -1e6)])
def test_float_grey_is_scaled_to_its_range(tmp_path: Path, white: float, black: float) -> None:
    """Floats in 0...1, 0...255, 0...65535 or any other range fill black to white."""
    values = np.linspace(black, white, 64, dtype=np.float32)[None].repeat(8, axis=0)

    image = decoded(tmp_path, encoded(Image.fromarray(values), "TIFF"))

    np.testing.assert_allclose(np.asarray(image)[0, :, 1], np.linspace(0, 255, 64), atol=1)


def test_float_grey_without_numbers_is_black_there(tmp_path: Path) -> None:
    """NaN and infinity do not spoil the other pixels."""
    values = np.full((8, 8), 0.5, dtype=np.float32)
    values[0, :3] = np.nan, np.inf, -np.inf

    image = decoded(tmp_path, encoded(Image.fromarray(values), "TIFF"))

    assert np.asarray(image)[0, :4, 0].tolist() == [0, 0, 0, 128]


@pytest.mark.parametrize("file_format", ["PNG", "WEBP", "TIFF"])
def test_color_under_zero_alpha_never_shows(tmp_path: Path, file_format: str) -> None:
    """Transparent parts show the ground, half transparent ones the mixture, opaque ones themselves."""
    image = four_corners().convert("RGBA")
    image.putalpha(Image.fromarray(np.repeat(np.array([[0, 255], [0, 128]], np.uint8), 24, 1).repeat(16, 0)))
    options = {"lossless": True, "exact": True} if file_format == "WEBP" else {}

    result = decoded(tmp_path, encoded(image, file_format, **options), background=(10, 100, 200))

    mixture = tuple((128 * over + 127 * under) / 255 for over, under in zip(YELLOW, (10, 100, 200), strict=True))
    assert_corners(result, [(10, 100, 200), GREEN, (10, 100, 200), mixture], within=1)


def test_grey_with_alpha_and_palette_with_alpha_are_flattened(tmp_path: Path) -> None:
    """LA pictures and palettes with transparent colors show the ground where they are transparent."""
    grey = Image.new("LA", (WIDTH, HEIGHT), (50, 0))
    grey.paste((80, 255), (WIDTH // 2, 0, WIDTH, HEIGHT))
    palette = four_corners().quantize(4)
    index_of_red = palette.getpixel((0, 0))

    flat_grey = decoded(tmp_path, encoded(grey, "PNG"))
    flat_palette = decoded(tmp_path, encoded(palette, "PNG", transparency=index_of_red))

    assert_corners(flat_grey, [(255,) * 3, (80,) * 3, (255,) * 3, (80,) * 3], within=0)
    assert_corners(flat_palette, [(255,) * 3, GREEN, BLUE, YELLOW], within=2)


def test_a_transparent_key_color_shows_the_ground(tmp_path: Path) -> None:
    """A PNG that declares one color transparent is flattened too."""
    content = encoded(four_corners(), "PNG", transparency=BLUE)

    assert_corners(decoded(tmp_path, content), [RED, GREEN, (255,) * 3, YELLOW], within=0)


@pytest.mark.parametrize(
    ("mode", "file_format", "within"),
    [("CMYK", "JPEG", 12), ("CMYK", "TIFF", 3), ("LAB", "TIFF", 6), ("P", "PNG", 3), ("P", "GIF", 3)],
)
def test_color_modes_keep_their_colors(tmp_path: Path, mode: str, file_format: str, within: int) -> None:
    """CMYK, Lab and palettes come out as the colors they stand for."""
    image = four_corners()
    if mode == "LAB":
        lab = ImageCms.createProfile("LAB")
        converted = ImageCms.profileToProfile(image, ImageCms.createProfile("sRGB"), lab, outputMode="LAB")
        assert converted is not None
        image = converted
    else:
        image = image.quantize(8) if mode == "P" else image.convert(mode)
    options = {"quality": 95} if file_format == "JPEG" else {}

    assert_corners(decoded(tmp_path, encoded(image, file_format, **options)), within=within)


def test_one_bit_is_black_and_white(tmp_path: Path) -> None:
    """A 1-bit picture is black and white, not 0 and 1."""
    image = Image.new("1", (WIDTH, HEIGHT))
    image.paste(1, (WIDTH // 2, 0, WIDTH, HEIGHT))

    result = decoded(tmp_path, encoded(image, "PNG"))

    assert_corners(result, [(0,) * 3, (255,) * 3, (0,) * 3, (255,) * 3], within=0)


def swapped_profile() -> bytes:
    """Return sRGB's profile with the columns of red and blue exchanged."""
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    red, blue = profile.index(b"rXYZ"), profile.index(b"bXYZ")
    profile[red], profile[blue] = profile[blue], profile[red]
    return bytes(profile)


@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P"])
def test_profiles_are_turned_into_srgb(tmp_path: Path, file_format: str, mode: str) -> None:
    """A profile with swapped primaries is obeyed, with alpha and with a palette too."""
    if (file_format, mode) in {("JPEG", "RGBA"), ("JPEG", "P")}:
        mode = "RGB"
    image = four_corners().quantize(8) if mode == "P" else four_corners().convert(mode)
    options: dict[str, dict[str, Any]] = {"JPEG": {"quality": 95}, "WEBP": {"lossless": True}}

    result = decoded(
        tmp_path, encoded(image, file_format, icc_profile=swapped_profile(), **options.get(file_format, {}))
    )

    assert_corners(result, [color[::-1] for color in CORNERS])
    assert not result.info


@pytest.mark.parametrize("profile", [b"not a profile", swapped_profile()[:200]])
def test_a_broken_profile_is_ignored(tmp_path: Path, profile: bytes) -> None:
    """A profile that cannot be read leaves the colors as they are."""
    assert_corners(decoded(tmp_path, encoded(four_corners(), "PNG", icc_profile=profile)), within=0)


@pytest.mark.parametrize("mode", ["L", "CMYK"])
def test_a_profile_of_another_color_space_is_ignored(tmp_path: Path, mode: str) -> None:
    """An RGB profile on a grey or CMYK picture says nothing."""
    image = Image.new("RGB", (WIDTH, HEIGHT), (90, 90, 90)).convert(mode)

    result = decoded(tmp_path, encoded(image, "TIFF", icc_profile=swapped_profile()))

    assert_corners(result, [(90, 90, 90)] * 4, within=2)


@pytest.mark.parametrize("file_format", ["GIF", "WEBP", "PNG", "TIFF"])
def test_the_first_frame_is_taken(tmp_path: Path, file_format: str) -> None:
    """Of an animation or a file with pages the first picture counts."""
    options = {"lossless": True} if file_format == "WEBP" else {}
    frames = [Image.new("RGB", (WIDTH, HEIGHT), color) for color in (BLUE, YELLOW)]

    content = encoded(four_corners(), file_format, save_all=True, append_images=frames, **options)

    assert_corners(decoded(tmp_path, content), within=3)


@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "BMP", "TIFF", "GIF", "PPM", "WEBP", "AVIF", "JPEG2000"])
@pytest.mark.parametrize("share", [0.02, 0.5, 0.9])
def test_cut_files_are_called_truncated(tmp_path: Path, file_format: str, share: float) -> None:
    """A file without its end is never taken for a picture, and the commonest fault has its own name."""
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8))
    content = encoded(noise, file_format)

    with pytest.raises(BadImage) as caught:
        decoded(tmp_path, content[: int(len(content) * share)])

    assert caught.value.reason_code == "truncated"


@pytest.mark.parametrize(
    ("file_format", "missing"), [("JPEG", 1), ("JPEG", 2), ("PNG", 1), ("PNG", 5), ("PNG", 12), ("JPEG2000", 1)]
)
def test_a_picture_without_its_end_mark_is_truncated(tmp_path: Path, file_format: str, missing: int) -> None:
    """All the pixels may be there: the file still is not what was sent."""
    content = encoded(four_corners(), file_format)

    with pytest.raises(BadImage) as caught:
        decoded(tmp_path, content[:-missing])

    assert caught.value.reason_code == "truncated"


def test_tiffs_are_truncated_where_their_directory_or_strips_are_missing(tmp_path: Path) -> None:
    """Both orders of parts are known: directory before the pixels and behind them."""
    first = encoded(four_corners(), "TIFF")
    behind = b"II*\0" + struct.pack("<I", 10**6) + bytes(500)

    for content in (first[:-100], first[:60], behind):
        with pytest.raises(BadImage) as caught:
            decoded(tmp_path, content)
        assert caught.value.reason_code == "truncated"


def test_a_png_with_a_bad_checksum_is_damaged(tmp_path: Path) -> None:
    """A flipped bit that the decoder alone would let through is seen."""
    content = bytearray(encoded(four_corners(), "PNG"))
    content[content.index(b"IDAT") + 20] ^= 1

    with pytest.raises(BadImage) as caught:
        decoded(tmp_path, bytes(content))

    assert caught.value.reason_code == "damaged"


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "empty"),
        (b"\0", "not_a_picture"),
        (bytes(5000), "empty"),
        (np.random.default_rng(1).bytes(5000), "not_a_picture"),
        (b"<!doctype html><html><body>404</body></html>", "web_page"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "other_format"),
        (b"%PDF-1.7\n", "other_format"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "other_format"),
        (b"PK\3\4" + bytes(100), "other_format"),
        (b"\xff\xd8\xff\xe0 no more", "truncated"),
        (b"\xff\xd8\xff\xe0" + bytes(100), "damaged"),
        (b"\x89PNG\r\n\x1a\n", "truncated"),
        (png_of(4, 4)[:24] + b"\2" + png_of(4, 4)[25:], "damaged"),
        (b"II*\0\x08\0\0\0\0\0\0\0\0\0", "other_format"),
        (b"RIFF\xff\0\0\0WAVEfmt ", "not_a_picture"),
        (b"\0\0\0\x18ftypisom" + bytes(100), "other_format"),
        (png_of(2**31 - 1, 2**31 - 1, png_chunk(b"IDAT", zlib.compress(b"0"))), "bomb"),
        (png_of(4, 4, png_chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(50_000_000)))), "damaged"),
        (png_of(64, 64, png_chunk(b"IDAT", zlib.compress(bytes(50)))), "truncated"),
        (b"GIF89a\xff\xff\xff\xff\0\0\0,\0\0\0\0\xff\xff\xff\xff\0\x08\0;", "bomb"),
    ],
)
def test_what_is_no_sound_picture_is_refused_with_a_reason(tmp_path: Path, content: bytes, reason: str) -> None:
    """Pages, archives, noise, header claims and text bombs each get their reason."""
    with pytest.raises(BadImage) as caught:
        decoded(tmp_path, content)

    assert caught.value.reason_code == reason
    assert "0x" not in caught.value.detail  # no address: the same file gives the same report
    assert "name=" not in caught.value.detail


@pytest.mark.parametrize("file_format", ["WEBP", "AVIF", "JPEG2000"])
def test_formats_with_hungry_decoders_may_have_fewer_pixels(tmp_path: Path, file_format: str) -> None:
    """A picture that takes more memory than a worker has is refused by its claim, not by a decoder out of memory."""
    content = encoded(four_corners(), file_format)

    assert decoded(tmp_path, content, max_pixels=2 * WIDTH * HEIGHT).size == (WIDTH, HEIGHT)
    with pytest.raises(BadImage, match=f"of {file_format}, too many") as caught:
        decoded(tmp_path, content, max_pixels=WIDTH * HEIGHT)
    assert caught.value.reason_code == "too_large"


CHILD = """
import resource, sys
from pathlib import Path
from PIL import Image
from latentart.data.pictures.decode import decode_image
from latentart.data.pictures.formats import BadImage
Image.init()
path, spare = Path(sys.argv[1]), int(sys.argv[2])
if spare:
    size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + spare,) * 2)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    decode_image(path)
except BadImage as error:
    print(error.reason_code, error.detail)
else:
    print(1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before))
"""


def decoded_in_child(path: Path, spare: int = 0) -> str:
    """Return what a fresh process says of decoding: the memory it took, or a reason; ``spare`` bytes are its limit."""
    return subprocess.check_output([sys.executable, "-c", CHILD, path, str(spare)], text=True).strip()


@pytest.mark.skipif(sys.platform != "linux", reason="counts memory as Linux does")
@pytest.mark.parametrize(
    ("mode", "file_format", "options"),
    [
        ("RGBA", "PNG", {"compress_level": 0, "turned": 6, "profile": True}),
        ("I;16", "PNG", {"compress_level": 0}),
        ("CMYK", "TIFF", {"turned": 6}),
        ("RGB", "JPEG", {"quality": 50, "subsampling": 0, "progressive": True}),
        ("RGB", "WEBP", {"quality": 10, "method": 0}),
    ],
)
def test_decoding_takes_no_more_memory_than_it_may(
    tmp_path: Path, mode: str, file_format: str, options: dict[str, Any]
) -> None:
    """At most 12 bytes per pixel, 18 for WebP, for which fewer pixels are let in."""
    exif = Image.Exif()
    exif[0x0112] = options.pop("turned", 1)
    profile = swapped_profile() if options.pop("profile", False) else None
    path, size = tmp_path / "picture", (2400, 1600)
    Image.new(mode, size).save(path, file_format, exif=exif, icc_profile=profile, **options)

    num_bytes = int(decoded_in_child(path))

    assert num_bytes < size[0] * size[1] * (18 if file_format == "WEBP" else 12)


@pytest.mark.skipif(sys.platform != "linux", reason="sets a limit that only Linux keeps")
@pytest.mark.parametrize("file_format", ["PNG", "AVIF"])
def test_want_of_memory_is_called_so(tmp_path: Path, file_format: str) -> None:
    """A sound picture that does not fit into a worker is not called damaged."""
    path = tmp_path / "picture"
    Image.new("RGB", (2400, 1600)).save(path, file_format, **({"speed": 10} if file_format == "AVIF" else {}))

    assert decoded_in_child(path, spare=10 << 20).startswith("too_large takes more memory")


def test_the_limit_of_pixels_is_the_callers(tmp_path: Path) -> None:
    """A picture of just ``max_pixels`` is read whole, one of a row more is not, and Pillow's own limit is put back."""
    limit_before = Image.MAX_IMAGE_PIXELS
    content = encoded(four_corners(), "PNG")

    assert decoded(tmp_path, content, max_pixels=WIDTH * HEIGHT).size == (WIDTH, HEIGHT)
    with pytest.raises(BadImage) as caught:
        decoded(tmp_path, content, max_pixels=WIDTH * HEIGHT - 1)
    assert caught.value.reason_code == "too_large"
    assert limit_before == Image.MAX_IMAGE_PIXELS


def test_only_regular_files_are_opened(tmp_path: Path) -> None:
    """Links, pipes and folders are refused without being followed or waited for."""
    (tmp_path / "picture").write_bytes(encoded(four_corners(), "PNG"))
    (tmp_path / "link").symlink_to(tmp_path / "picture")
    (tmp_path / "dangling").symlink_to(tmp_path / "nothing")
    (tmp_path / "folder.jpg").mkdir()
    os.mkfifo(tmp_path / "pipe")

    for name in ("link", "dangling", "folder.jpg", "pipe"):
        with pytest.raises(BadImage) as caught:
            decode_image(tmp_path / name)
        assert caught.value.reason_code == "not_a_regular_file"


def test_a_missing_file_is_unreadable(tmp_path: Path) -> None:
    """A file that is not there is refused, not a crash."""
    with pytest.raises(BadImage, match="No such file") as caught:
        decode_image(tmp_path / "nothing")

    assert caught.value.reason_code == "unreadable"


@pytest.mark.parametrize(
    ("size", "max_side", "expected"),
    [((100, 50), 25, (50, 25)), ((50, 100), 25, (25, 50)), ((100, 50), 50, (100, 50)), ((33, 1000), 10, (10, 303))],
)
def test_only_the_shorter_side_is_limited(size: tuple[int, int], max_side: int, expected: tuple[int, int]) -> None:
    """The shape is kept and nothing is enlarged."""
    content = encoded(Image.new("RGB", size), "PNG")

    assert decode_stream(io.BytesIO(content), max_side=max_side).picture.size == expected
    assert decode_stream(io.BytesIO(content), max_side=5000).picture.size == size


@cache
def natural_picture(width: int, height: int) -> Image.Image:
    """Return 1/f noise with smooth edges and fine grain, as photographs and scans have."""
    rng = np.random.default_rng(0)
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None])
    frequency[0, 0] = np.inf
    spectrum = rng.standard_normal((3, *frequency.shape)) + 1j * rng.standard_normal((3, *frequency.shape))
    noise = np.fft.irfft2(spectrum / frequency**1.1, s=(height, width))
    y, x = np.mgrid[:height, :width]
    disk = 1 / (1 + np.exp(np.hypot(y - height / 2, x - width / 2) - width / 4))
    pixels = 120 + 35 * noise / noise.std() + 60 * disk + rng.normal(0, 3, noise.shape)
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8).transpose(1, 2, 0))


@pytest.mark.parametrize("subsampling", [0, 2])
@pytest.mark.parametrize(("max_side", "divisor"), [(320, 2), (160, 4), (80, 8), (450, 1), (2000, 1)])
def test_jpegs_are_reduced_while_decoding(subsampling: int, max_side: int, divisor: int) -> None:
    """A picture reduced by the decoder and then by Lanczos differs by 40 dB or more from Lanczos alone."""
    content = encoded(natural_picture(900, 1101), "JPEG", quality=90, subsampling=subsampling)

    full = decode_stream(io.BytesIO(content)).picture
    scale = min(1.0, max_side / min(full.size))
    whole = full.resize((round(full.width * scale), round(full.height * scale)), Image.Resampling.LANCZOS)
    reduced = decode_stream(io.BytesIO(content), max_side=max_side)

    assert (reduced.width, reduced.height) == (900, 1101)
    assert reduced.picture.size == whole.size
    error = np.mean((np.asarray(whole, dtype=float) - np.asarray(reduced.picture)) ** 2)
    assert error <= 255**2 / 10**4
    assert (error == 0) == (divisor == 1)


@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", [1, 6])
def test_a_reduced_picture_knows_its_size_in_the_file(file_format: str, orientation: int) -> None:
    """Width and height are those of the upright picture before it was reduced."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = encoded(four_corners().resize((480, 320)), file_format, exif=exif)

    result = decode_stream(io.BytesIO(content), max_side=32)

    assert [result.width, result.height] == ([480, 320] if orientation == 1 else [320, 480])
    assert result.picture.size == ((48, 32) if orientation == 1 else (32, 48))


@pytest.mark.parametrize("mode", ["L", "CMYK", "RGB"])
def test_any_jpeg_may_be_reduced(mode: str) -> None:
    """Grey, CMYK and pairs of pictures are reduced like color, with their profiles."""
    image = four_corners().resize((480, 320), Image.Resampling.NEAREST)
    expected = image.convert("L").convert("RGB") if mode == "L" else image
    content = encoded(image.convert(mode), "JPEG", quality=95, icc_profile=swapped_profile() if mode == "RGB" else None)

    result = decode_stream(io.BytesIO(content), max_side=32).picture

    assert_corners(result, corner_colors(expected)[:, :: -1 if mode == "RGB" else 1])


def test_a_profile_that_changes_nothing_is_passed_over() -> None:
    """Under sRGB's own profile no pixel moves."""
    image = natural_picture(64, 48)
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()

    result = decode_stream(io.BytesIO(encoded(image, "PNG", icc_profile=profile))).picture

    np.testing.assert_array_equal(np.asarray(result), np.asarray(image))


def scan_of(content: bytes) -> int:
    """Return where the first scan of a JPEG starts."""
    return content.index(b"\xff\xda") + 14


SOUND_JPEGS: dict[str, dict[str, Any]] = {
    **{f"quality {quality}": {"quality": quality} for quality in (1, 30, 75, 95, 100)},
    **{f"subsampling {code}": {"subsampling": code} for code in (0, 1, 2)},
    "progressive": {"progressive": True},
    "optimized": {"optimize": True},
    "restart markers": {"restart_marker_blocks": 1},
    "restart rows, progressive": {"restart_marker_rows": 1, "progressive": True},
    "RGB": {"keep_rgb": True},
    "profile": {"icc_profile": swapped_profile()},
    "broken profile": {"icc_profile": b"not a profile"},
    "exif": {"exif": b"Exif\0\0MM\0*\xff\xff\xff\xff garbage"},
}


@pytest.mark.parametrize("name", SOUND_JPEGS)
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("size", [(1, 1), (7, 33), (64, 48)])
def test_no_sound_jpeg_is_taken_for_damaged(name: str, mode: str, size: tuple[int, int]) -> None:
    """Whatever an encoder may do, also with bytes after the end, is sound."""
    content = encoded(natural_picture(64, 48).resize(size).convert(mode), "JPEG", **SOUND_JPEGS[name])

    assert find_scan_damage(content) == ""
    assert find_scan_damage(content + b"trailing bytes" + content) == ""


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (b"\xff\xd9", bytes(3000) + b"\xff\xd9"),
        (b"\xff\xd9", b"\x12\x34\xff\xd9"),
        (b"\xff\xdb", bytes(4) + b"\xff\xdb"),
        (b"JFIF\0\1\1", b"JFIF\0\x09\x09"),
        (b"\xff\xdb", b"\xff\xe2\0\x10ICC_PROFILE\0\2\5\xff\xdb"),
    ],
)
def test_sloppy_jpegs_are_not_taken_for_damaged(before: bytes, after: bytes) -> None:
    """Padding, junk between segments, odd versions and bad markers of profiles say nothing about the scan."""
    content = encoded(natural_picture(64, 48), "JPEG")

    assert find_scan_damage(content.replace(before, after, 1)) == ""


def half_scan(content: bytes) -> bytes:
    """Return a JPEG with half of its scan and an end mark."""
    return content[: (scan_of(content) + len(content)) // 2].rstrip(b"\xff") + b"\xff\xd9"


def scrambled_scan(content: bytes) -> bytes:
    """Return a JPEG with a stretch of its scan reversed between marks."""
    start = scan_of(content) + 500
    parts = content[start : start + 2000].split(b"\xff")
    return content[:start] + b"\xff".join(part[:1] + part[:0:-1] for part in parts) + content[start + 2000 :]


@pytest.mark.parametrize("harm", [half_scan, scrambled_scan])
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_damaged_scans_are_seen_with_simplejpeg(
    monkeypatch: pytest.MonkeyPatch, harm: Callable[[bytes], bytes], mode: str
) -> None:
    """What Pillow fills with grey or garbage is refused, and is let through where the extra is missing."""
    pytest.importorskip("simplejpeg")
    content = harm(encoded(natural_picture(128, 96).convert(mode), "JPEG", quality=95))

    with pytest.raises(BadImage, match="Corrupt") as caught:
        decode_stream(io.BytesIO(content))
    monkeypatch.setitem(sys.modules, "simplejpeg", None)

    assert caught.value.reason_code == "damaged"
    assert decode_stream(io.BytesIO(content)).picture.size == (128, 96)


def heif_of(image: Image.Image, **options: Any) -> bytes:
    """Return a HEIC file."""
    heif = pytest.importorskip("pillow_heif")
    buffer = io.BytesIO()
    heif.from_pillow(image).save(buffer, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_heif_is_read_upright(tmp_path: Path, orientation: int) -> None:
    """A picture of a phone is turned once."""
    undo = {6: Image.Transpose.ROTATE_90, 8: Image.Transpose.ROTATE_270}.get(orientation, TURNS.get(orientation))
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = four_corners() if undo is None else four_corners().transpose(undo)

    image = decoded(tmp_path, heif_of(stored, quality=95, exif=exif.tobytes()))

    assert image.size == (WIDTH, HEIGHT)
    assert_corners(image, within=20)


def test_heif_is_flattened_and_brought_to_srgb(tmp_path: Path) -> None:
    """Alpha and profile of HEIF count."""
    image = four_corners().convert("RGBA")
    image.paste((0, 0, 0, 0), (0, 0, WIDTH // 2, HEIGHT // 2))
    content = heif_of(image, quality=95, icc_profile=swapped_profile())

    assert_corners(decoded(tmp_path, content), [(255,) * 3, *(color[::-1] for color in CORNERS[1:])], within=20)


def test_deep_heif_is_scaled(tmp_path: Path) -> None:
    """Ten bits become eight."""
    heif = pytest.importorskip("pillow_heif")
    deep = np.asarray(four_corners()).astype(np.uint16) * 257
    buffer = io.BytesIO()
    heif.from_bytes("RGB;16", (WIDTH, HEIGHT), deep.tobytes()).save(buffer, quality=95)

    assert_corners(decoded(tmp_path, buffer.getvalue()), within=20)


def test_cut_and_empty_heif_is_refused(tmp_path: Path) -> None:
    """A file without its end is truncated, one with nothing behind its start is damaged."""
    content = heif_of(four_corners())

    for bad, reason in ((content[:-50], "truncated"), (b"\0\0\0\x18ftypheic" + bytes(100), "damaged")):
        with pytest.raises(BadImage) as caught:
            decoded(tmp_path, bad)
        assert caught.value.reason_code == reason


def test_heif_without_its_decoder_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the extra is missing the report names it."""
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    monkeypatch.delitem(Image.OPEN, "HEIF", raising=False)

    with pytest.raises(BadImage, match=r'pip install "\.\[heif\]"') as caught:
        decoded(tmp_path, b"\0\0\0\x18ftypheic" + bytes(100))

    assert caught.value.reason_code == "other_format"
