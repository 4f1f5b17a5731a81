"""Draw pictures from Python: load a model folder, choose a style and seeds, get Pillow images.

Run: python examples/sample_from_python.py my-art/runs/ldm/model High_Renaissance portraits
The same seed gives the same picture, whatever is drawn beside it.
"""

from __future__ import annotations

import sys
from pathlib import Path

import latentart


def draw(folder: Path, style: str, out: Path) -> list[Path]:
    """Draw four pictures of a style into a folder and return their files."""
    model = latentart.load(folder)
    out.mkdir(parents=True, exist_ok=True)
    files = []
    for seed, picture in enumerate(model.sample(style, seeds=range(4), steps=30, eta=0.8, guidance=2.0)):
        files.append(out / f"{style}_seed{seed}.png")
        picture.save(files[-1])
    return files


if __name__ == "__main__":
    try:
        for path in draw(Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3])):
            print(path)
    except latentart.LatentArtError as error:  # no such model, no such style: one line says what and what to do
        sys.exit(str(error))
