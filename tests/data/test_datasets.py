"""Squares for training: where they are cut, that chance is a function of the key, and what a lost file says."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from latentart.data.datasets import Crop, PictureDataset, picture_from, pixels_from
from latentart.data.index import IndexEntry
from latentart.errors import DataError


def write_pictures(root: Path, sizes: list[tuple[int, int]]) -> list[IndexEntry]:
    """Write pictures of noise, each another, in two styles, and return their entries."""
    entries = []
    for number, (width, height) in enumerate(sizes):
        noise = np.random.default_rng(number).integers(0, 256, (height, width, 3), dtype=np.uint8)
        Image.fromarray(noise).save(root / f"{number}.png")
        style = "Cubism" if number % 2 else "Pop_Art"
        entries.append(IndexEntry(f"{number}.png", f"{number}.png", style, "", width, height))
    return entries


def build(root: Path, crop: Crop, **settings: int) -> PictureDataset:
    """Return four oblong pictures as squares."""
    entries = write_pictures(root, [(24, 16), (16, 24), (20, 20), (40, 16)])
    return PictureDataset(root, entries, ["Cubism", "Pop_Art"], crop, **settings)


@given(
    width=st.integers(1, 5000),
    height=st.integers(1, 5000),
    min_crop=st.floats(0.01, 1.0),
    epoch=st.integers(0, 1000),
    index=st.integers(0, 10**6),
    is_random=st.booleans(),
)
def test_the_box_is_a_square_inside_the_picture(
    width: int, height: int, min_crop: float, epoch: int, index: int, is_random: bool
) -> None:
    """For every picture and every chance, to the last bit: Pillow refuses a box that leaves the picture."""
    box, mirrored = Crop(64, 7, min_crop=min_crop, is_random=is_random).box(width, height, epoch, index)

    left, top, right, bottom = box
    assert 0 <= left < right <= width
    assert 0 <= top < bottom <= height
    assert right - left == pytest.approx(bottom - top, abs=1e-9)
    assert min(width, height) * min_crop - 1e-9 <= right - left <= min(width, height)
    assert not mirrored


def test_the_box_is_a_function_of_seed_epoch_and_index_alone() -> None:
    """Asked again it is the same; any of the three changed makes another."""
    crop = Crop(64, 3, min_crop=0.5)

    boxes = [crop.box(300, 200, epoch, index) for epoch, index in [(0, 0), (0, 0), (1, 0), (0, 1)]]
    boxes.append(Crop(64, 4, min_crop=0.5).box(300, 200, 0, 0))

    assert boxes[0] == boxes[1]
    assert len(set(boxes)) == 4


def test_boxes_reach_both_edges_and_every_size() -> None:
    """Over many pictures the crop is uniform in size and place."""
    crop = Crop(64, 0, min_crop=0.5)

    boxes = [crop.box(100, 100, 0, index)[0] for index in range(2000)]
    sides = [right - left for left, _, right, _ in boxes]
    places = [left / (100 - side) for (left, _, _, _), side in zip(boxes, sides, strict=True)]

    assert min(sides) < 51 < 99 < max(sides)
    assert sum(sides) / 2000 == pytest.approx(75, abs=1)
    assert min(places) < 0.01 < 0.99 < max(places)
    assert sum(places) / 2000 == pytest.approx(0.5, abs=0.02)


def test_half_of_the_squares_are_mirrored_where_that_is_wanted() -> None:
    """With flip about half, by the key alone; without it none."""
    mirrored = [Crop(8, 0, flip=True).box(20, 20, 0, index)[1] for index in range(2000)]
    plain = [Crop(8, 0, flip=False).box(20, 20, 0, index)[1] for index in range(2000)]

    assert sum(mirrored) == pytest.approx(1000, abs=100)
    assert not any(plain)


@pytest.mark.parametrize(
    ("size", "box"), [((30, 20), (5, 0, 25, 20)), ((20, 30), (0, 5, 20, 25)), ((21, 20), (0.5, 0, 20.5, 20))]
)
def test_without_chance_the_box_is_the_largest_in_the_middle(
    size: tuple[int, int], box: tuple[float, float, float, float]
) -> None:
    """Whatever the epoch, the index and the other settings."""
    crop = Crop(8, 0, min_crop=0.3, flip=True, is_random=False)

    assert [crop.box(*size, epoch, index) for epoch in range(3) for index in range(3)] == [(box, False)] * 9


def test_an_item_is_pixels_style_and_index(tmp_path: Path) -> None:
    """Pixels are uint8 [3, R, R]; the style is its place among the given names."""
    dataset = build(tmp_path, Crop(8, 0))

    items = [dataset[(0, index)] for index in range(4)]

    assert len(dataset) == 4
    assert {(tuple(pixels.shape), pixels.dtype) for pixels, _, _ in items} == {((3, 8, 8), torch.uint8)}
    assert [(style, index) for _, style, index in items] == [(1, 0), (0, 1), (1, 2), (0, 3)]


def test_the_middle_at_full_size_is_the_picture_itself(tmp_path: Path) -> None:
    """No resampling blurs what already has the size."""
    dataset = build(tmp_path, Crop(16, 0, is_random=False))

    pixels, _, _ = dataset[(0, 0)]

    with Image.open(tmp_path / "0.png") as picture:
        assert torch.equal(pixels, torch.from_numpy(np.array(picture)[:, 4:20]).permute(2, 0, 1))


def test_mirroring_turns_left_and_right(tmp_path: Path) -> None:
    """Among some epochs of one square picture at full size there are its plain and its mirrored self."""
    dataset = build(tmp_path, Crop(20, 0, flip=True))
    plain = PictureDataset(tmp_path, dataset.entries, ["Cubism", "Pop_Art"], Crop(20, 0))[(0, 2)][0]

    seen = [dataset[(epoch, 2)][0] for epoch in range(12)]

    same, turned = ([torch.equal(pixels, wanted) for pixels in seen] for wanted in (plain, plain.flip(-1)))
    assert any(same)
    assert any(turned)
    assert all(a or b for a, b in zip(same, turned, strict=True))


@pytest.mark.parametrize("memory_bytes", [0, 24 * 16 * 3, 10**6])
def test_memory_changes_nothing_but_speed(tmp_path: Path, memory_bytes: int) -> None:
    """Pictures kept decoded give the same squares, and no more are kept than the limit allows."""
    crop = Crop(8, 5, min_crop=0.5, flip=True)
    expected = [build(tmp_path, crop, memory_bytes=0)[(epoch, i)][0] for epoch in range(2) for i in range(4)]
    dataset = build(tmp_path, crop, memory_bytes=memory_bytes)

    squares = [dataset[(epoch, i)][0] for epoch in range(2) for i in range(4)]

    assert all(torch.equal(a, b) for a, b in zip(squares, expected, strict=True))
    kept = sum(picture.width * picture.height * 3 for picture in dataset._decoded.values())
    assert kept <= memory_bytes


@pytest.mark.parametrize("damage", ["gone", "empty", "cut", "html", "folder"])
def test_a_lost_or_broken_file_is_a_data_error(tmp_path: Path, damage: str) -> None:
    """The message names the file and what to run."""
    dataset = build(tmp_path, Crop(8, 0))
    path = tmp_path / "1.png"
    content = path.read_bytes()
    path.unlink()
    if damage == "folder":
        path.mkdir()
    elif damage != "gone":
        path.write_bytes({"empty": b"", "cut": content[: len(content) // 2], "html": b"<html></html>"}[damage])

    with pytest.raises(DataError, match=r"1\.png is gone or broken.*latentart clean-data"):
        dataset[(0, 1)]


def test_picture_from_is_the_inverse_of_pixels_from() -> None:
    """Red stays red, rows stay rows."""
    noise = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    picture = Image.fromarray(noise)

    pixels = pixels_from(picture)

    assert pixels.shape == (3, 5, 7)
    assert pixels[0, 2, 6] == noise[2, 6, 0]
    assert np.array_equal(np.array(picture_from(pixels)), noise)
    assert torch.equal(pixels_from(picture_from(pixels)), pixels)
