"""Batches in an order that is a function of the step alone: no loader state, any number of workers."""

from __future__ import annotations

import functools
from collections.abc import Iterator

import torch
from torch import Tensor

from latentart.data.datasets import PictureDataset
from latentart.errors import DataError
from latentart.training.randomness import epoch_order, position, sample_numbers


class StepOrder(torch.utils.data.Sampler[list[tuple[int, int]]]):
    """The keys ``(epoch, index)`` of every batch from ``first_step`` to ``last_step``.

    Sample number ``step · batch_size + i`` has a place in an epoch, and that epoch's permutation gives its picture:
    every picture is seen once before any is seen twice.
    """

    def __init__(self, seed: int, count: int, batch_size: int, first_step: int, last_step: int) -> None:
        self.seed, self.count, self.batch_size = seed, count, batch_size
        self.first_step, self.last_step = first_step, last_step
        self._order = functools.lru_cache(maxsize=2)(lambda epoch: epoch_order(seed, epoch, count).tolist())

    def __len__(self) -> int:
        """Return the number of batches."""
        return self.last_step - self.first_step

    def keys(self, step: int) -> list[tuple[int, int]]:
        """Return the keys of one step's batch."""
        places = [position(number, self.count) for number in sample_numbers(step, self.batch_size)]
        return [(epoch, self._order(epoch)[place]) for epoch, place in places]

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        """Yield the keys of every batch."""
        return (self.keys(step) for step in range(self.first_step, self.last_step))


def load_batches(
    dataset: PictureDataset, order: StepOrder, *, workers: int = 0, pin: bool = False
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Yield (pixels uint8 ``[B, 3, R, R]``, style_id [B], index [B]) for every step of the order.

    Raises:
        DataError: a file is gone or broken since it was cleaned.
    """
    if workers:
        loader = torch.utils.data.DataLoader(
            dataset,
            batch_sampler=order,
            num_workers=workers,
            pin_memory=pin,
            multiprocessing_context="spawn",
            prefetch_factor=4,
        )
        try:
            yield from loader
        except DataError as error:  # torch puts the worker's traceback around the one line
            raise DataError(error.message.rpartition("DataError: ")[2].strip()) from None
        return
    for keys in order:
        pixels, style_ids, indexes = zip(*(dataset[key] for key in keys), strict=True)
        yield torch.stack(pixels), torch.tensor(style_ids), torch.tensor(indexes)
