"""`latentart reconstruct IMAGE…`: picture, reconstruction and error map side by side.

Launch: ``latentart reconstruct photo.jpg`` in a workspace with a trained autoencoder.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image

from latentart.core.latents import split_moments
from latentart.core.pixels import to_images, to_pixels
from latentart.data.datasets import picture_from, pixels_from
from latentart.data.grids import save_png, tile_grid
from latentart.data.images import BadImage, decode_image
from latentart.errors import DataError
from latentart.recipes.model import Model, load_model
from latentart.scoring.reconstruction import psnr_per_image
from latentart.training.devices import Placement


@dataclass(frozen=True)
class Reconstruction:
    """One picture's outcome: mean absolute error in 0…255, PSNR in dB, and the page that shows it."""

    source: Path
    error: float
    psnr: float
    page: Path


def reconstruct(images: Sequence[Path], model_folder: Path, out: Path, placement: Placement) -> list[Reconstruction]:
    """Send each picture through the autoencoder and write a page for it into ``out``; nothing is overwritten.

    Raises:
        ModelError: there is no trained autoencoder.
        DataError: a picture cannot be read.
    """
    model = load_model(model_folder, placement)
    pictures = []
    for path in images:
        try:
            pictures.append(fit(decode_image(path), model.resolution, model.autoencoder.factor))
        except BadImage as error:
            msg = f"{path} is no picture that can be used: {error}."
            raise DataError(msg) from None
    return [
        reconstruct_one(path, picture, model, out, placement) for path, picture in zip(images, pictures, strict=True)
    ]


def fit(picture: Image.Image, resolution: int, factor: int) -> Image.Image:
    """Return the picture with its shorter side at ``resolution``, trimmed in the middle to multiples of the factor."""
    scale = resolution / min(picture.size)
    size = [max(resolution, round(side * scale)) for side in picture.size]
    picture = picture.resize((size[0], size[1]), Image.Resampling.LANCZOS)
    width, height = (side // factor * factor for side in size)
    left, top = (size[0] - width) // 2, (size[1] - height) // 2
    return picture.crop((left, top, left + width, top + height))


@torch.no_grad()
def reconstruct_one(path: Path, picture: Image.Image, model: Model, out: Path, placement: Placement) -> Reconstruction:
    """Reconstruct one fitted picture from its posterior's mean and write its page."""
    images = to_images(pixels_from(picture)[None].to(placement.device))
    with placement.autocast():
        mean, _ = split_moments(model.autoencoder.encode(images))
        images_hat = model.autoencoder.decode(mean)
    again = to_pixels(images_hat)[0].cpu()
    difference = (again.float() - pixels_from(picture).float()).abs()
    error_map = (difference * 4).clamp(0, 255).to(torch.uint8)
    page = tile_grid([picture, picture_from(again), picture_from(error_map)], 1, 3)
    name = "".join(c if c.isalnum() or c in "-_." else "_" for c in path.stem)[:80] or "picture"
    target, number = out / f"{name}.png", 1
    while target.exists():
        number += 1
        target = out / f"{name}_{number}.png"
    psnr = float(psnr_per_image(images_hat, images)[0])
    save_png(page, target, {"latentart": "picture, reconstruction, absolute error times 4"})
    return Reconstruction(path, float(difference.mean()), psnr, target)
