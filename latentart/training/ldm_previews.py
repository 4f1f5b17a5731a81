"""Previews of a denoiser in training: one labelled row per style, from fixed seeds, by the averaged weights."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from latentart.core.latents import LatentNormalizer
from latentart.core.networks.autoencoder import Autoencoder
from latentart.core.networks.conditioning import Denoiser
from latentart.data.datasets import picture_from
from latentart.data.pictures.grids import save_png, tile_grid
from latentart.model.generate import Generator, SamplerSettings
from latentart.training.steps.ldm_step import LdmStep

PREVIEW_STYLES = 32
PREVIEW_COLUMNS = 4
PREVIEW_CALLS = 20  # of the network, for one page


@dataclass
class PreviewPage:
    """Draws pages into ``folder``; ``last`` is the newest of them, drawn at ``step``.

    ``samples`` are its pictures, pixels uint8 ``[n, 3, R, R]``, and their style_id int64 [n].
    """

    folder: Path
    autoencoder: Autoencoder
    normalizer: LatentNormalizer
    step_fn: LdmStep
    resolution: int
    style_names: list[str]
    settings: SamplerSettings
    last: Path | None = None
    step: int = 0
    samples: tuple[Tensor, Tensor] | None = None

    def draw(self, step: int) -> None:
        """Write the page of a step."""
        denoiser = self.step_fn.ema.network
        assert isinstance(denoiser, Denoiser)
        task, placement = self.step_fn.task, self.step_fn.placement
        generator = Generator(self.autoencoder, denoiser, self.normalizer, task, placement, self.resolution)
        names = self.style_names[:PREVIEW_STYLES]
        style_ids = [i for i in range(len(names)) for _ in range(PREVIEW_COLUMNS)]
        pixels = generator(style_ids, list(range(PREVIEW_COLUMNS)) * len(names), self.settings)
        self.step, self.samples = step, (pixels, torch.tensor(style_ids))
        save_png(tile_grid([picture_from(p) for p in pixels], len(names), PREVIEW_COLUMNS, names), self.path(step))
        self.last = self.path(step)

    def path(self, step: int) -> Path:
        """Return where the page of a step lies."""
        return self.folder / f"step-{step:08d}.png"


def page_passes(settings: SamplerSettings, num_styles: int) -> int:
    """Return how often pictures pass the denoiser for a page of so many styles."""
    return min(num_styles, PREVIEW_STYLES) * PREVIEW_COLUMNS * settings.passes
