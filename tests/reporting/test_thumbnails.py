"""Thumbnails are small JPEGs inside text."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import pytest
from PIL import Image

from latentart.reporting.thumbnails import make_thumbnail, make_thumbnails, thin_evenly


def decode(address: str) -> Image.Image:
    """Return the picture in an address."""
    head, _, content = address.partition(",")
    assert head == "data:image/jpeg;base64"
    return Image.open(io.BytesIO(base64.b64decode(content, validate=True)))


def noise(path: Path, size: tuple[int, int]) -> Path:
    """Write a picture that no compression makes small."""
    Image.effect_noise(size, 100).convert("RGB").save(path)
    return path


@pytest.mark.parametrize(
    ("size", "small"), [((600, 1200), (130, 260)), ((1200, 600), (260, 130)), ((40, 30), (40, 30))]
)
def test_a_thumbnail_fits(tmp_path: Path, size: tuple[int, int], small: tuple[int, int]) -> None:
    """It keeps its shape, is never enlarged, and shows the same picture."""
    Image.new("RGB", size, (200, 40, 90)).save(tmp_path / "a.png")

    made = make_thumbnail(tmp_path / "a.png", (260, 260), 50_000)

    assert made is not None
    assert decode(made.address).size == (made.width, made.height) == small
    assert all(abs(a - b) < 4 for a, b in zip(decode(made.address).getpixel((5, 5)), (200, 40, 90), strict=True))


@pytest.mark.parametrize("max_bytes", [60_000, 12_000, 2_000])
def test_a_thumbnail_keeps_to_its_bytes(tmp_path: Path, max_bytes: int) -> None:
    """First by quality, then by size, however noisy the picture is."""
    made = make_thumbnail(noise(tmp_path / "a.png", (500, 500)), (400, 400), max_bytes)

    assert made is not None
    assert len(base64.b64decode(made.address.partition(",")[2])) <= max_bytes


def test_what_is_no_picture_is_none(tmp_path: Path) -> None:
    """Torn files, other files, folders and missing ones; the others of the list are made."""
    sound = noise(tmp_path / "sound.png", (50, 50))
    (tmp_path / "torn.png").write_bytes(sound.read_bytes()[:500])
    (tmp_path / "text.png").write_text("<svg/>")
    (tmp_path / "folder.png").mkdir()
    names = ("torn", "text", "folder", "none", "sound")

    made = make_thumbnails([tmp_path / f"{name}.png" for name in names], (20, 20), 9_000)

    assert [one is None for one in made] == [True, True, True, True, False]


def test_a_huge_picture_is_left_out(tmp_path: Path) -> None:
    """Its size is read before it is decoded."""
    Image.new("1", (9000, 9000)).save(tmp_path / "huge.png")

    assert make_thumbnail(tmp_path / "huge.png", (20, 20), 9_000) is None


def test_pages_are_thinned_evenly() -> None:
    """The first and the last stay."""
    assert thin_evenly(range(100), 4) == [0, 33, 66, 99]
    assert thin_evenly([1, 2], 4) == [1, 2]
    assert thin_evenly([], 4) == []
