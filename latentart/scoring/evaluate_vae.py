"""`latentart evaluate vae`: what an autoencoder is worth on pictures it never saw, per style and over all.

Launch: ``latentart evaluate vae``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from latentart.core.networks.perceptual import PerceptualDistance
from latentart.core.pixels import to_images, to_pixels
from latentart.data.datasets import picture_from
from latentart.data.pictures.grids import save_png, tile_grid
from latentart.errors import DataError
from latentart.layout import Workspace
from latentart.model.folder import Model, load_model, trained_steps, weights_hash
from latentart.model.run_data import warn_if_held_out_was_seen
from latentart.model.weights.inception import InceptionFeatures
from latentart.process.devices import Placement
from latentart.process.progress import Progress
from latentart.sampling.room import require_room_to_pass
from latentart.scoring.evaluate_ldm import append_evaluation, require_place_for_evaluation
from latentart.scoring.fid import InceptionScores, load_if_there, score_inception
from latentart.scoring.judging import spread
from latentart.scoring.metrics.grid_artifacts import grid_strength
from latentart.scoring.metrics.latent_health import LatentExamination, LatentHealth
from latentart.scoring.reconstructions import EVALUATION_BATCH, Evaluation, ReconstructionScores, Tally, find_perceptual

MOST_PICTURES = 2048
TOO_LARGE = "A model is evaluated at its own resolution: it takes a machine with more memory."
WORST = 8
SHADES = (-0.8, 0.0, 0.8)  # of red, green and blue: 27 flat colors
FAINT, PLAIN = 0.5, 2.0  # amplitudes of the grid, in levels of 255: rounded away below the one, seen above the other


@dataclass(frozen=True, kw_only=True)
class StyleScores(ReconstructionScores):
    """The scores of one style, or of all."""

    style: str

    def to_json(self) -> dict[str, Any]:
        """Return the scores as plain values."""
        names = ("style", "pictures", "psnr", "ssim", "lpips", "frechet")
        return {name: getattr(self, name) for name in names}


@dataclass(frozen=True, kw_only=True)
class VaeEvaluation:
    """What was found.

    Attributes:
        rows: one for each style, the last for all. normalized_std: of each channel as the denoiser sees it; 1 is right.
        grid_levels: the strongest grid in any flat color, as an amplitude in levels of 255. worst: a page to look at.
    """

    model: Path
    step: int
    sha256: str
    rows: list[StyleScores]
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
            "all": self.rows[-1].to_json(),
            "styles": [row.to_json() for row in self.rows[:-1]],
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
        ResourceError: the disk or the memory does not take it.
    """
    has_own = not (model_folder / "denoiser.safetensors").is_file()  # else it was trained in another run
    run = workspace.run_of(model_folder, workspace.vae_run) if has_own else workspace.vae_run
    require_place_for_evaluation(run)
    entries, names = workspace.read_pictures()
    model = load_model(model_folder, placement)
    size = (model.resolution, model.resolution)
    require_room_to_pass(model.autoencoder, size, placement.device, TOO_LARGE, count=EVALUATION_BATCH)
    evaluation = Evaluation(workspace, entries, names, model.resolution, placement)
    if not evaluation.held_out:
        msg = f"no picture of {workspace.data} is held out of training, so there is nothing to score on."
        raise DataError(msg, "Set data.held_out=0.1 with at least 8 pictures, then train again.")
    warn_if_held_out_was_seen(workspace, run, model_folder)
    chosen = workspace.config.vae.perceptual
    perceptual = find_perceptual(chosen.backbone, chosen.weights, placement)
    inception = load_if_there(placement)
    examination = _Examination(model, evaluation, perceptual, inception)
    indexes = spread(evaluation.held_out, min(count or MOST_PICTURES, MOST_PICTURES))
    with Progress("reconstruct", len(indexes), quiet=quiet) as progress:
        examination.run(indexes, progress)
    step, latents = trained_steps(model_folder, "vae"), examination.latents.result()
    page = run / "evaluations" / f"worst-step-{step:08d}.png"
    examination.draw_worst(indexes, page)
    pairs = zip(latents.channels, model.normalizer.std, strict=True)
    found = VaeEvaluation(
        model=model_folder,
        step=step,
        sha256=weights_hash(model_folder),
        rows=examination.rows(names),
        latents=latents,
        normalized_std=[channel.std / std for channel, std in pairs],
        grid_levels=measure_grid(model, evaluation),
        inception=examination.inception_scores(),
        worst=page,
    )
    append_evaluation(run, found.to_json())
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


class _Examination:
    """One walk through the held-out pictures: their scores, the latents on the way, and Inception's features."""

    def __init__(
        self,
        model: Model,
        evaluation: Evaluation,
        perceptual: PerceptualDistance | None,
        inception: InceptionFeatures | None,
    ) -> None:
        self.model, self.evaluation, self.inception = model, evaluation, inception
        self.tally = Tally(perceptual, evaluation.placement)
        self.latents = LatentExamination()
        self.inception_features: tuple[list[Tensor], list[Tensor]] = ([], [])

    @torch.no_grad()
    def run(self, indexes: Sequence[int], progress: Progress) -> None:
        """Reconstruct the pictures, a batch at a time."""
        done = 0
        for images, style_id in self.evaluation.batches(indexes):
            moments, images_hat = self.evaluation.reconstruct(self.model.autoencoder, images)
            self.latents.update(moments)
            self.tally.update(images, images_hat, style_id)
            if self.inception is not None:
                for found, batch in zip(self.inception_features, (images, images_hat), strict=True):
                    found.append(self.inception(to_pixels(batch)).cpu())
            done += len(images_hat)
            progress.update(done)

    def rows(self, names: Sequence[str]) -> list[StyleScores]:
        """Return the scores of each style that has pictures, then of all."""
        ids = sorted(set(torch.cat(self.tally.style_id).tolist()))
        rows = [StyleScores(style=names[i], **self.tally.scores(i)) for i in ids]
        return [*rows, StyleScores(style="all", **self.tally.scores())]

    def inception_scores(self) -> InceptionScores | None:
        """Return FID and KID of the reconstructions against their own pictures."""
        real, fake = self.inception_features
        if not real or sum(map(len, real)) < 2:
            return None
        return score_inception(torch.cat(real), torch.cat(fake))

    def draw_worst(self, indexes: Sequence[int], path: Path) -> None:
        """Write the pictures of the lowest PSNR over their reconstructions."""
        worst = torch.cat(self.tally.of_each["psnr"]).argsort()[:WORST].tolist()
        pixels = torch.stack([self.evaluation.dataset[(0, indexes[i])][0] for i in worst])
        _, images_hat = self.evaluation.reconstruct(
            self.model.autoencoder, to_images(self.evaluation.placement.send(pixels))
        )
        pictures: list[Image.Image] = [picture_from(one) for one in (*pixels, *to_pixels(images_hat).cpu())]
        save_png(tile_grid(pictures, 2, len(worst), ["picture", "again"]), path)
