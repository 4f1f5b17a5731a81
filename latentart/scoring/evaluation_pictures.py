"""The pictures of an evaluation: what is taken for what, and which samples come closest to which training pictures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from latentart.data.pictures.fonts import drawable
from latentart.data.pictures.grids import printable_label, save_png, tile_grid

CELL = 44
INK, GROUND = (20, 20, 20), (255, 255, 255)
FULL, MISTAKEN = (38, 84, 140), (178, 60, 40)


def draw_confusion(matrix: Tensor, names: Sequence[str], path: Path, title: str) -> None:
    """Write the confusion matrix int64 ``[K, K]`` as a picture: a row for each style, in percent of its pictures."""
    shown = [drawable(printable_label(name), 13) for name in names]
    (title, font), small = drawable(title, 13), ImageFont.load_default(size=12)
    margin = max(int(own.getlength(name)) for name, own in shown) + 16
    count, top = len(names), margin + 48
    width = max(margin + count * CELL + 8, int(font.getlength(title)) + 16)
    picture = Image.new("RGB", (width, top + count * CELL + 8), GROUND)
    draw = ImageDraw.Draw(picture)
    draw.text((8, 8), title, INK, font=font)
    draw.text((8, 26), "rows: the style asked for; columns: taken for", INK, font=small)
    for column, (name, own) in enumerate(shown):
        label = Image.new("RGB", (margin - 8, CELL), GROUND)
        ImageDraw.Draw(label).text((2, CELL // 2), name, INK, font=own, anchor="lm")
        picture.paste(label.rotate(90, expand=True), (margin + column * CELL, top - margin + 4))
    for row, (name, own) in enumerate(shown):
        draw.text((8, top + row * CELL + CELL // 2), name, INK, font=own, anchor="lm")
        total = int(matrix[row].sum())
        for column in range(count):
            share = int(matrix[row, column]) / total if total else 0.0
            color = FULL if row == column else MISTAKEN
            left, upper = margin + column * CELL, top + row * CELL
            box = (left, upper, left + CELL - 2, upper + CELL - 2)
            draw.rectangle(box, fill=_mix(color, share) if share else (244, 244, 244))
            if share:
                text = f"{100 * share:.0f}" if share >= 0.005 else "<1"
                place = (left + CELL // 2 - 1, upper + CELL // 2 - 1)
                draw.text(place, text, GROUND if share > 0.5 else INK, font=small, anchor="mm")
    save_png(picture, path)


def _mix(color: tuple[int, int, int], share: float) -> tuple[int, int, int]:
    strength = 0.15 + 0.85 * share
    red, green, blue = (round(255 + (part - 255) * strength) for part in color)
    return red, green, blue


def draw_pairs(pairs: Sequence[tuple[Image.Image, Image.Image, str]], path: Path, side: int) -> None:
    """Write (sample, nearest training picture, label) below each other, squares of ``side`` pixels."""
    pictures = [
        one.resize((side, side), Image.Resampling.LANCZOS) if one.size != (side, side) else one
        for sample, nearest, _ in pairs
        for one in (sample, nearest)
    ]
    save_png(tile_grid(pictures, len(pairs), 2, [label for *_, label in pairs]), path)
