"""Copies of training pictures: planted ones are found, mirrored, blurred or pale; new pictures are no copies."""

from __future__ import annotations

from functools import cache

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from latentart.data.datasets import pixels_from
from latentart.data.synthetic.art import draw_picture
from latentart.scoring.metrics import memorization
from latentart.scoring.metrics.memorization import (
    CopyLimits,
    Neighbors,
    find_neighbors,
    leave_out_twins,
    to_thumbnails,
)

STYLES = ("Cubism", "High_Renaissance", "Minimalism", "Pointillism")
SIDE = 32


@cache
def draw(seed: int, count: int) -> Tensor:
    """Return so many pictures of each style, uint8."""
    return torch.stack(
        [pixels_from(draw_picture(name, seed, i, (SIDE, SIDE))) for i in range(count) for name in STYLES]
    )


@pytest.fixture(scope="module")
def training() -> Tensor:
    """Return the pictures that a model has seen."""
    return draw(0, 30)


@pytest.fixture(scope="module")
def limits(training: Tensor) -> CopyLimits:
    """Return what counts as a copy, from pictures that it has not seen."""
    found = CopyLimits.from_new(find_neighbors(to_thumbnails(training), to_thumbnails(draw(1, 12))))
    assert found is not None
    return found


def spoil(pixels: Tensor, how: str) -> Tensor:
    """Return copies as a model would draw them."""
    images = pixels.float()
    if how == "mirrored":
        return pixels.flip(-1)
    if how == "blurred":
        images = functional.interpolate(functional.avg_pool2d(images, 2), (SIDE, SIDE))
    if how == "noisy":
        images = images + 8 * torch.randn(images.shape, generator=torch.Generator().manual_seed(0))
    if how == "pale":
        images = 0.9 * images + 0.1 * images.mean((1, 2, 3), keepdim=True)
    return images.round().clamp(0, 255).byte()


@pytest.mark.parametrize("how", ["exact", "mirrored", "blurred", "noisy", "pale"])
def test_planted_copies_are_found(training: Tensor, limits: CopyLimits, how: str) -> None:
    """Each with the training picture that it is a copy of."""
    planted = torch.arange(0, len(training), 7)

    found = find_neighbors(to_thumbnails(training), to_thumbnails(spoil(training[planted], how)))

    assert torch.equal(found.index, planted)
    assert float(limits.find(found).double().mean()) >= 0.9


def test_new_pictures_are_not_taken_for_copies(training: Tensor, limits: CopyLimits) -> None:
    """Others than those that the limits come from: 4 of 120 at most."""
    found = find_neighbors(to_thumbnails(training), to_thumbnails(draw(2, 30)))

    assert int(limits.find(found).sum()) <= 4


def test_neighbors_are_the_nearest_of_all(training: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    """As by one large matrix, however few are compared at once."""
    bank, queries = to_thumbnails(training), to_thumbnails(draw(3, 3))
    whole = find_neighbors(bank, queries)
    monkeypatch.setattr(memorization, "BANK_AT_ONCE", 7)
    monkeypatch.setattr(memorization, "QUERIES_AT_ONCE", 5)
    in_parts = find_neighbors(bank, queries)
    flat = bank.flatten(1).double()
    unit = functional.normalize(flat - flat.mean(0), dim=1)
    distances = torch.stack(
        [
            torch.cdist(functional.normalize(view.flatten(1).double() - flat.mean(0), dim=1), unit)
            for view in (queries, queries.flip(-1))
        ]
    ).amin(0)

    nearest = distances.sort(1).values
    for found in (whole, in_parts):
        assert torch.equal(found.index, distances.argmin(1))
        assert torch.allclose(found.distance.double(), nearest[:, 0], atol=1e-4)
        assert torch.allclose(found.ratio.double(), nearest[:, 0] / nearest[:, 1:21].mean(1), atol=1e-4)


def test_few_new_pictures_give_no_limits() -> None:
    """Of fifteen nobody can say what is near."""
    row = torch.linspace(0.5, 1, 16)

    assert CopyLimits.from_new(Neighbors(row[:15], row[:15], row[:15].long())) is None
    assert CopyLimits.from_new(Neighbors(row, row, row.long())) is not None


def test_twins_do_not_count_among_the_fewest_that_say_what_is_near() -> None:
    """Fifteen new pictures are too few, with a twin beside them too."""
    ratio = torch.tensor([0.9] * 15 + [0.01])
    new = Neighbors(torch.ones(16), ratio, torch.arange(16))

    assert CopyLimits.from_new(new) is None
    assert CopyLimits.from_new(Neighbors(torch.ones(16), torch.full((16,), 0.9), torch.arange(16))) is not None


def test_a_bank_of_one_is_refused() -> None:
    """There is no next one to compare to."""
    with pytest.raises(ValueError, match="bank: got 1 pictures"):
        find_neighbors(torch.zeros(1, 3, 16, 16, dtype=torch.uint8), torch.zeros(1, 3, 16, 16, dtype=torch.uint8))


@pytest.mark.parametrize("share", [0.0, 0.01, 0.02, 0.05, 0.1])
def test_twins_among_the_new_pictures_do_not_blind(share: float) -> None:
    """With up to a tenth of them in training too, nine of ten of two hundred planted copies are found all the same."""
    bank, new = to_thumbnails(draw(0, 60)), to_thumbnails(draw(1, 50))
    count = round(share * len(new))
    planted = spoil(draw(0, 60)[:200], "noisy")
    with_twins = torch.cat([new[count:], bank[-count:]]) if count else new

    limits = CopyLimits.from_new(find_neighbors(bank, with_twins))

    assert limits is not None
    assert float(limits.find(find_neighbors(bank, to_thumbnails(planted))).double().mean()) >= 0.9
    assert float(limits.find(find_neighbors(bank, to_thumbnails(draw(2, 50)))).double().mean()) <= 0.05


def test_twins_are_left_out_and_others_stay(training: Tensor) -> None:
    """Exact copies go; of new pictures at most one of fifty does."""
    bank, new = to_thumbnails(training), to_thumbnails(draw(1, 30))

    assert len(leave_out_twins(find_neighbors(bank, torch.cat([new, bank[:6]]))).ratio) == len(
        leave_out_twins(find_neighbors(bank, new)).ratio
    )
    assert len(leave_out_twins(find_neighbors(bank, new)).ratio) >= 0.98 * len(new)
