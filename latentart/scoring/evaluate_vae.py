"""`latentart evaluate vae`: what an autoencoder is worth on pictures it never saw, per style and over all.

Launch: ``latentart evaluate vae``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from latentart.core.losses import psnr_per_image
from latentart.core.networks.perceptual import PerceptualDistance
from latentart.core.pixels import to_images, to_pixels
from latentart.data.datasets import picture_from
from latentart.data.loading import load_batches
from latentart.data.pictures.grids import save_png, tile_grid
from latentart.errors import DataError
from latentart.layout import Workspace
from latentart.model.folder import Model, load_model, trained_steps, weights_hash
from latentart.model.run_data import warn_if_held_out_was_seen
from latentart.model.weights.inception import InceptionFeatures
from latentart.process.devices import Placement
from latentart.process.progress import Progress
from latentart.scoring.evaluate_ldm import append_evaluation
from latentart.scoring.fid import InceptionScores, load_if_there, score_inception
from latentart.scoring.judging import spread
from latentart.scoring.metrics.frechet import FeatureStatistics, frechet_distance
from latentart.scoring.metrics.grid_artifacts import grid_strength
from latentart.scoring.metrics.latent_health import LatentExamination, LatentHealth
from latentart.scoring.metrics.random_features import RandomFeatures
from latentart.scoring.metrics.reconstruction import ssim_per_image
from latentart.scoring.vae_evaluation import EVALUATION_BATCH, Evaluation, find_perceptual

MOST_PICTURES = 2048
WORST = 8
SHADES = (-0.8, 0.0, 0.8)  # of red, green and blue: 27 flat colors
FAINT, PLAIN = 0.5, 2.0  # amplitudes of the grid, in levels of 255: rounded away below the one, seen above the other


@dataclass(frozen=True)
class ReconstructionScores:
    """Means over pictures: PSNR in dB, SSIM, LPIPS or None, and the Fréchet distance in untrained features."""

    style: str
    pictures: int
    psnr: float
    ssim: float
    lpips: float | None
    frechet: float | None


@dataclass(frozen=True)
class VaeEvaluation:
    """What was found.

    Attributes:
        rows: one for each style, the last for all. normalized_std: of each channel as the denoiser sees it; 1 is right.
        grid_levels: the strongest grid in any flat color, as an amplitude in levels of 255. worst: a page to look at.
    """

    model: Path
    step: int
    sha256: str
    rows: list[ReconstructionScores]
    latents: LatentHealth
    normalized_std: list[float]
    grid_levels: float
    inception: InceptionScores | None
    worst: Path

    @property
    def grid_verdict(self) -> str:
        """What the grid's strength means."""
        if self.grid_levels < FAINT:
            return "none to be seen"
        return "faint" if self.grid_levels < PLAIN else "PLAIN TO SEE: train on, or raise the resolution of the stage"

    def to_json(self) -> dict[str, Any]:
        """Return everything as plain values."""
        return {
            "model": str(self.model),
            "step": self.step,
            "hashes": {"autoencoder": self.sha256},
            "all": asdict(self.rows[-1]),
            "styles": [asdict(row) for row in self.rows[:-1]],
            "latents": {**asdict(self.latents), "dead": self.latents.dead, "normalized_std": self.normalized_std},
            "grid_levels": self.grid_levels,
            "grid_verdict": self.grid_verdict,
            "inception": None if self.inception is None else asdict(self.inception),
            "worst_picture": str(self.worst),
        }


def evaluate_vae(
    workspace: Workspace, model_folder: Path, placement: Placement, *, count: int | None = None, quiet: bool = False
) -> VaeEvaluation:
    """Score an autoencoder on held-out pictures, and write its worst beside them; the line goes into the run.

    Raises:
        ModelError: there is no model.
        DataError: there are no clean pictures, none is held out, or more than 1 % of them are gone.
        ResourceError: the disk does not take it.
    """
    entries, names = workspace.read_pictures()
    model = load_model(model_folder, placement)
    evaluation = Evaluation(workspace, entries, names, model.resolution, placement)
    if not evaluation.held_out:
        msg = f"no picture of {workspace.data} is held out of training, so there is nothing to score on."
        raise DataError(msg, "Set data.held_out=0.1 with at least 8 pictures, then train again.")
    warn_if_held_out_was_seen(workspace, workspace.vae_run, model_folder)
    perceptual = find_perceptual(workspace.config.vae.perceptual, placement)
    inception = load_if_there(placement)
    tally = _Tally(model, evaluation, perceptual, inception)
    indexes = spread(evaluation.held_out, min(count or MOST_PICTURES, MOST_PICTURES))
    with Progress("reconstruct", len(indexes), quiet=quiet) as progress:
        tally.run(indexes, progress)
    health = tally.examination.result()
    pairs = zip(health.channels, model.normalizer.std, strict=True)
    page = workspace.vae_run / "evaluations" / f"worst-step-{trained_steps(model_folder, 'vae'):08d}.png"
    tally.draw_worst(indexes, page)
    found = VaeEvaluation(
        model_folder,
        trained_steps(model_folder, "vae"),
        weights_hash(model_folder),
        tally.rows(names),
        health,
        [channel.std / std for channel, std in pairs],
        measure_grid(model, evaluation),
        tally.inception_scores(),
        page,
    )
    append_evaluation(workspace.vae_run, found.to_json())
    return found


def measure_grid(model: Model, evaluation: Evaluation) -> float:
    """Return the strongest grid that upsampling leaves in flat colors, as an amplitude in levels of 255."""
    factor = model.autoencoder.factor
    side = max(model.resolution, 16 * factor)  # so that much of it is far from every edge
    shades = torch.tensor(SHADES)
    strongest = 0.0
    for color in torch.cartesian_prod(shades, shades, shades):
        images = evaluation.placement.send(color.view(1, 3, 1, 1).expand(1, 3, side, side).contiguous())
        _, images_hat = evaluation.reconstruct(model.autoencoder, images)
        strongest = max(strongest, float(grid_strength(images_hat, factor).max()))
    return 127.5 * strongest


@dataclass
class _Features:
    """The statistics of pictures and of their reconstructions."""

    real: FeatureStatistics = field(default_factory=FeatureStatistics)
    fake: FeatureStatistics = field(default_factory=FeatureStatistics)

    def update(self, real: Tensor, fake: Tensor) -> None:
        self.real.update(real)
        self.fake.update(fake)

    def distance(self) -> float | None:
        return frechet_distance(self.real, self.fake) if self.real.count > 1 else None


class _Tally:
    """What adds up on the way through the held-out pictures."""

    def __init__(
        self,
        model: Model,
        evaluation: Evaluation,
        perceptual: PerceptualDistance | None,
        inception: InceptionFeatures | None,
    ) -> None:
        self.model, self.evaluation = model, evaluation
        self.perceptual, self.inception = perceptual, inception
        self.random = RandomFeatures().to(evaluation.placement.device)
        self.examination = LatentExamination()
        self.scores: dict[str, list[Tensor]] = {"psnr": [], "ssim": [], "lpips": []}
        self.style_id: list[Tensor] = []
        self.features: dict[int, _Features] = {}
        self.overall = _Features()
        self.inception_features: tuple[list[Tensor], list[Tensor]] = ([], [])

    @torch.no_grad()
    def run(self, indexes: Sequence[int], progress: Progress) -> None:
        """Reconstruct the pictures, a batch at a time."""
        starts = range(0, len(indexes), EVALUATION_BATCH)
        keys = [[(0, i) for i in indexes[start : start + EVALUATION_BATCH]] for start in starts]
        done = 0
        for pixels, style_id, _ in load_batches(self.evaluation.dataset, keys):
            images = to_images(self.evaluation.placement.send(pixels))
            moments, images_hat = self.evaluation.reconstruct(self.model.autoencoder, images)
            images_hat = images_hat.float().clamp(-1, 1)
            self.examination.update(moments)
            self.style_id.append(style_id)
            self.scores["psnr"].append(psnr_per_image(images_hat, images).cpu())
            self.scores["ssim"].append(ssim_per_image(images_hat, images).cpu())
            if self.perceptual is not None:
                self.scores["lpips"].append(self.perceptual(images_hat, images).cpu())
            real, fake = self.random(images), self.random(images_hat)
            self.overall.update(real, fake)
            for i in set(style_id.tolist()):
                ours = style_id == i
                self.features.setdefault(i, _Features()).update(real[ours], fake[ours])
            if self.inception is not None:
                for found, batch in zip(self.inception_features, (images, images_hat), strict=True):
                    found.append(self.inception(to_pixels(batch)).cpu())
            done += len(pixels)
            progress.update(done)

    def rows(self, names: Sequence[str]) -> list[ReconstructionScores]:
        """Return the scores of each style that has pictures, then of all."""
        style_id = torch.cat(self.style_id)
        rows = [self._row(names[i], style_id == i, self.features[i].distance()) for i in sorted(self.features)]
        return [*rows, self._row("all", torch.ones_like(style_id, dtype=torch.bool), self.overall.distance())]

    def _row(self, name: str, chosen: Tensor, frechet: float | None) -> ReconstructionScores:
        means = {score: float(torch.cat(found)[chosen].mean()) for score, found in self.scores.items() if found}
        return ReconstructionScores(name, int(chosen.sum()), means["psnr"], means["ssim"], means.get("lpips"), frechet)

    def inception_scores(self) -> InceptionScores | None:
        """Return FID and KID of the reconstructions against their own pictures."""
        real, fake = self.inception_features
        if not real or sum(map(len, real)) < 2:
            return None
        return score_inception(torch.cat(real), torch.cat(fake))

    def draw_worst(self, indexes: Sequence[int], path: Path) -> None:
        """Write the pictures of the lowest PSNR over their reconstructions."""
        worst = torch.cat(self.scores["psnr"]).argsort()[:WORST].tolist()
        pixels = torch.stack([self.evaluation.dataset[(0, indexes[i])][0] for i in worst])
        _, images_hat = self.evaluation.reconstruct(
            self.model.autoencoder, to_images(self.evaluation.placement.send(pixels))
        )
        pictures: list[Image.Image] = [picture_from(one) for one in (*pixels, *to_pixels(images_hat).cpu())]
        save_png(tile_grid(pictures, 2, len(worst), ["picture", "again"]), path)
