"""The denoiser's batches, and its loss on pictures that its training never sees."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from latentart.core.diffusion.objective import DiffusionTask
from latentart.core.diffusion.process import draw_timesteps, stratify
from latentart.core.latents import sample_posterior
from latentart.core.randomness import generator_for, normal_for, sample_numbers, seed_for, uniform_for
from latentart.data.latent_cache import LatentCache
from latentart.data.loading import build_order, choose_workers, load_items
from latentart.process.devices import Placement
from latentart.process.distributed import ALONE, Ranks
from latentart.process.signals import leave_requests_to_main
from latentart.training.steps.ldm_step import LdmBatch, LdmStep, LossByNoise

HELD_OUT_DRAWS = 256
LATENT_WORKERS = 4


class LatentBatches(torch.utils.data.Dataset[LdmBatch]):
    """A step's batch by (step, indexes of its images); everything random in it follows from (seed, sample number).

    Args:
        labels: of every image of the cache, int64 [N] or [N, columns]. nulls: what says nothing, of each column.
        dropout: share of images whose labels are dropped.
        ranks: of several processes each gets its part of the batch; an image is the same in every part.
    """

    def __init__(
        self,
        cache: LatentCache,
        labels: Tensor,
        nulls: Sequence[int],
        task: DiffusionTask,
        *,
        seed: int,
        dropout: float,
        ranks: Ranks = ALONE,
    ) -> None:
        self.ranks = ranks
        self.cache, self.labels, self.nulls = cache, labels, tuple(nulls)
        self.task, self.seed, self.dropout = task, seed, dropout

    def __getitem__(self, key: tuple[int, list[int]]) -> LdmBatch:
        """Return one step's batch, or the part of it, on the CPU; ``pictures`` are all of the batch."""
        step, pictures = key
        seed, cache, size = self.seed, self.cache, len(pictures)
        part = self.ranks.part(size)
        indexes, numbers = pictures[part], sample_numbers(step, size)[part]
        variants = (uniform_for(seed, "variant", numbers) * cache.num_variants).long().tolist()
        noise = normal_for(seed, "posterior", numbers, cache.latent_shape)
        x0 = cache.normalizer.normalize(sample_posterior(cache.read(indexes, variants), noise))
        eps = normal_for(seed, "eps", numbers, cache.latent_shape)
        shift = float(uniform_for(seed, "timestep shift", [step])[0])
        uniform = stratify(uniform_for(seed, "timestep", numbers), torch.arange(size)[part], size, shift)
        labels = drop_labels(self.labels[indexes], self.nulls, seed, numbers, self.dropout)
        return LdmBatch(x0, eps, self.task.draw_timesteps(uniform), labels, tuple(pictures))


def load_latent_batches(
    batches: LatentBatches,
    pictures: Sequence[int],
    batch_size: int,
    steps: range,
    placement: Placement,
    *,
    is_balanced: bool,
    workers: int,
) -> Iterator[LdmBatch]:
    """Yield the batches of ``steps`` on the device, of these pictures of the cache, in an order that the seed gives.

    ``workers``: how many processes load, 0 for as many as are of use.
    """
    leave_requests_to_main()
    labels = batches.labels[list(pictures)]
    style_ids = (labels if labels.ndim == 1 else labels[:, 0]).tolist()
    seed, send = seed_for(batches.seed, "ldm order"), placement.send
    order = build_order(seed, style_ids, batch_size, steps.start, steps.stop, is_balanced=is_balanced)
    keys = ((step, [pictures[i] for _, i in order.keys(step)]) for step in steps)
    # beside a GPU a thread would do too, but each of its many small draws would hold up the step's own calls
    workers = choose_workers(workers, placement.device.type, at_most=LATENT_WORKERS)
    for batch in load_items(batches, keys, workers=workers):
        yield LdmBatch(send(batch.x0), send(batch.eps), send(batch.t), send(batch.style_id), batch.pictures)


def drop_labels(labels: Tensor, nulls: Sequence[int], seed: int, numbers: Sequence[int], share: float) -> Tensor:
    """Return labels int64 ``[B]`` or ``[B, columns]`` of which some say nothing, by the samples' ``numbers``.

    ``share`` of the images lose all their labels (Ho & Salimans 2207.12598, algorithm 1). Where there are several
    columns, each is also dropped alone, half as often, so that one can be asked for without the others: our choice.
    """
    is_dropped = uniform_for(seed, "style dropout", numbers) < share
    if labels.ndim == 1:
        return torch.where(is_dropped, nulls[0], labels)
    columns = []
    for number, (ids, null) in enumerate(zip(labels.unbind(1), nulls, strict=True)):
        is_alone = uniform_for(seed, "label dropout", numbers, number) < share / 2
        columns.append(torch.where(is_dropped | is_alone, null, ids))
    return torch.stack(columns, dim=1)


def choose_micro_batch(
    step_fn: LdmStep, latent_shape: tuple[int, ...], labels: Tensor, size: int, *, is_tried: bool
) -> str:
    """Say how many of a batch of ``size`` go through the network at once: a sentence for the log, or nothing.

    Where it ``is_tried``, as many as a GPU has room for, with empty latents; elsewhere memory cannot be tried.

    Raises:
        ResourceError: not even one image has room.
    """
    device = step_fn.placement.device
    if is_tried and device.type == "cuda":
        x0, t = torch.zeros(size, *latent_shape, device=device), torch.zeros(size, dtype=torch.int64, device=device)
        step_fn.fit_micro_batch(LdmBatch(x0, x0, t, labels[:1].to(device).expand(size, *labels.shape[1:]).contiguous()))
    part = min(step_fn.micro_batch or size, size)
    return f"batches of {size} go through the network in parts of {part}" if part < size or is_tried else ""


class HeldOutLoss:
    """The plain loss on held-out pictures: always the same latents, noise and timesteps, so that it can be followed.

    Args:
        indexes: the pictures in the cache, not empty; spread over them, or again and again, there are 256 draws, as
            many at every noise level.
        labels: as in ``LatentBatches``; none is dropped.
    """

    def __init__(
        self,
        cache: LatentCache,
        indexes: Sequence[int],
        labels: Tensor,
        task: DiffusionTask,
        placement: Placement,
        *,
        seed: int,
        batch_size: int,
    ) -> None:
        self.cache, self.labels, self.placement = cache, labels, placement
        self.task = replace(task, weighting="uniform")
        self.seed, self.batch_size = seed, batch_size
        count = min(len(indexes), HELD_OUT_DRAWS)
        self.indexes = [indexes[i % count * len(indexes) // count] for i in range(HELD_OUT_DRAWS)]
        place = torch.randperm(HELD_OUT_DRAWS, generator=generator_for(seed, "held-out timesteps"))
        self.t = draw_timesteps((place + 0.5) / HELD_OUT_DRAWS, task.schedule.num_steps)

    @torch.no_grad()
    def __call__(self, network: nn.Module) -> dict[str, float | None]:
        """Return the mean loss of a network in evaluation mode, over all noise levels and in each part of them."""
        by_noise = LossByNoise(self.task.schedule.num_steps, self.placement.device)
        losses = []
        for start in range(0, HELD_OUT_DRAWS, self.batch_size):
            batch = self._draw(range(start, min(start + self.batch_size, HELD_OUT_DRAWS)))

            def predict(x_t: Tensor, batch: LdmBatch = batch) -> Tensor:
                with self.placement.autocast():
                    return network(x_t, batch.t, batch.style_id)

            loss = self.task.loss_per_image(predict, batch.x0, batch.eps, batch.t)
            by_noise.add(batch.t, loss)
            losses.append(loss)
        return {"held_out_loss": float(torch.cat(losses).mean())} | by_noise.take("held_out_loss")

    def _draw(self, numbers: range) -> LdmBatch:
        indexes, send = [self.indexes[i] for i in numbers], self.placement.send
        noise = normal_for(self.seed, "held-out posterior", numbers, self.cache.latent_shape)
        x0 = self.cache.normalizer.normalize(sample_posterior(self.cache.read(indexes, [0] * len(numbers)), noise))
        eps = normal_for(self.seed, "held-out eps", numbers, self.cache.latent_shape)
        return LdmBatch(send(x0), send(eps), send(self.t[numbers.start : numbers.stop]), send(self.labels[indexes]))
