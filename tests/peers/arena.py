"""Where denoisers are compared: one data set, one autoencoder, one cache of latents, one independent judge."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from latentart.core.diffusion.objective import DiffusionTask
from latentart.data.held_out import split_held_out
from latentart.data.index import IndexEntry
from latentart.data.latent_cache import LatentCache
from latentart.layout import Workspace
from latentart.model.folder import Model, load_autoencoder
from latentart.model.generate import Generator, SamplerSettings
from latentart.process.devices import Placement
from latentart.scoring.judging import alternate, open_middles, spread
from latentart.scoring.metrics.frechet import FeatureStatistics, frechet_distance
from latentart.scoring.metrics.judge import Judge, judge_in_batches, recognition, train_judge
from latentart.training.encode import encode
from latentart.training.train_vae import train_vae
from latentart.workspace.clean_data import clean_data
from latentart.workspace.demo import draw_raw
from latentart.workspace.init import init_workspace
from peers.figures import Figure

PER_STYLE = 256  # pictures that are made up
MAX_SAMPLES = 256
HELD_OUT = 0.5  # half of them teach the judge, half are the reference
QUICK = (
    "vae.stages.l1.steps=40",
    "vae.stages.l1.discriminator_start=30",
    "vae.stages.l1.discriminator_warmup=2",
    "vae.stages.l1.ramp=2",
    "vae.stages.adversarial.steps=3",
    "vae.stages.lpips.steps=3",
    "vae.stages.hires.steps=3",
)


@dataclass(frozen=True)
class Scores:
    """How near samples come: Fréchet distance in the judge's features, and the share it takes for their own style."""

    frechet: float
    recognized: float

    def __str__(self) -> str:
        """Say both."""
        return f"Fréchet distance {self.frechet:.3f}, {self.recognized:.1%} recognized"

    def figure(self, name: str, more: str = "") -> Figure:
        """Return both as a figure of this name, with ``more`` said after them."""
        numbers = {"Fréchet distance": self.frechet, "share recognized": self.recognized}
        return Figure(name, f"{self}{more}", number=self.frechet, unit="Fréchet distance", numbers=numbers)


@dataclass(frozen=True)
class Arena:
    """What all contenders share.

    Attributes:
        training: the pictures to train on, as places in the cache. held_out: the others.
        reference, reference_style: real pictures that neither judge nor contenders saw, ``[N, 3, R, R]`` uint8.
        ceiling: the scores of other real pictures, as many, which the judge was trained on, and of the reference.
    """

    workspace: Workspace
    model: Model
    cache: LatentCache
    training: list[int]
    held_out: list[int]
    judge: Judge
    reference: Tensor
    reference_style: Tensor
    ceiling: Scores
    placement: Placement

    @property
    def num_styles(self) -> int:
        """K."""
        return len(self.model.style_names)

    def draw(self, denoiser: nn.Module, task: DiffusionTask, settings: SamplerSettings, turn: int = 0) -> Tensor:
        """Return one sample for each picture of the reference, of its style: pixels uint8 ``[N, 3, R, R]``.

        Every ``turn`` has seeds of its own.
        """
        generator = Generator(
            self.model.autoencoder,
            denoiser,  # type: ignore[arg-type]  # a peer keeps the contract without being a Denoiser
            self.model.normalizer,
            task,
            self.placement,
            self.model.resolution,
        )
        styles = self.reference_style.tolist()
        return generator(styles, [turn * len(styles) + i for i in range(len(styles))], settings)

    def score(self, pixels: Tensor) -> Scores:
        """Return how near samples of the reference's styles come to it."""
        return compare(self.judge, pixels, self.reference, self.reference_style)


def compare(judge: Judge, pixels: Tensor, reference: Tensor, style_id: Tensor) -> Scores:
    """Return the distance of two sets of pictures, and how many of the first are taken for their style."""
    statistics = FeatureStatistics(), FeatureStatistics()
    for one, images in zip(statistics, (pixels, reference), strict=True):
        for features, _ in judge_in_batches(judge, images):
            one.update(features)
    return Scores(frechet_distance(*statistics), recognition(judge, pixels, style_id))


def build_arena(folder: Path, pictures: Path | None, placement: Placement, *, is_quick: bool) -> Arena:
    """Clean the pictures, train the demo's autoencoder on half of them, encode them, train a judge on a quarter.

    Raises:
        DataError: the folder holds too few pictures.
    """
    settings = (f"data.held_out={HELD_OUT}", *(QUICK if is_quick else ()))
    workspace = init_workspace(folder / "work", "demo", pictures, settings)
    if pictures is None:
        draw_raw(workspace, 16 if is_quick else PER_STYLE)
    clean_data(workspace, quiet=True)
    train_vae(workspace, "all", placement, quiet=True)
    cache = LatentCache.open(encode(workspace, placement, quiet=True))
    entries, names = workspace.read_pictures()
    training, held_out = split_held_out(entries, workspace.config.data.held_out)
    teaching, reference = alternate(entries, held_out)
    reference = reference[:: -(-len(reference) // MAX_SAMPLES)]
    taught, taught_style = read_middles(workspace, entries, names, teaching)
    known, known_style = read_middles(workspace, entries, names, reference)
    judge = train_judge(taught, taught_style, len(names), steps=60 if is_quick else 600)
    others = spread(range(len(taught)), len(known))  # of every style, as the reference is
    ceiling = Scores(
        compare(judge, taught[others], known, taught_style[others]).frechet,
        recognition(judge, known, known_style),
    )
    model = load_autoencoder(workspace, placement)
    return Arena(workspace, model, cache, training, held_out, judge, known, known_style, ceiling, placement)


def describe_arena(arena: Arena) -> list[Figure]:
    """Return what stands behind the scores."""
    return [
        Figure("pictures", f"{len(arena.training)} to train on, {len(arena.reference)} to compare with"),
        arena.ceiling.figure("other real pictures, as the judge sees them"),
    ]


def read_middles(
    workspace: Workspace, entries: list[IndexEntry], names: list[str], indexes: Sequence[int]
) -> tuple[Tensor, Tensor]:
    """Return the middle squares of pictures as pixels uint8 ``[n, 3, R, R]``, and their styles [n]."""
    dataset = open_middles(workspace, entries, names)
    found = [dataset[(0, i)] for i in indexes]
    return torch.stack([pixels for pixels, *_ in found]), torch.tensor([int(style) for _, style, *_ in found])
