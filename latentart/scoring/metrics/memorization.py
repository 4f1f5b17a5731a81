"""Whether samples are copies of training pictures: the nearest of these to each, and how near new pictures come."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

SIDE = 16  # pixels of a thumbnail
NEIGHBORS = 20  # that the nearest is compared to; Carlini et al. take 50 of many more
RATIO_QUANTILE, DISTANCE_QUANTILE = 0.01, 0.5  # of new pictures
TWIN = 0.4  # of the usual ratio of new pictures: what lies below has its like among the training pictures, our choice
LEAST_PICTURES = 16  # on either side: fewer say nothing of what is near
QUERIES_AT_ONCE, BANK_AT_ONCE = 256, 16384


@dataclass(frozen=True)
class Neighbors:
    """Of each picture: the distance 0…2 to the nearest in the bank, its ratio to the next ones', and which it is."""

    distance: Tensor
    ratio: Tensor
    index: Tensor


def to_thumbnails(pixels: Tensor) -> Tensor:
    """Return pixels uint8 ``[B, 3, H, W]`` averaged to ``[B, 3, 16, 16]`` uint8."""
    return functional.adaptive_avg_pool2d(pixels.float(), SIDE).round().to(torch.uint8)


def find_neighbors(bank: Tensor, thumbnails: Tensor) -> Neighbors:
    """Return the nearest training picture of each; takes and raises what ``rank_nearest`` does."""
    distances, rows = rank_nearest(bank, thumbnails)
    return Neighbors(distances[:, 0], distances[:, 0] / distances[:, 1:].mean(1).clamp_min(1e-6), rows[:, 0])


def rank_nearest(bank: Tensor, thumbnails: Tensor) -> tuple[Tensor, Tensor]:
    """Return the distances 0…2 from each to its 21 nearest in the bank or fewer, rising, and which these are.

    Thumbnails are uint8 ``[N, 3, 16, 16]`` and ``[n, 3, 16, 16]``. The distance is that of pictures less the bank's
    mean and brought to length 1, so that contrast does not matter; a mirrored picture is as near as itself, since
    training may have seen it so.

    Raises:
        ValueError: the bank has fewer than two pictures.
    """
    if len(bank) < 2:
        raise ValueError(f"bank: got {len(bank)} pictures, expected at least 2")
    mean = torch.zeros(bank[0].numel(), dtype=torch.float64)
    for part in torch.split(bank, BANK_AT_ONCE):
        mean += part.flatten(1).double().sum(0) / len(bank)
    mean = mean.float()
    distances, nearest = [], []
    for queries in torch.split(thumbnails, QUERIES_AT_ONCE):
        views = [_unit(view, mean) for view in (queries, queries.flip(-1))]
        likeness, rows = _most_alike(bank, views, mean)
        distances.append((2 - 2 * likeness).clamp_min(0).sqrt())
        nearest.append(rows)
    return torch.cat(distances), torch.cat(nearest)


def _unit(thumbnails: Tensor, mean: Tensor) -> Tensor:
    return functional.normalize(thumbnails.flatten(1).float() - mean, dim=1)


def _most_alike(bank: Tensor, views: list[Tensor], mean: Tensor) -> tuple[Tensor, Tensor]:
    """Return the greatest likenesses -1…1 of the better view, falling, ``[n, 21]`` or fewer, and their rows."""
    best = torch.zeros(len(views[0]), 0)
    rows = torch.zeros(len(views[0]), 0, dtype=torch.int64)
    for start in range(0, len(bank), BANK_AT_ONCE):
        part = _unit(bank[start : start + BANK_AT_ONCE], mean)
        likeness = torch.stack([view @ part.T for view in views]).amax(0)
        best = torch.cat([best, likeness], dim=1)
        here = torch.arange(start, start + len(part)).expand(len(best), -1)
        best, places = best.topk(min(NEIGHBORS + 1, best.shape[1]), dim=1)
        rows = torch.cat([rows, here], dim=1).gather(1, places)
    return best, rows


def leave_out_twins(new: Neighbors) -> Neighbors:
    """Return the new pictures without those that have their like among the training pictures.

    A few of these among a hundred would be the quantile that limits come from, and no copy would be found. Left out is
    what has less than 0.4 of the median ratio: by our measurements on drawings of eight styles half of JPEG copies and
    nearly all scaled ones, and one of two hundred new pictures. A limit thus never falls below it.
    """
    if not len(new.ratio):
        return new
    is_new = new.ratio >= TWIN * new.ratio.median()
    return Neighbors(new.distance[is_new], new.ratio[is_new], new.index[is_new])


@dataclass(frozen=True)
class CopyLimits:
    """How near a picture has to come to one training picture to count as a copy of it."""

    distance: float
    ratio: float

    @classmethod
    def from_new(cls, neighbors: Neighbors) -> CopyLimits | None:
        """Return limits that one of a hundred pictures passes by chance, from pictures that training never saw.

        None where there are fewer than 16 of these that are no twins of training pictures.

        A copy is much nearer to one picture than to the next 20, as but one of a hundred new pictures is (after
        Carlini et al. 2301.13188, section 5.1), and not farther than half of them. The distance alone would not do:
        what is flat is near to many, and what is busy never comes near.
        """
        neighbors = leave_out_twins(neighbors)
        if len(neighbors.distance) < LEAST_PICTURES:
            return None
        return cls(
            float(torch.quantile(neighbors.distance, DISTANCE_QUANTILE)),
            float(torch.quantile(neighbors.ratio, RATIO_QUANTILE)),
        )

    def find(self, neighbors: Neighbors) -> Tensor:
        """Return which pictures are copies, bool [n]."""
        return (neighbors.distance <= self.distance) & (neighbors.ratio < self.ratio)
