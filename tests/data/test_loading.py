"""Batches as a function of the step: every picture once an epoch, the same after resuming, with any workers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor

from latentart.data.datasets import Crop, PictureDataset
from latentart.data.index import IndexEntry
from latentart.data.loading import StepOrder, load_batches
from latentart.errors import DataError


def build(root: Path, count: int = 5) -> PictureDataset:
    """Return pictures of noise as random squares."""
    entries = []
    for number in range(count):
        noise = np.random.default_rng(number).integers(0, 256, (12, 16, 3), dtype=np.uint8)
        Image.fromarray(noise).save(root / f"{number}.png")
        entries.append(IndexEntry(f"{number}.png", "", "ab"[number % 2], "", 16, 12))
    return PictureDataset(root, entries, ["a", "b"], Crop(8, 0, min_crop=0.5, flip=True))


def equal(first: Sequence[tuple[Tensor, ...]], second: Sequence[tuple[Tensor, ...]]) -> bool:
    """Tell whether two series of batches are equal bit for bit."""
    return len(first) == len(second) and all(
        torch.equal(a, b) for one, other in zip(first, second, strict=True) for a, b in zip(one, other, strict=True)
    )


@given(count=st.integers(1, 40), batch_size=st.integers(1, 50), seed=st.integers(0, 2**62))
def test_every_epoch_is_a_permutation(count: int, batch_size: int, seed: int) -> None:
    """Whatever the batch size, each epoch names every picture exactly once, and epochs follow each other."""
    order = StepOrder(seed, count, batch_size, 0, -(-3 * count // batch_size))

    keys = [key for batch in order for key in batch][: 3 * count]

    assert [epoch for epoch, _ in keys] == [0] * count + [1] * count + [2] * count
    for epoch in range(3):
        assert sorted(index for e, index in keys if e == epoch) == list(range(count))


def test_epochs_and_seeds_differ_in_order() -> None:
    """No epoch repeats another."""
    orders = [
        tuple(index for _, index in StepOrder(seed, 20, 20, 0, 3).keys(step)) for seed in (0, 1) for step in (0, 1)
    ]

    assert len(set(orders)) == 4


def test_batches_have_their_size_and_number() -> None:
    """A batch may span two epochs; none is short."""
    order = StepOrder(0, 5, 4, 2, 6)

    batches = list(order)

    assert len(order) == 4
    assert [len(batch) for batch in batches] == [4, 4, 4, 4]


@pytest.mark.parametrize("step", [0, 1, 3, 6])
def test_resuming_at_a_step_gives_the_rest_of_the_batches(tmp_path: Path, step: int) -> None:
    """The same pixels, styles and indexes as a run that was never stopped."""
    dataset = build(tmp_path)
    whole = list(load_batches(dataset, StepOrder(3, 5, 4, 0, 7)))

    rest = list(load_batches(build(tmp_path), StepOrder(3, 5, 4, step, 7)))

    assert equal(rest, whole[step:])


def test_a_batch_is_pixels_styles_and_indexes(tmp_path: Path) -> None:
    """In the order of the keys."""
    order = StepOrder(0, 5, 4, 0, 1)

    pixels, style_id, index = next(load_batches(build(tmp_path), order))

    assert (pixels.shape, pixels.dtype) == ((4, 3, 8, 8), torch.uint8)
    assert (style_id.dtype, index.dtype) == (torch.int64, torch.int64)
    assert index.tolist() == [i for _, i in order.keys(0)]
    assert torch.equal(style_id, index % 2)


@pytest.mark.slow
def test_worker_processes_change_nothing(tmp_path: Path) -> None:
    """Two workers give the batches of none, bit for bit and in order."""
    dataset, order = build(tmp_path), StepOrder(0, 5, 4, 0, 6)

    with_workers = [tuple(batch) for batch in load_batches(dataset, order, workers=2)]

    assert equal(with_workers, list(load_batches(dataset, order)))


@pytest.mark.slow
def test_a_lost_file_in_a_worker_is_a_data_error(tmp_path: Path) -> None:
    """The error crosses the process with its kind and its one line, without a traceback around it."""
    dataset = build(tmp_path)
    (tmp_path / "3.png").unlink()

    with pytest.raises(DataError, match=r"^/.*3\.png is gone or broken.*again\.$") as caught:
        list(load_batches(dataset, StepOrder(0, 5, 5, 0, 1), workers=1))

    assert "\n" not in str(caught.value)
