"""Squares for training: where they are cut, that chance is a function of the key, and what a lost file says."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image

from latentart.data.datasets import Crop, CropSet, PictureDataset, picture_from, pixels_from
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


def build(root: Path, crop: Crop | CropSet, **settings: int) -> PictureDataset:
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
@example(width=2158, height=234, min_crop=1.0, epoch=830, index=44077, is_random=True)
def test_the_box_is_a_square_inside_the_picture(
    width: int, height: int, min_crop: float, epoch: int, index: int, is_random: bool
) -> None:
    """For every picture and every chance, to the last bit: Pillow refuses a box that leaves the picture."""
    box, mirrored = Crop(64, 7, min_crop=min_crop, is_random=is_random).box(width, height, epoch, index)

    left, top, right, bottom = box
    assert 0 <= left < right <= width
    assert 0 <= top < bottom <= height
    assert right - left == pytest.approx(bottom - top, abs=1e-9)
    # 256.4… - 22.4… is 234 and a last bit: the sides themselves lie inside, as said above
    assert min(width, height) * min_crop - 1e-9 <= right - left <= min(width, height) + 1e-9
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
    plain = build(tmp_path, Crop(20, 0))[(0, 2)][0]

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


def test_a_worker_keeps_its_part_of_the_memory(tmp_path: Path) -> None:
    """Four copies of a set together keep no more than one alone."""
    dataset = build(tmp_path, Crop(8, 0), memory_bytes=4 * 24 * 16 * 3)

    dataset.share_memory(4)
    for index in range(4):
        dataset[(0, index)]

    assert list(dataset._decoded) == [0]


def test_a_set_of_crops_cuts_each_as_it_would_alone(tmp_path: Path) -> None:
    """Pixels are uint8 [crops, 3, R, R], in the order of the crops."""
    crops = (Crop(8, 0, is_random=False), Crop(8, 1, min_crop=0.5), Crop(8, 2, min_crop=0.5))
    dataset = build(tmp_path, CropSet(crops))

    pixels, style_id, index = dataset[(0, 3)]

    assert (style_id, index) == (0, 3)
    assert torch.equal(pixels, torch.stack([build(tmp_path, crop)[(0, 3)][0] for crop in crops]))
    assert len({crop.numpy().tobytes() for crop in pixels}) == 3


def damage_file(path: Path, damage: str) -> None:
    """Take a file away, or make another thing of it."""
    content = path.read_bytes()
    path.unlink()
    if damage == "folder":
        path.mkdir()
    elif damage != "gone":
        path.write_bytes({"empty": b"", "cut": content[: len(content) // 2], "html": b"<html></html>"}[damage])


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        ("gone", "No such file or directory"),
        ("empty", "not a picture"),
        ("cut", "image file is truncated"),
        ("html", "not a picture"),
        ("folder", "Is a directory"),
    ],
)
def test_a_lost_or_broken_file_of_a_small_set_is_a_data_error(tmp_path: Path, damage: str, reason: str) -> None:
    """One of four is more than 1 %: the message names the file, says why it does not open, and what to run."""
    dataset = build(tmp_path, Crop(8, 0))
    damage_file(tmp_path / "1.png", damage)

    with pytest.raises(DataError, match=rf"cleaned, 1 of 4: /.*1\.png: {reason}.*latentart clean-data") as caught:
        dataset[(0, 1)]

    assert str(caught.value).count("1.png") == 1
    assert "\n" not in str(caught.value)


def build_many(root: Path, count: int) -> PictureDataset:
    """Return small pictures, each of its own gray."""
    entries = []
    for number in range(count):
        Image.new("RGB", (8, 8), (number % 256,) * 3).save(root / f"{number}.png")
        entries.append(IndexEntry(f"{number}.png", "", "ab"[number % 2], "", 8, 8))
    return PictureDataset(root, entries, ["a", "b"], Crop(8, 0), memory_bytes=0)


@pytest.mark.parametrize(
    ("lost", "wanted", "given"), [([5], 5, 6), ([5, 6], 5, 7), ([199], 199, 0), ([199, 0], 199, 1)]
)
def test_the_next_whole_picture_takes_the_place_of_a_lost_one(
    tmp_path: Path, lost: list[int], wanted: int, given: int
) -> None:
    """It comes as itself: with its own style and index; after the last picture comes the first."""
    dataset = build_many(tmp_path, 200)
    own = dataset[(3, given)]
    for number in lost:
        (tmp_path / f"{number}.png").unlink()

    pixels, style_id, index = dataset[(3, wanted)]

    assert (style_id, index) == (given % 2, given)
    assert torch.equal(pixels, own[0])


def test_more_than_one_in_a_hundred_in_a_row_is_an_error_at_once(tmp_path: Path) -> None:
    """A folder that is gone is not searched to its end: the error comes after the first few."""
    dataset = build_many(tmp_path, 400)
    for path in tmp_path.iterdir():
        path.unlink()

    with pytest.raises(DataError, match=r"cleaned, 5 of 400: /.*7\.png: No such.*; /.*9\.png: No such.* and 2 more\."):
        dataset[(0, 7)]


def test_picture_from_is_the_inverse_of_pixels_from() -> None:
    """Red stays red, rows stay rows."""
    noise = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    picture = Image.fromarray(noise)

    pixels = pixels_from(picture)

    assert pixels.shape == (3, 5, 7)
    assert pixels[0, 2, 6] == noise[2, 6, 0]
    assert np.array_equal(np.array(picture_from(pixels)), noise)
    assert torch.equal(pixels_from(picture_from(pixels)), pixels)
