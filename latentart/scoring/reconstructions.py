"""What an autoencoder is worth, on pictures that its training never saw: scores, error, a page to look at."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from latentart.builders import build_crop
from latentart.config.vae import PerceptualConfig
from latentart.core.latents import LatentStatistics, split_moments
from latentart.core.losses import psnr_per_image, reconstruction_per_image
from latentart.core.networks.autoencoder import Autoencoder
from latentart.core.networks.perceptual import PerceptualDistance
from latentart.core.pixels import to_images, to_pixels
from latentart.data.datasets import PictureDataset, picture_from
from latentart.data.held_out import split_held_out
from latentart.data.index import IndexEntry
from latentart.data.loading import load_batches
from latentart.data.pictures.grids import save_png, tile_grid
from latentart.errors import DownloadError
from latentart.layout import Workspace
from latentart.model.weights.perceptual import build_perceptual
from latentart.process.devices import Placement
from latentart.scoring.metrics.frechet import FeatureStatistics, frechet_distance
from latentart.scoring.metrics.random_features import RandomFeatures
from latentart.scoring.metrics.reconstruction import ssim_per_image

logger = logging.getLogger(__name__)

PREVIEW_PICTURES = 8
FOLLOWED_PICTURES = 64  # whose error is measured again and again
SCORED_PICTURES = 256
EVALUATION_BATCH = 16


@dataclass(frozen=True)
class VaeScores:
    """Scores of reconstructions, as means over pictures.

    Attributes:
        psnr: dB. ssim: at most 1. lpips: None without its trained weights.
        frechet: Fréchet distance in untrained features: compare it with others of this tool only; None for one picture.
        pictures: how many were scored. is_held_out: False where a set is so small that all are trained on.
    """

    psnr: float
    ssim: float
    lpips: float | None
    frechet: float | None
    pictures: int
    is_held_out: bool

    def __str__(self) -> str:
        """Say the scores in one line."""
        parts = [f"PSNR {self.psnr:.2f} dB, SSIM {self.ssim:.3f}"]
        parts += [f"LPIPS {self.lpips:.3f}"] if self.lpips is not None else []
        parts += [f"Fréchet distance {self.frechet:.4f} (untrained features)"] if self.frechet is not None else []
        kind = "held-out" if self.is_held_out else "training"
        return f"{', '.join(parts)} on {self.pictures} {kind} pictures"

    def to_json(self) -> dict[str, float | int | bool | None]:
        """Return the scores as plain values."""
        return asdict(self)


class Evaluation:
    """The pictures of a workspace, cropped in the middle at one resolution, and what a network makes of them."""

    def __init__(
        self, workspace: Workspace, entries: list[IndexEntry], names: list[str], resolution: int, placement: Placement
    ) -> None:
        crop = build_crop(resolution, workspace.config.data, workspace.config.seed, is_random=False)
        self.dataset = PictureDataset(workspace.data, entries, names, crop, memory_bytes=0)
        self.placement = placement
        self.training, self.held_out = split_held_out(entries, workspace.config.data.held_out)

    @property
    def scored(self) -> list[int]:
        """The pictures to score: held out, or all where none are."""
        return self.held_out or self.training

    def images(self, indexes: list[int], count: int) -> Iterator[Tensor]:
        """Yield up to ``count`` of the pictures, spread over them, in small batches."""
        count = min(count, len(indexes))
        keys = [(0, indexes[i * len(indexes) // count]) for i in range(count)]
        batches = [keys[start : start + EVALUATION_BATCH] for start in range(0, count, EVALUATION_BATCH)]
        for pixels, _, _ in load_batches(self.dataset, batches):
            yield to_images(self.placement.send(pixels))

    @torch.no_grad()
    def reconstruct(self, network: nn.Module, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return (moments, reconstruction from the posterior's mean)."""
        assert isinstance(network, Autoencoder)
        with self.placement.autocast():
            moments = network.encode(images)
            mean, _ = split_moments(moments)
            return moments, network.decode(mean)

    def error(self, network: nn.Module) -> float:
        """Return the mean absolute reconstruction error, in image units, over some of the scored pictures."""
        errors = [
            reconstruction_per_image(self.reconstruct(network, images)[1], images).cpu()
            for images in self.images(self.scored, FOLLOWED_PICTURES)
        ]
        return float(torch.cat(errors).mean())

    def measure(self, network: nn.Module) -> LatentStatistics:
        """Return the statistics of the latents of training pictures."""
        statistics = LatentStatistics()
        for images in self.images(self.training, SCORED_PICTURES):
            statistics.update(self.reconstruct(network, images)[0])
        return statistics

    def score(self, network: nn.Module, perceptual: PerceptualDistance | None) -> VaeScores:
        """Return the scores of a network; ``perceptual`` is LPIPS with trained weights."""
        features = RandomFeatures().to(self.placement.device)
        real, fake = FeatureStatistics(), FeatureStatistics()
        psnr, ssim, lpips = [], [], []
        for images in self.images(self.scored, SCORED_PICTURES):
            _, images_hat = self.reconstruct(network, images)
            psnr.append(psnr_per_image(images_hat, images).cpu())
            ssim.append(ssim_per_image(images_hat, images).cpu())
            with torch.no_grad():
                real.update(features(images))
                fake.update(features(images_hat.clamp(-1, 1)))
                if perceptual is not None:
                    lpips.append(perceptual(images_hat.clamp(-1, 1), images).cpu())
        return VaeScores(
            psnr=float(torch.cat(psnr).mean()),
            ssim=float(torch.cat(ssim).mean()),
            lpips=float(torch.cat(lpips).mean()) if lpips else None,
            frechet=frechet_distance(real, fake) if real.count > 1 else None,
            pictures=real.count,
            is_held_out=bool(self.held_out),
        )

    def preview(self, network: nn.Module, path: Path) -> None:
        """Write a page of pictures over their reconstructions."""
        images = torch.cat(list(self.images(self.scored, PREVIEW_PICTURES)))
        _, images_hat = self.reconstruct(network, images)
        pictures = [picture_from(to_pixels(image)) for image in torch.cat([images, images_hat])]
        save_png(tile_grid(pictures, 2, len(images), ["picture", "again"]), path)


def find_perceptual(config: PerceptualConfig, placement: Placement) -> PerceptualDistance | None:
    """Return LPIPS where its trained weights are here and sound; the random stand-in is no score."""
    if config.backbone == "random":
        return None
    try:
        perceptual = build_perceptual(config.backbone, config.weights)
    except DownloadError as error:
        logger.info("LPIPS is not measured: %s", error.message)
        return None
    placement.place(perceptual)
    return perceptual
