"""Pixels → latents and back through a trained autoencoder: two inverses, in the normalization the denoiser works in."""

from __future__ import annotations

import torch
from torch import Tensor

from latentart.core.latents import LatentNormalizer, split_moments
from latentart.core.networks.autoencoder import Autoencoder
from latentart.core.networks.tiling import TILE, decode_tiled, encode_tiled
from latentart.core.pixels import to_images, to_pixels
from latentart.process.devices import Placement


@torch.no_grad()
def encode_pixels(
    pixels: Tensor, autoencoder: Autoencoder, normalizer: LatentNormalizer, placement: Placement
) -> Tensor:
    """Return normalized latents ``[B, Z, h, w]`` float32 of pixels uint8 ``[B, 3, H, W]``: the posterior's mean.

    Raises:
        ValueError: a side is no multiple of the autoencoder's factor.
    """
    images = to_images(pixels.to(placement.device))
    with placement.autocast():
        mean, _ = split_moments(encode_tiled(autoencoder, images))
    return normalizer.normalize(mean)


@torch.no_grad()
def decode_latents(
    latents: Tensor, autoencoder: Autoencoder, normalizer: LatentNormalizer, placement: Placement
) -> Tensor:
    """Return pixels uint8 ``[B, 3, H, W]``, on the CPU, of normalized latents ``[B, Z, h, w]`` on the device.

    So many pictures at once are decoded as fill one tile.
    """
    at_once = max(1, TILE**2 // (latents.shape[-1] * latents.shape[-2] * autoencoder.factor**2))
    made = []
    for part in torch.split(normalizer.denormalize(latents), at_once):
        with placement.autocast():
            made.append(to_pixels(decode_tiled(autoencoder, part)).cpu())
    return torch.cat(made)
