"""A font that has the letters of a label: Pillow's own knows ASCII alone, and styles have names in any writing."""

from __future__ import annotations

import itertools
import logging
import sys
from collections.abc import Iterator
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import TypeAlias

from PIL import ImageFont

Font: TypeAlias = "ImageFont.ImageFont | ImageFont.FreeTypeFont"

logger = logging.getLogger(__name__)

NO_LETTER = "\U0010fffe"  # which no font has: it is drawn as a box
MOST_TRIED = 2000
LONGEST_CODE = 48
FOLDERS = {
    "darwin": ("/System/Library/Fonts", "/Library/Fonts", "~/Library/Fonts"),
    "win32": ("C:/Windows/Fonts", "~/AppData/Local/Microsoft/Windows/Fonts"),
}
USUAL_FOLDERS = ("/usr/share/fonts", "/usr/local/share/fonts", "~/.local/share/fonts", "~/.fonts")
WIDE = ("cjk", "unicode", "unifont", "fallback", "wqy", "noto", "pingfang", "hiragino", "msyh", "gothic", "malgun")
SLANTED = ("bold", "italic", "black", "light", "thin", "oblique")


def drawable(text: str, size: int) -> tuple[str, Font]:
    """Return a text and a font of that size in pixels that has all its letters.

    Where no font of this machine has them, that is logged, and they are written as code: U+65E5 by a backslash, u65e5.
    """
    default = ImageFont.load_default(size=size)
    letters = "".join(sorted({letter for letter in text if not letter.isspace()}))
    if _has_all(default, letters):
        return text, default
    if path := _find_font(letters):
        return text, ImageFont.truetype(str(path), size)
    missing = "".join(letter for letter in letters if ord(letter) > 127)[:20]
    logger.warning("no font of this machine has all the letters %s: labels show codes; Noto Sans has them", missing)
    coded = text.encode("ascii", "backslashreplace").decode("ascii")
    return coded if len(coded) <= LONGEST_CODE else f"{coded[: LONGEST_CODE - 3]}...", default


@cache
def _find_font(letters: str) -> Path | None:
    for path in itertools.islice(itertools.chain(_fonts_of_matplotlib(), _fonts_of_system()), MOST_TRIED):
        try:
            if _has_all(ImageFont.truetype(str(path), 16), letters):
                return path
        except OSError:  # no font, or of a kind that is not read
            continue
    return None


def _has_all(font: Font, letters: str) -> bool:
    box = _shape(font, NO_LETTER)
    return all(_shape(font, letter) != box for letter in letters)


def _shape(font: Font, letter: str) -> tuple[tuple[int, int], bytes]:
    mask = font.getmask(letter)
    return mask.size, bytes(mask)


def _fonts_of_matplotlib() -> list[Path]:
    spec = find_spec("matplotlib")  # found, not imported: that writes files into the home folder
    places = spec.submodule_search_locations if spec else None
    paths = [Path(place) / "mpl-data/fonts/ttf/DejaVuSans.ttf" for place in places or ()]
    return [path for path in paths if path.is_file()]


def _fonts_of_system() -> Iterator[Path]:
    paths: list[Path] = []
    for name in FOLDERS.get(sys.platform, USUAL_FOLDERS):
        try:
            folder = Path(name).expanduser()
            paths += [path for path in folder.rglob("*") if path.suffix.lower() in (".ttf", ".ttc", ".otf")]
        except (OSError, RuntimeError):  # no home, or no permission
            continue
    yield from sorted(paths, key=_rank)


def _rank(path: Path) -> tuple[bool, bool, str]:
    """Return what sorts fonts: those of many letters come first, and of these the upright ones of usual weight."""
    name = path.name.lower()
    return not any(word in name for word in WIDE), any(word in name for word in SLANTED), str(path)
