"""Any picture file is decoded upright, in sRGB and whole, or refused with a reason."""

from __future__ import annotations

import io
import os
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageCms

from latentart.data.images import TURNS, BadImage, decode_image, resize_shorter_side

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
def test_cut_files_are_refused(tmp_path: Path, file_format: str, share: float) -> None:
    """A file without its end is never taken for a picture."""
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8))
    content = encoded(noise, file_format)

    with pytest.raises(BadImage) as caught:
        decoded(tmp_path, content[: int(len(content) * share)])

    assert caught.value.reason_code in {"truncated", "damaged"}


@pytest.mark.parametrize("options", [{}, {"progressive": True}])
def test_a_jpeg_cut_in_half_is_called_truncated(tmp_path: Path, options: dict[str, Any]) -> None:
    """The commonest fault has its own name."""
    content = encoded(four_corners(), "JPEG", **options)

    with pytest.raises(BadImage) as caught:
        decoded(tmp_path, content[: len(content) * 4 // 5])

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
        (b"", "too_few_bytes"),
        (b"\0", "not_a_picture"),
        (bytes(5000), "not_a_picture"),
        (np.random.default_rng(1).bytes(5000), "not_a_picture"),
        (b"<!doctype html><html><body>404</body></html>", "not_a_picture"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "not_a_picture"),
        (b"%PDF-1.7\n", "not_a_picture"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not_a_picture"),
        (b"PK\3\4" + bytes(100), "not_a_picture"),
        (b"\0\0\0\x18ftypheic" + bytes(100), "not_a_picture"),
        (b"\xff\xd8\xff\xe0 no more", "truncated"),
        (b"\x89PNG\r\n\x1a\n", "damaged"),
        (png_of(2**31 - 1, 2**31 - 1, png_chunk(b"IDAT", zlib.compress(b"0"))), "bomb"),
        (png_of(4, 4, png_chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(5_000_000)))), "bomb"),
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


def test_the_limit_of_pixels_is_the_callers(tmp_path: Path) -> None:
    """A picture of just ``max_pixels`` is read, one row more is a bomb, and Pillow's own limit is put back."""
    limit_before = Image.MAX_IMAGE_PIXELS
    content = encoded(four_corners(), "PNG")

    assert decoded(tmp_path, content, max_pixels=WIDTH * HEIGHT).size == (WIDTH, HEIGHT)
    with pytest.raises(BadImage) as caught:
        decoded(tmp_path, content, max_pixels=WIDTH * HEIGHT - 1)
    assert caught.value.reason_code == "bomb"
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
    assert resize_shorter_side(Image.new("RGB", size), max_side).size == expected
    assert resize_shorter_side(Image.new("RGB", size), 5000).size == size
