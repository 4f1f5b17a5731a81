"""A stage's batches: which pictures, how they are cropped, and what noise their posteriors get."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from latentart.core.equivariance import draw_transform
from latentart.core.pixels import to_images
from latentart.core.randomness import generator_for, normal_for, sample_numbers, seed_for
from latentart.data.datasets import PictureDataset
from latentart.data.loading import build_order, choose_workers, load_batches
from latentart.process.devices import Placement
from latentart.process.distributed import ALONE, Ranks
from latentart.process.signals import leave_requests_to_main
from latentart.training.steps.vae_step import VaeBatch


class VaeBatches:
    """The batches of a stage over its pictures; order and noise follow from the seed and the stage's name.

    Of several processes each gets its part of a batch; an image is the same in every part.

    Args:
        dataset: the pictures, cropped. latent_shape: of the noise of one picture, [Z, h, w].
        needs_transform: whether a batch has a transform, for the equivariance term.
    """

    def __init__(
        self,
        dataset: PictureDataset,
        stage: str,
        batch_size: int,
        latent_shape: tuple[int, ...],
        *,
        seed: int,
        is_balanced: bool,
        needs_transform: bool = False,
        ranks: Ranks = ALONE,
    ) -> None:
        self.dataset, self.stage, self.batch_size, self.latent_shape = dataset, stage, batch_size, latent_shape
        self.seed, self.is_balanced, self.needs_transform, self.ranks = seed, is_balanced, needs_transform, ranks

    def load(self, steps: range, placement: Placement, names: Sequence[int], *, workers: int = 0) -> Iterator[VaeBatch]:
        """Yield the batches of ``steps`` on the device; ``names`` are what a report calls the pictures by.

        ``workers``: how many processes load, 0 for as many as are of use.
        """
        leave_requests_to_main()
        size, stage, part = self.batch_size, self.stage, self.ranks.part(self.batch_size)
        order = build_order(
            order_seed(self.seed, stage),
            self.dataset.style_ids,
            size,
            steps.start,
            steps.stop,
            is_balanced=self.is_balanced,
        )
        mine = (order.keys(step)[part] for step in steps)
        loaded = load_batches(self.dataset, mine, workers=choose_workers(workers, placement.device.type))
        for step, (pixels, _, index) in zip(steps, loaded, strict=True):
            noise = normal_for(self.seed, f"posterior {stage}", sample_numbers(step, size)[part], self.latent_shape)
            chance = generator_for(self.seed, f"equivariance {stage}", step)
            transform = draw_transform(chance) if self.needs_transform else None
            shown = [i for _, i in order.keys(step)]
            shown[part] = index.tolist()  # one that is gone has another in its place
            pictures = tuple(names[i] for i in shown)
            yield VaeBatch(to_images(placement.send(pixels)), placement.send(noise), transform, pictures)


def order_seed(seed: int, stage: str) -> int:
    """Return what the order of a stage's pictures, and their crops, follow from."""
    return seed_for(seed, f"vae order {stage}")
