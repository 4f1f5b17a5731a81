"""Use the pieces without a workspace: an autoencoder that learns eight pictures by heart.

Run: python examples/overfit_eight_images.py eight.png
It takes a few minutes on one core. The page shows the pictures over their reconstructions.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator

import torch
from PIL import Image
from torch import Tensor

from latentart.core.latents import kl_per_image, sample_posterior, split_moments
from latentart.core.losses import psnr_per_image, reconstruction_per_image
from latentart.core.networks.autoencoder import Autoencoder, Decoder, Encoder
from latentart.core.networks.blocks import BlockShape
from latentart.core.pixels import to_images, to_pixels
from latentart.data.datasets import picture_from, pixels_from
from latentart.data.pictures.grids import tile_grid
from latentart.data.synthetic.art import STYLES, draw_picture
from latentart.training.steps.optim import RatePlan, build_adamw, set_learning_rate


def draw_eight(side: int) -> Tensor:
    """Return one picture of each embedded style, as images [8, 3, side, side] in -1…1."""
    return to_images(torch.stack([pixels_from(draw_picture(style, 0, 0, (side, side))) for style in STYLES]))


def build_small() -> Autoencoder:
    """Return an autoencoder with f = 4 and 4 latent channels."""
    widths, attention, shape = (32, 48, 64), ("none", "none", "linear"), BlockShape(head_channels=16)
    encoder = Encoder(
        4, widths, num_blocks=1, attention=attention, middle_attention="linear", downsampling="average", shape=shape
    )
    decoder = Decoder(
        4, widths, num_blocks=1, attention=attention, middle_attention="linear", upsampling="nearest", shape=shape
    )
    return Autoencoder(encoder, decoder, latent_channels=4, factor=4)


def overfit(autoencoder: Autoencoder, images: Tensor, steps: int) -> Iterator[float]:
    """Train on the same images at every step, under one cycle of the learning rate, and yield the loss."""
    optimizer = build_adamw(autoencoder.parameters(), lr=1e-3, betas=(0.5, 0.9), weight_decay=0.0)
    for step in range(steps):
        set_learning_rate(optimizer, RatePlan(kind="onecycle", peak=1e-3, total_steps=steps)(step))
        moments = autoencoder.encode(images)
        mean, _ = split_moments(moments)
        images_hat = autoencoder.decode(sample_posterior(moments, torch.randn_like(mean)))
        loss = (reconstruction_per_image(images_hat, images) + 1e-6 * kl_per_image(moments)).mean()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(autoencoder.parameters(), 1.0)
        optimizer.step()
        yield loss.item()


@torch.no_grad()
def compare(autoencoder: Autoencoder, images: Tensor) -> tuple[Image.Image, float]:
    """Return a page of the images over their reconstructions, and the mean PSNR in dB."""
    mean, _ = split_moments(autoencoder.encode(images))
    images_hat = autoencoder.decode(mean)
    rows = [picture_from(to_pixels(image)) for image in torch.cat([images, images_hat])]
    return tile_grid(rows, 2, len(images), ["picture", "again"]), psnr_per_image(images_hat, images).mean().item()


if __name__ == "__main__":
    torch.manual_seed(0)
    eight, network = draw_eight(64), build_small()
    for step, value in enumerate(overfit(network, eight, 300), start=1):
        if step % 50 == 0:
            print(f"step {step}: loss {value:.4f}")
    page, psnr = compare(network, eight)
    page.save(sys.argv[1] if len(sys.argv) > 1 else "eight.png")
    print(f"PSNR {psnr:.1f} dB")
