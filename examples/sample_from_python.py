"""Draw pictures from Python: load a model folder, choose a style and seeds, get Pillow images.

Run: python examples/sample_from_python.py my-art/runs/ldm/model High_Renaissance portraits.png
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from latentart.data.datasets import picture_from
from latentart.data.pictures.grids import tile_grid
from latentart.model.folder import load_model, require_denoiser
from latentart.model.generate import Generator, SamplerSettings
from latentart.process.devices import Placement, choose_device


def draw(folder: Path, style: str, seeds: Sequence[int], settings: SamplerSettings) -> list[Image.Image]:
    """Return one picture per seed; the same seed gives the same picture, whatever is drawn beside it."""
    placement = Placement(choose_device())
    model = load_model(folder, placement)
    denoiser, task = require_denoiser(model, folder)
    generator = Generator(model.autoencoder, denoiser, model.normalizer, task, placement, model.resolution)
    pixels = generator([model.style_id(style)] * len(seeds), seeds, settings)
    return [picture_from(one) for one in pixels]


if __name__ == "__main__":
    model_folder, style_name, out = sys.argv[1:]
    pictures = draw(Path(model_folder), style_name, range(4), SamplerSettings(steps=30, eta=0.8, guidance=2.0))
    tile_grid(pictures, 1, len(pictures)).save(out)
