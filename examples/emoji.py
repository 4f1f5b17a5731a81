"""A first real data set: 1,900 emoji of 64 px in nine folders by category, from Google's Noto (Apache-2.0).

They are in the npm package emoji-datasource-google (74 MB), which is fetched only when you say so:

    python examples/emoji.py emoji --fetch              # by `npm pack`, from the registry that npm is set to
    python examples/emoji.py emoji --package FILE.tgz   # or a folder, where you have it already
    latentart init my-emoji --preset demo --data emoji

`--skin-tones` adds every other color of skin: twice as many, mostly people.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

PACKAGE = "emoji-datasource-google@16.0.0"
SIDE = 64
FEWEST = 8  # pictures of a category: the five patches of skin color are no style


def main() -> None:
    """Read the command line, and say how many pictures there are now."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="where the folders of the categories go")
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--fetch", action="store_true", help=f"fetch {PACKAGE} with npm")
    source.add_argument("--package", type=Path, help="the package, as a .tgz or unpacked")
    parser.add_argument("--skin-tones", action="store_true", help="also every other color of skin")
    given = parser.parse_args()
    if given.fetch:
        count = fetch(given.folder, skin_tones=given.skin_tones)
    else:
        count = lay_by_category(given.package, given.folder, skin_tones=given.skin_tones)
    print(f"{count:,} pictures in {given.folder}")


def fetch(folder: Path, *, skin_tones: bool = False) -> int:
    """Fetch the package and lay out its pictures; return how many there are."""
    npm = shutil.which("npm")
    if npm is None:
        sys.exit("npm is not here: install it, or bring the package and name it with --package.")
    with tempfile.TemporaryDirectory() as scratch:
        subprocess.run([npm, "pack", "--silent", PACKAGE], cwd=scratch, check=True, stdout=subprocess.DEVNULL)  # noqa: S603
        return lay_by_category(next(Path(scratch).glob("*.tgz")), folder, skin_tones=skin_tones)


def lay_by_category(package: Path, folder: Path, *, skin_tones: bool = False) -> int:
    """Write every picture of a package, on white, into the folder of its category; return how many there are."""
    if package.is_file():
        with tempfile.TemporaryDirectory() as scratch, tarfile.open(package) as archive:
            archive.extractall(scratch, filter="data")
            return lay_by_category(Path(scratch) / "package", folder, skin_tones=skin_tones)
    read, by_category = picture_reader(package), dict[str, list[dict[str, Any]]]()
    for emoji, category in each(package, skin_tones=skin_tones):
        by_category.setdefault(category, []).append(emoji)
    count = 0
    for category, several in by_category.items():
        if len(several) < FEWEST:
            continue
        target = folder / re.sub(r"\W+", "_", category)
        target.mkdir(parents=True, exist_ok=True)
        for emoji in several:
            read(emoji).save(target / Path(emoji["image"]).name)
        count += len(several)
    return count


def each(package: Path, *, skin_tones: bool) -> Iterator[tuple[dict[str, Any], str]]:
    """Yield what the package says of each picture that it has, and its category."""
    for emoji in json.loads((package / "emoji.json").read_text(encoding="utf-8")):
        tones = emoji.get("skin_variations", {}).values() if skin_tones else ()
        yield from ((one, emoji["category"]) for one in (emoji, *tones) if one["has_img_google"])


def picture_reader(package: Path) -> Callable[[dict[str, Any]], Any]:
    """Return what gives an emoji's picture on white, from a file of its own or else from the one sheet of all."""
    from PIL import Image  # not above: `.ci/gpu` imports this where Pillow is still to come

    singles = package / "img/google/64"
    sheet = None if singles.is_dir() else Image.open(package / "img/google/sheets/64.png").convert("RGBA")

    def read(emoji: dict[str, Any]) -> Image.Image:
        if sheet is None:
            drawn = Image.open(singles / Path(emoji["image"]).name).convert("RGBA")
        else:  # whose cells have an edge of one pixel
            left, top = (emoji[axis] * (SIDE + 2) + 1 for axis in ("sheet_x", "sheet_y"))
            drawn = sheet.crop((left, top, left + SIDE, top + SIDE))
        white = Image.new("RGBA", drawn.size, "white")
        return Image.alpha_composite(white, drawn).convert("RGB")

    return read


if __name__ == "__main__":
    main()
