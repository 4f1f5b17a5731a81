"""A stage's batches: which pictures, how they are cropped, and what noise their posteriors get."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from latentart.builders import build_crop
from latentart.config.vae import StageConfig
from latentart.core.equivariance import draw_transform
from latentart.core.pixels import to_images
from latentart.core.randomness import generator_for, normal_for, sample_numbers, seed_for
from latentart.data.datasets import PictureDataset
from latentart.data.index import IndexEntry
from latentart.data.loading import build_order, choose_workers, load_batches
from latentart.layout import Workspace
from latentart.process.devices import Placement
from latentart.process.distributed import Ranks
from latentart.process.signals import leave_requests_to_main
from latentart.training.steps.vae_step import VaeBatch


class VaeBatches:
    """The batches of a stage over its pictures; order, crops and noise follow from the workspace's seed.

    Of several processes each gets its part of a batch; an image is the same in every part.
    """

    def __init__(
        self,
        workspace: Workspace,
        stage: StageConfig,
        pictures: Sequence[IndexEntry],
        style_names: Sequence[str],
        ranks: Ranks,
    ) -> None:
        self.config, self.stage, self.ranks = workspace.config, stage, ranks
        self.seed = workspace.config.seed
        self.order_seed = seed_for(self.seed, f"vae order {stage.name}")
        crop = build_crop(stage.resolution, self.config.data, self.order_seed, stage.crop)
        self.dataset = PictureDataset(workspace.data, pictures, style_names, crop)

    def load(self, steps: range, placement: Placement, names: Sequence[int]) -> Iterator[VaeBatch]:
        """Yield the batches of ``steps`` on the device; ``names`` are what a report calls the pictures by."""
        leave_requests_to_main()
        stage, data, model = self.stage, self.config.data, self.config.vae.model
        size, balanced = stage.batch_size, data.balance_styles
        order = build_order(
            self.order_seed, self.dataset.style_ids, size, steps.start, steps.stop, is_balanced=balanced
        )
        side = stage.resolution // model.factor
        shape = (model.latent_channels, side, side)
        part = self.ranks.part(size)
        mine = (order.keys(step)[part] for step in steps)
        loaded = load_batches(self.dataset, mine, workers=choose_workers(data.workers, placement.device.type))
        needs_transform = stage.weights.equivariance > 0
        for step, (pixels, _, index) in zip(steps, loaded, strict=True):
            noise = normal_for(self.seed, f"posterior {stage.name}", sample_numbers(step, size)[part], shape)
            chance = generator_for(self.seed, f"equivariance {stage.name}", step)
            transform = draw_transform(chance) if needs_transform else None
            shown = [i for _, i in order.keys(step)]
            shown[part] = index.tolist()  # one that is gone has another in its place
            pictures = tuple(names[i] for i in shown)
            yield VaeBatch(to_images(placement.send(pixels)), placement.send(noise), transform, pictures)
