"""Model folders of earlier versions load and give what they gave."""

from __future__ import annotations

from pathlib import Path

import torch

from latentart.model.folder import load_model, require_denoiser
from latentart.process.devices import Placement

GOLDEN = Path(__file__).parents[1] / "golden"


@torch.no_grad()
def test_a_folder_of_format_1_gives_the_numbers_it_gave() -> None:
    """Made before there were quantizers: moments, images and predictions are those recorded then."""
    folder = GOLDEN / "model-format-1"
    model = load_model(folder, Placement(torch.device("cpu"), "fp32"))
    denoiser, _ = require_denoiser(model, folder)
    images = torch.linspace(-1, 1, 3 * 16 * 16).view(1, 3, 16, 16)

    moments = model.autoencoder.encode(images)
    images_hat = model.autoencoder.decode(moments[:, :4])
    prediction = denoiser(moments[:, :4], torch.tensor([500]), torch.tensor([1]))

    assert model.style_names == ["Cubism", "High_Renaissance", "Minimalism"]
    for values, places, expected in (
        (moments, [0, 20, 50, 100], [-0.2525367, 0.1937561, -0.1082423, -5.9912319]),
        (images_hat, [0, 100, 500, 700], [-0.0139911, -0.0471129, -0.1129356, 0.0225703]),
        (prediction, [0, 10, 20, 40], [-0.0010496, 0.0023111, -0.0024139, -0.0040480]),
    ):
        torch.testing.assert_close(values.flatten()[places], torch.tensor(expected), atol=1e-5, rtol=1e-4)
