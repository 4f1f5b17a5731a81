"""The examples run: what they show of the package is still there."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import pytest
import torch

from latentart.config.presets import PRESETS
from latentart.config.workspace import load_config, resolve

EXAMPLES = Path(__file__).parents[1] / "examples"


def load(name: str) -> dict[str, Any]:
    """Return what an example defines, without running its last part."""
    return runpy.run_path(str(EXAMPLES / name))


def test_the_example_config_is_the_preset() -> None:
    """It is complete, valid, and what `config show` writes."""
    text = (EXAMPLES / "wikiart.json").read_text(encoding="utf-8")

    assert text == resolve({"preset": "wikiart-256"}).to_text()
    assert load_config(EXAMPLES / "wikiart.json").preset in PRESETS


def test_eight_images_are_learned() -> None:
    """A few steps bring the loss down, and the page shows both rows."""
    torch.manual_seed(0)
    example = load("overfit_eight_images.py")
    images = example["draw_eight"](16)
    autoencoder = example["build_small"]()

    losses = list(example["overfit"](autoencoder, images, 25))
    page, psnr = example["compare"](autoencoder, images)

    assert losses[-1] < 0.8 * losses[0]
    assert psnr > 5
    assert page.height == 2 * (16 + 2) + 2


def test_the_sampling_example_needs_a_model(tmp_path: Path) -> None:
    """What it imports exists; without a model it ends with the known error."""
    example = load("sample_from_python.py")

    with pytest.raises(example["load_model"].__globals__["ModelError"], match="there is no model at"):
        example["draw"](tmp_path, "Cubism", [0], example["SamplerSettings"]())
