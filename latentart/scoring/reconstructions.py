"""What an autoencoder is worth, on pictures that its training never saw: scores, error, a page to look at."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from latentart.builders import build_crop
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
from latentart.kinds import PerceptualKind, Reconstruction
from latentart.layout import Workspace
from latentart.model.weights.perceptual import build_perceptual
from latentart.process.devices import Placement
from latentart.process.lanes import Lanes
from latentart.scoring.judging import spread
from latentart.scoring.metrics.frechet import FeatureStatistics, frechet_distance
from latentart.scoring.metrics.random_features import RandomFeatures
from latentart.scoring.metrics.reconstruction import ssim_per_image

logger = logging.getLogger(__name__)

PREVIEW_PICTURES = 8
FOLLOWED_PICTURES = 64  # whose error is measured again and again
SCORED_PICTURES = 256
EVALUATION_BATCH = 16


@dataclass(frozen=True, kw_only=True)
class ReconstructionScores:
    """Scores of reconstructions, as means over pictures.

    Attributes:
        psnr: dB. ssim: at most 1. lpips: None without its trained weights.
        frechet: Fréchet distance in untrained features: compare it with others of this tool only; None for one picture.
        pictures: how many were scored.
    """

    psnr: float
    ssim: float
    lpips: float | None
    frechet: float | None
    pictures: int


@dataclass(frozen=True, kw_only=True)
class VaeScores(ReconstructionScores):
    """The scores of a training; ``is_held_out`` is False where a set is so small that all are trained on."""

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

    def batches(self, indexes: Sequence[int]) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the pictures in small batches, images in -1…1 and style_id [B] on the CPU."""
        keys = [(0, i) for i in indexes]
        batches = [keys[start : start + EVALUATION_BATCH] for start in range(0, len(keys), EVALUATION_BATCH)]
        for pixels, style_id, _ in load_batches(self.dataset, batches):
            yield to_images(self.placement.send(pixels)), style_id

    def images(self, indexes: Sequence[int], count: int) -> Iterator[Tensor]:
        """Return up to ``count`` of the pictures, spread over them, in small batches."""
        return (images for images, _ in self.batches(spread(indexes, count)))

    @torch.no_grad()
    def reconstruct(self, network: nn.Module, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return (moments, reconstruction from the posterior's mean)."""
        assert isinstance(network, Autoencoder)
        moments = self.encode(network, images)
        mean, _ = split_moments(moments)
        return moments, Lanes.beside(self.placement.device, network).map(self.placement.running(network.decode), mean)

    @torch.no_grad()
    def encode(self, network: nn.Module, images: Tensor) -> Tensor:
        """Return the moments of images, without a reconstruction."""
        assert isinstance(network, Autoencoder)
        return Lanes.beside(self.placement.device, network).map(self.placement.running(network.encode), images)

    def error(self, network: nn.Module, kind: Reconstruction = "l1") -> float:
        """Return the mean reconstruction error of a kind, in image units, over some of the scored pictures."""
        return self._mean_error(lambda images: self.reconstruct(network, images)[1], kind)

    def blank_error(self, kind: Reconstruction = "l1") -> float:
        """Return the same of one who knows each picture's mean color alone."""
        return self._mean_error(lambda images: images.mean((2, 3), keepdim=True), kind)

    def _mean_error(self, guess: Callable[[Tensor], Tensor], kind: Reconstruction) -> float:
        errors = [
            reconstruction_per_image(guess(images), images, kind).cpu()
            for images in self.images(self.scored, FOLLOWED_PICTURES)
        ]
        return float(torch.cat(errors).mean())

    def measure(self, network: nn.Module) -> LatentStatistics:
        """Return the statistics of the latents of training pictures."""
        statistics = LatentStatistics()
        for images in self.images(self.training, SCORED_PICTURES):
            statistics.update(self.encode(network, images))
        return statistics

    def score(self, network: nn.Module, perceptual: PerceptualDistance | None) -> VaeScores:
        """Return the scores of a network; ``perceptual`` is LPIPS with trained weights."""
        tally = Tally(perceptual, self.placement)
        for images, style_id in self.batches(spread(self.scored, SCORED_PICTURES)):
            tally.update(images, self.reconstruct(network, images)[1], style_id)
        return VaeScores(**tally.scores(), is_held_out=bool(self.held_out))

    def preview(self, network: nn.Module, path: Path) -> None:
        """Write a page of pictures over their reconstructions."""
        images = torch.cat(list(self.images(self.scored, PREVIEW_PICTURES)))
        _, images_hat = self.reconstruct(network, images)
        pictures = [picture_from(to_pixels(image)) for image in torch.cat([images, images_hat])]
        save_png(tile_grid(pictures, 2, len(images), ["picture", "again"]), path)


class Tally:
    """What adds up on the way through pictures and their reconstructions, a batch at a time.

    Attributes:
        of_each: psnr, ssim and lpips of each picture, in batches on the CPU; lpips stays empty without its network.
    """

    def __init__(self, perceptual: PerceptualDistance | None, placement: Placement) -> None:
        self.perceptual = perceptual
        self.random = RandomFeatures().to(placement.device)
        self.of_each: dict[str, list[Tensor]] = {"psnr": [], "ssim": [], "lpips": []}
        self.style_id: list[Tensor] = []
        self.features: list[tuple[Tensor, Tensor]] = []

    @torch.no_grad()
    def update(self, images: Tensor, images_hat: Tensor, style_id: Tensor) -> None:
        """Take in pictures and reconstructions ``[B, 3, H, W]``, of which what lies beyond -1…1 counts as the edge."""
        images_hat = images_hat.float().clamp(-1, 1)
        self.style_id.append(style_id)
        self.of_each["psnr"].append(psnr_per_image(images_hat, images).cpu())
        self.of_each["ssim"].append(ssim_per_image(images_hat, images).cpu())
        if self.perceptual is not None:
            self.of_each["lpips"].append(self.perceptual(images_hat, images).cpu())
        self.features.append((self.random(images).cpu(), self.random(images_hat).cpu()))

    def scores(self, style_id: int | None = None) -> dict[str, Any]:
        """Return the fields of ``ReconstructionScores`` over the pictures of one style, or over all."""
        chosen = [
            torch.ones_like(ids, dtype=torch.bool) if style_id is None else ids == style_id for ids in self.style_id
        ]
        real, fake = FeatureStatistics(), FeatureStatistics()
        for ours, (of_pictures, of_reconstructions) in zip(chosen, self.features, strict=True):
            real.update(of_pictures[ours])
            fake.update(of_reconstructions[ours])
        rows = torch.cat(chosen)
        means = {name: float(torch.cat(found)[rows].mean()) if found else None for name, found in self.of_each.items()}
        return {**means, "frechet": frechet_distance(real, fake) if real.count > 1 else None, "pictures": real.count}


def find_perceptual(backbone: PerceptualKind, weights: str | None, placement: Placement) -> PerceptualDistance | None:
    """Return LPIPS where its trained weights are here and sound; the random stand-in is no score."""
    if backbone == "random":
        return None
    try:
        perceptual = build_perceptual(backbone, weights)
    except DownloadError as error:
        logger.info("LPIPS is not measured: %s", error.message)
        return None
    placement.place(perceptual)
    return perceptual


def vae_passes(num_training: int, num_held_out: int) -> tuple[int, int, int, int]:
    """Return how many pictures pass the autoencoder at a stage's end: for the error, the scores, latents, a preview."""
    scored = num_held_out or num_training
    followed = min(FOLLOWED_PICTURES, scored)
    return followed, min(SCORED_PICTURES, scored), min(SCORED_PICTURES, num_training), min(PREVIEW_PICTURES, scored)
