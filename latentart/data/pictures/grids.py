"""Grids of pictures, with labels where rows mean something."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from PIL import Image, ImageDraw
from PIL.PngImagePlugin import PngInfo

from latentart.data.pictures.fonts import Font, drawable
from latentart.data.pictures.marks import XMP_IN_PNG
from latentart.storage.whole import whole_file

GAP = 2
_GROUND = (255, 255, 255)
_INK = (20, 20, 20)


def tile_grid(
    pictures: Sequence[Image.Image],
    rows: int,
    columns: int,
    labels: Sequence[str] = (),
    captions: Sequence[str] = (),
) -> Image.Image:
    """Return pictures of one size in rows and columns, row by row, with one label to the left of each row if given.

    A label may have several lines. ``captions`` stand above the pictures; an empty one goes on with that on its left.

    Raises:
        ValueError: more pictures than cells, or not one label a row.
    """
    if not pictures or len(pictures) > rows * columns:
        msg = f"grid: got {len(pictures)} pictures, expected 1 to {rows * columns}"
        raise ValueError(msg)
    if labels and len(labels) != rows:
        msg = f"grid: got {len(labels)} labels, expected {rows}"
        raise ValueError(msg)
    width, height = pictures[0].size
    font_size = max(10, min(24, height // 5))
    shown = [drawable("\n".join(map(printable_label, text.split("\n"))), font_size) for text in labels]
    margin = max((int(font.getlength(line)) for text, font in shown for line in text.split("\n")), default=-8) + 8
    head = font_size + 4 if captions else 0
    size = (margin + columns * (width + GAP) + GAP, rows * (head + height + GAP) + GAP)
    grid = Image.new("RGB", size, _GROUND)
    draw = ImageDraw.Draw(grid)
    for row, (text, font) in enumerate(shown):
        draw.text((4, GAP + row * (head + height + GAP) + head + height // 2), text, _INK, font=font, anchor="lm")
    for i, picture in enumerate(pictures):
        row, column = divmod(i, columns)
        left, top = margin + GAP + column * (width + GAP), GAP + row * (head + height + GAP) + head
        grid.paste(picture, (left, top))
        if captions and captions[i]:
            end = next((j for j in range(i + 1, (row + 1) * columns) if captions[j]), (row + 1) * columns)
            text, font = drawable(printable_label(captions[i]), font_size)
            text = fitting_text(text, font, (end - i) * (width + GAP) - GAP)
            draw.text((left, top - head // 2), text, _INK, font=font, anchor="lm")
    return grid


def fitting_text(text: str, font: Font, width: int) -> str:
    """Return as much of a text as ``width`` pixels hold, with '…' for the rest."""
    shown = text
    while font.getlength(shown) > width and len(shown) > 1:
        shown = shown[:-2].rstrip() + "…"
    return shown


def printable_label(text: str) -> str:
    """Return a label that a font can draw: underscores as spaces, what is not printable as '?', at most 40 long."""
    shown = "".join(c if c.isprintable() and not 0xD800 <= ord(c) < 0xE000 else "?" for c in text.replace("_", " "))
    return shown if len(shown) <= 40 else shown[:39] + "…"


def save_png(picture: Image.Image, path: Path, settings: Mapping[str, str] | None = None, xmp: str = "") -> None:
    """Write a PNG with ``settings`` as text chunks and a packet ``xmp``; the file appears whole or not at all."""
    info = PngInfo()
    for key, value in (settings or {}).items():
        # a folder's name may hold surrogate escapes, which no PNG can
        info.add_text(key, value.encode("utf-8", "backslashreplace").decode("utf-8"))
    if xmp:
        info.add_itxt(XMP_IN_PNG, xmp)
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as temporary:
        picture.save(temporary, format="PNG", pnginfo=info)
