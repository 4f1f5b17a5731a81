"""The pictures of an evaluation: right cells are dark, wrong ones red, pairs stand side by side."""

from __future__ import annotations

from pathlib import Path

import torch
from PIL import Image

from latentart.scoring.evaluation_pictures import CELL, FULL, MISTAKEN, draw_confusion, draw_pairs


def cell(picture: Image.Image, row: int, column: int, count: int) -> object:
    """Return the color in a cell's corner."""
    left, top = picture.width - 8 - (count - column) * CELL, picture.height - 8 - (count - row) * CELL
    return picture.getpixel((left + 2, top + 2))


def test_a_cell_is_as_dark_as_its_share(tmp_path: Path) -> None:
    """All of a style on the diagonal, all of one in a wrong place, none; names of any letters, and a style without."""
    names = ["Ukiyo_e", "<b>$x$", "浮世絵", "Empty"]
    matrix = torch.tensor([[9, 0, 0, 0], [4, 0, 0, 0], [0, 0, 500, 1], [0, 0, 0, 0]])
    draw_confusion(matrix, names, tmp_path / "confusion.png", "Samples")

    with Image.open(tmp_path / "confusion.png") as picture:
        assert cell(picture, 0, 0, 4) == FULL
        assert cell(picture, 1, 0, 4) == MISTAKEN
        assert cell(picture, 1, 1, 4) == cell(picture, 3, 3, 4) == (244, 244, 244)
        assert cell(picture, 2, 3, 4) not in ((244, 244, 244), MISTAKEN)


def test_pairs_stand_side_by_side(tmp_path: Path) -> None:
    """The sample on the left, its neighbor on the right, both as large."""
    pairs = [(Image.new("RGB", (8, 8), "red"), Image.new("RGB", (30, 30), "blue"), "0.10 copy")] * 2
    draw_pairs(pairs, tmp_path / "closest.png", 64)

    with Image.open(tmp_path / "closest.png") as picture:
        assert picture.height == 2 * (64 + 2) + 2
        assert picture.getpixel((picture.width - 2 * 66 + 5, 80)) == (255, 0, 0)
        assert picture.getpixel((picture.width - 5, 80)) == (0, 0, 255)
