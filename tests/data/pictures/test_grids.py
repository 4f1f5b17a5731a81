"""Grids: where each tile lies, what a label shows, and settings that come back from the PNG."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image, ImageFont

from latentart.data.pictures.fonts import drawable
from latentart.data.pictures.grids import GAP, printable_label, save_png, tile_grid

MIXED = "🎨浮ह𒀀"  # of writings that no font has together
COLORS = [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0), (0, 255, 255)]


def tiles(count: int, size: tuple[int, int] = (10, 8)) -> list[Image.Image]:
    """Return single-colored pictures."""
    return [Image.new("RGB", size, COLORS[i]) for i in range(count)]


def test_tiles_lie_row_by_row_with_a_gap() -> None:
    """Picture i stands in row i // columns, column i % columns; a gap surrounds every tile; empty cells are white."""
    grid = tile_grid(tiles(5), 2, 3)

    assert grid.size == (3 * (10 + GAP) + GAP, 2 * (8 + GAP) + GAP)
    for i in range(5):
        left, top = GAP + i % 3 * (10 + GAP), GAP + i // 3 * (8 + GAP)
        assert grid.crop((left, top, left + 10, top + 8)).getcolors() == [(80, COLORS[i])]
        assert grid.getpixel((left - 1, top)) == grid.getpixel((left, top - 1)) == (255, 255, 255)
    assert grid.crop((GAP + 2 * (10 + GAP), GAP + 8 + GAP, *grid.size)).getcolors() == [(120, (255, 255, 255))]


def test_labels_stand_left_of_their_rows() -> None:
    """The margin is as wide as the longest label needs; each row has ink in it; the tiles move right, whole."""
    size = (40, 40)
    grid = tile_grid(tiles(2, size), 2, 1, ["Ukiyo_e", "A much longer label"])
    margin = grid.width - (size[0] + 2 * GAP)

    for row in range(2):
        top = GAP + row * (size[1] + GAP)
        assert sum(grid.crop((0, top, margin, top + size[1])).convert("L").histogram()[:100]) > 0  # ink
        tile = grid.crop((margin + GAP, top, margin + GAP + size[0], top + size[1]))
        assert tile.getcolors() == [(1600, COLORS[row])]
    assert grid.crop((margin - 2, 0, margin + GAP, grid.height)).getcolors(1) is not None
    assert tile_grid(tiles(2, size), 2, 1, ["Ukiyo_e", "x"]).width < grid.width


def test_labels_keep_to_their_rows_beside_captions() -> None:
    """Each has its middle where that of its row of pictures is, however high the captions are."""
    rows, size = 3, (40, 30)
    plain = tile_grid(tiles(rows, size), rows, 1, ["H"] * rows)
    margin, head = plain.width - (size[0] + 2 * GAP), 14
    grid = tile_grid(tiles(rows, size), rows, 1, ["H"] * rows, captions=["c"] * rows)

    for row in range(rows):
        top, usual = GAP + row * (head + size[1] + GAP) + head, GAP + row * (size[1] + GAP)
        label = grid.crop((0, top, margin, top + size[1]))
        assert label.tobytes() == plain.crop((0, usual, margin, usual + size[1])).tobytes()


def test_captions_stand_above_their_pictures() -> None:
    """One goes on over the pictures beside it that have none of their own, and is cut where the next begins."""
    size, head = (40, 30), 14
    grid = tile_grid(tiles(4, size), 2, 2, captions=["Ukiyo_e", "", "A much longer caption", "B"])

    assert grid.size == (2 * (40 + GAP) + GAP, 2 * (head + 30 + GAP) + GAP)
    inks = []
    for i in range(4):
        left, top = GAP + i % 2 * (40 + GAP), GAP + i // 2 * (head + 30 + GAP)
        inks.append(sum(grid.crop((left, top, left + 40, top + head)).convert("L").histogram()[:100]))
        assert grid.crop((left, top + head, left + 40, top + head + 30)).getcolors() == [(1200, COLORS[i])]
    assert inks[0] > inks[3] > 0 < inks[2]
    assert inks[1] == 0
    assert grid.crop((GAP + 40, 0, GAP + 40 + GAP, grid.height)).getcolors() == [(GAP * grid.height, (255, 255, 255))]


@pytest.mark.parametrize(("count", "labels"), [(0, []), (5, []), (4, ["one"]), (4, ["a", "b", "c"])])
def test_what_does_not_fit_is_refused(count: int, labels: list[str]) -> None:
    """No pictures, more than cells, or not one label a row."""
    with pytest.raises(ValueError, match="grid: got"):
        tile_grid(tiles(count), 2, 2, labels)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("High_Renaissance", "High Renaissance"),
        ("[bold]red[/bold] <b>&amp;", "[bold]red[/bold] <b>&amp;"),
        ("two\nlines\x1b[31m", "two?lines?[31m"),
        ("\u202eturned", "?turned"),
        ("\udcff", "?"),
        ("日本 Ñ", "日本 Ñ"),
        ("x" * 40, "x" * 40),
        ("x" * 41, "x" * 39 + "…"),
        ("", ""),
    ],
)
def test_labels_are_made_printable(text: str, shown: str) -> None:
    """Markup stays as it is, what cannot be printed becomes '?', and a long name is cut."""
    assert printable_label(text) == shown


@pytest.mark.parametrize("text", ["Art Déco", "Модерн", "Ζωγραφική"])
def test_letters_beyond_ascii_are_drawn_with_a_font_that_has_them(text: str) -> None:
    """No letter is the box of a missing one; ASCII keeps the font it had."""
    shown, font = drawable(text, 20)
    box = bytes(font.getmask("\U0010fffe"))

    assert shown == text
    assert all(bytes(font.getmask(letter)) != box for letter in text if letter != " ")
    assert drawable("Pop Art", 20)[1].getname() == ImageFont.load_default(size=20).getname()


def test_letters_that_no_font_has_are_told_and_written_as_code(caplog: pytest.LogCaptureFixture) -> None:
    """A line names them, and says what would do; nothing is drawn as boxes, and no label grows without bound."""
    shown, font = drawable(f"art {MIXED}", 20)

    assert shown == "art \\U0001f3a8\\u6d6e\\u0939\\U00012000"
    assert font.getname() == ImageFont.load_default(size=20).getname()
    assert "no font of this machine has all the letters" in caplog.text
    assert len(drawable(MIXED * 10, 20)[0]) < 50


def test_a_label_without_a_font_leaves_the_others_theirs() -> None:
    """Each label has its own font: one odd name among the styles turns no other into code."""
    with_odd = tile_grid(tiles(2, (64, 64)), 2, 1, ["Модерн", MIXED])
    alone = tile_grid(tiles(1, (64, 64)), 1, 1, ["Модерн"])
    width = alone.width - 64 - 3 * GAP

    assert with_odd.crop((0, 0, width, 64)).tobytes() == alone.crop((0, 0, width, 64)).tobytes()


@pytest.mark.parametrize("text", ["\udcff\n", "日本", "🎨", "", "x" * 500])
def test_any_label_can_be_drawn(text: str) -> None:
    """No name of a folder can break a grid."""
    grid = tile_grid(tiles(1, (64, 64)), 1, 1, [text])

    assert grid.height == 64 + 2 * GAP
    assert 64 + 2 * GAP <= grid.width < 1000


@pytest.mark.parametrize(
    "value", ["plain", '{"style": "Ukiyo-e", "eta": 0.8}', "日本 🎨 é", "line\nline", "", "x" * 5000]
)
def test_settings_come_back_from_the_png(tmp_path: Path, value: str) -> None:
    """Text chunks hold any text, and the picture is exact."""
    picture = tiles(1)[0]

    save_png(picture, tmp_path / "deep" / "er" / "grid.png", {"latentart": value, "other": "1"})

    with Image.open(tmp_path / "deep" / "er" / "grid.png") as loaded:
        assert loaded.info["latentart"] == value
        assert loaded.info["other"] == "1"
        assert loaded.tobytes() == picture.tobytes()
    assert [path.name for path in (tmp_path / "deep" / "er").iterdir()] == ["grid.png"]


def test_a_style_name_that_is_not_utf_8_can_be_saved(tmp_path: Path) -> None:
    """Folder names hold surrogate escapes; they must not end a run when its pictures are saved."""
    save_png(tiles(1)[0], tmp_path / "grid.png", {"latentart": "caf\udce9"})

    with Image.open(tmp_path / "grid.png") as loaded:
        assert loaded.info["latentart"] == "caf\\udce9"


def test_without_settings_there_is_no_text(tmp_path: Path) -> None:
    """Nothing is written that was not asked for."""
    save_png(tiles(1)[0], tmp_path / "grid.png")

    with Image.open(tmp_path / "grid.png") as loaded:
        assert loaded.info == {}
