"""`latentart reconstruct IMAGE…`: picture, reconstruction and error map side by side.

Launch: ``latentart reconstruct photo.jpg`` in a workspace with a trained autoencoder; ``--size 2048`` for a large page.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from latentart.core.latents import split_moments
from latentart.core.losses import psnr_per_image
from latentart.core.networks.tiling import TILE, decode_tiled, encode_tiled
from latentart.core.pixels import to_images, to_pixels
from latentart.data.datasets import picture_from, pixels_from
from latentart.data.pictures.decode import MAX_PIXELS, WHITE, decode_image
from latentart.data.pictures.formats import BadImage
from latentart.data.pictures.grids import save_png, tile_grid
from latentart.errors import DataError, UsageError
from latentart.model.folder import Model, load_model
from latentart.process.devices import Placement
from latentart.sampling.request import MAX_ASPECT
from latentart.sampling.room import require_room_to_pass


@dataclass(frozen=True)
class Reconstruction:
    """One picture's outcome: mean absolute error in 0…255, PSNR in dB, and the page that shows it."""

    source: Path
    error: float
    psnr: float
    page: Path


def reconstruct(
    images: Sequence[Path], model_folder: Path, out: Path, placement: Placement, *, size: int | None = None
) -> list[Reconstruction]:
    """Send each picture through the autoencoder and write a page for it into ``out``; nothing is overwritten.

    The shorter side goes to ``size`` pixels, else to the model's resolution.

    Raises:
        ModelError: there is no trained autoencoder.
        DataError: a picture cannot be read.
        UsageError: the size is less than one latent, or too much for a picture.
    """
    model = load_model(model_folder, placement)
    side, factor = choose_side(model, size), model.autoencoder.factor
    for path in images:  # before the first page is written; one at a time, as large pictures fill the memory
        refuse_huge(path, fitted_size(open_picture(path), side), model, placement)
    return [reconstruct_one(path, fit(open_picture(path), side, factor), model, out, placement) for path in images]


def choose_side(model: Model, size: int | None) -> int:
    """Return the shorter side that pictures are brought to, in pixels: ``size``, else the model's resolution.

    Raises:
        UsageError: it is less than one latent.
    """
    side, factor = model.resolution if size is None else size, model.autoencoder.factor
    if side < factor:
        msg = f"--size {side} is too small: one latent of this model stands for {factor} pixels."
        raise UsageError(msg, f"Give at least {factor}.")
    return side


def open_picture(path: Path, background: tuple[int, int, int] = WHITE) -> Image.Image:
    """Return the picture in a file; transparent parts show ``background``.

    Raises:
        DataError: it cannot be read.
    """
    try:
        return decode_image(path, background=background)
    except BadImage as error:
        msg = f"{path} is no picture that can be used: {error}."
        raise DataError(msg, "Name a sound JPEG, PNG or TIFF of at most 89 million pixels.") from None


def refuse_huge(path: Path | str, size: tuple[int, int], model: Model, placement: Placement) -> None:
    """Refuse to work at a size that a picture to be read may not have either, or that the memory has no room for.

    Raises:
        UsageError: more pixels than ``MAX_PIXELS``, or a side ``MAX_ASPECT`` times the other.
        ResourceError: too little memory is left.
    """
    if max(size) > MAX_ASPECT * min(size):
        msg = f"{path} would have {size[0]} x {size[1]} pixels: one side is more than {MAX_ASPECT} times the other."
        raise UsageError(msg, "Cut a part out of it; --size is its shorter side.")
    if size[0] * size[1] > MAX_PIXELS:
        msg = f"{path} would have {size[0]} x {size[1]} pixels, and {MAX_PIXELS} are the most."
        raise UsageError(msg, "Give a smaller --size.")
    require_room_to_pass(model.autoencoder, size, placement.device, "Give a smaller --size.", tile=TILE)


def fitted_size(picture: Image.Image, side: int) -> tuple[int, int]:
    """Return width and height of the picture with its shorter side at ``side``."""
    scale = side / min(picture.size)
    return max(side, round(picture.width * scale)), max(side, round(picture.height * scale))


def fit(picture: Image.Image, side: int, factor: int) -> Image.Image:
    """Return the picture with its shorter side at ``side``, trimmed in the middle to multiples of the factor."""
    size = fitted_size(picture, side)
    picture = picture.resize(size, Image.Resampling.LANCZOS)
    width, height = (length // factor * factor for length in size)
    left, top = (size[0] - width) // 2, (size[1] - height) // 2
    return picture.crop((left, top, left + width, top + height))


@torch.no_grad()
def pass_through(picture: Image.Image, model: Model, placement: Placement) -> tuple[Tensor, Tensor]:
    """Return a fitted picture and its reconstruction from the posterior's mean, as images ``[1, 3, H, W]``."""
    images = to_images(pixels_from(picture)[None].to(placement.device))
    with placement.autocast():
        mean, _ = split_moments(encode_tiled(model.autoencoder, images))
        return images, decode_tiled(model.autoencoder, mean)


def reconstruct_one(path: Path, picture: Image.Image, model: Model, out: Path, placement: Placement) -> Reconstruction:
    """Reconstruct one fitted picture and write its page."""
    images, images_hat = pass_through(picture, model, placement)
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
