"""Letters as styles: a folder for each letter, and in it a picture of 64 px for each font that your system has.

    python examples/glyphs.py glyphs                     # A to Z, of all fonts that are installed
    python examples/glyphs.py glyphs --fonts FOLDER      # of those below a folder instead
    latentart init my-glyphs --preset demo --data glyphs

Some hundred fonts are wanted. A font without a letter is skipped, and so is a letter that looks like another font's.
"""

from __future__ import annotations

import argparse
import string
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from matplotlib.font_manager import findSystemFonts
from matplotlib.ft2font import FT2Font
from PIL import Image, ImageDraw, ImageFont

SIDE = 64
INK = 48  # pixels of a letter's longer side
COARSE = 16  # pixels of the pictures that are compared
ALIKE = 3.0  # gray levels between two of them, in the mean, below which they are one


def main() -> None:
    """Read the command line, and say how many pictures there are now."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="where the folders of the letters go")
    parser.add_argument("--letters", default=string.ascii_uppercase, help="which (A to Z)")
    parser.add_argument("--fonts", type=Path, action="append", help="a folder of fonts, in place of the system's")
    given = parser.parse_args()
    if not given.letters.isalnum():
        parser.error("--letters takes letters and digits, as ABC123")
    count = draw_letters(find_fonts(given.fonts), given.letters, given.folder)
    print(f"{count:,} pictures in {given.folder}")


def find_fonts(folders: Iterable[Path] | None = None) -> list[Path]:
    """Return the font files below some folders, or below those in which this system keeps its fonts."""
    return sorted(map(Path, findSystemFonts(folders and list(map(str, folders)))))


def draw_letters(fonts: Iterable[Path], letters: str, folder: Path) -> int:
    """Draw each letter of each font that has it, black on white; return how many pictures there are."""
    kept = {letter: np.empty((0, COARSE**2), dtype=np.float32) for letter in letters}
    for font in fonts:
        for letter, picture in pictures_of(font, letters):
            coarse = np.asarray(picture.resize((COARSE, COARSE)), dtype=np.float32).reshape(1, -1)
            if (np.abs(kept[letter] - coarse).mean(axis=1) < ALIKE).any():
                continue
            kept[letter] = np.concatenate((kept[letter], coarse))
            target = folder / (f"small_{letter}" if letter.islower() else letter)  # a and A may be one to a disk
            target.mkdir(parents=True, exist_ok=True)
            picture.save(target / f"{len(kept[letter]):04}_{font.stem}.png")
    return sum(map(len, kept.values()))


def pictures_of(font: Path, letters: str) -> Iterator[tuple[str, Image.Image]]:
    """Yield each of the letters that a font has, drawn; of what is no font that can be read nothing."""
    try:
        has, trial = FT2Font(str(font)), ImageFont.truetype(font, SIDE)
    except (OSError, RuntimeError):
        return
    for letter in letters:
        left, top, right, bottom = trial.getbbox(letter)
        longest = max(right - left, bottom - top)
        if has.get_char_index(ord(letter)) and longest >= 1:
            yield letter, draw(letter, ImageFont.truetype(font, SIDE * INK / longest))


def draw(letter: str, font: ImageFont.FreeTypeFont) -> Image.Image:
    """Return a letter in the middle of a white picture."""
    picture = Image.new("L", (SIDE, SIDE), "white")
    left, top, right, bottom = font.getbbox(letter)
    ImageDraw.Draw(picture).text(((SIDE - left - right) / 2, (SIDE - top - bottom) / 2), letter, "black", font)
    return picture


if __name__ == "__main__":
    main()
