"""The examples run: what they show of the package is still there."""

from __future__ import annotations

import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from latentart.config.presets import PRESETS
from latentart.config.workspace import load_config, resolve

Run = Callable[..., Any]
EXAMPLES = Path(__file__).parents[2] / "examples"


def load(name: str) -> dict[str, Any]:
    """Return what an example defines, without running its last part."""
    return runpy.run_path(str(EXAMPLES / name))


def test_the_example_config_is_the_preset() -> None:
    """It is complete, valid, and what `config show` writes."""
    text = (EXAMPLES / "wikiart.json").read_text(encoding="utf-8")

    assert text == resolve({"preset": "wikiart-256"}).to_text()
    assert load_config(EXAMPLES / "wikiart.json").preset in PRESETS


def test_eight_images_are_learned() -> None:
    """Thirty steps halve the loss, and the page shows both rows."""
    torch.manual_seed(0)
    example = load("overfit_eight_images.py")
    images = example["draw_eight"](16)
    autoencoder = example["build_small"]()

    losses = list(example["overfit"](autoencoder, images, 30))
    page, psnr = example["compare"](autoencoder, images)

    assert losses[-1] < 0.5 * losses[0]
    assert psnr > 12
    assert page.height == 2 * (16 + 2) + 2


def test_pictures_drawn_from_python_are_those_of_the_command(run: Run, workspace: Path) -> None:
    """The same model, style, seed and settings give the same picture either way."""
    example = load("sample_from_python.py")
    run(workspace, "sample", "-s", "Cubism", "-n", "2", "--separate", "--out", "drawn", "-c", "latentart.json")
    settings = example["SamplerSettings"](steps=3, guidance=2.0)

    pictures = example["draw"](workspace / "runs/ldm/model", "Cubism", [0, 1], settings)

    for seed, picture in enumerate(pictures):
        with Image.open(workspace / f"drawn/Cubism_seed{seed}.png") as drawn:
            difference = np.abs(np.int16(picture) - np.int16(drawn))
        assert difference.max() <= 16, "precision is left to the machine here"
