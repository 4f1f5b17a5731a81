"""What is measured of samples: how the judge takes them, how near they come to real pictures, and copies among them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from latentart.scoring.evaluation_samples import SampleSet
from latentart.scoring.metrics.comparison import LabeledFeatures, Measured, compare_sets
from latentart.scoring.metrics.confusion import confusion_matrix, most_mistaken, recognized_by_style
from latentart.scoring.metrics.judge import Judge, judge_in_batches
from latentart.scoring.metrics.memorization import (
    CopyLimits,
    Neighbors,
    find_neighbors,
    leave_out_twins,
    to_thumbnails,
)
from latentart.scoring.real_pictures import RealPictures


@dataclass(frozen=True)
class Drawn:
    """What is kept in memory of all samples: the judge's features and style_id, thumbnails, perhaps Inception's."""

    labeled: LabeledFeatures
    thumbnails: Tensor
    inception: Tensor | None


@dataclass(frozen=True, kw_only=True)
class StyleScore:
    """One style: shares that the judge recognizes, of samples and of real pictures that it never saw."""

    style: str
    samples: int
    recognized: float | None
    recognized_real: float | None
    taken_for: str | None
    copies: int | None


@dataclass(frozen=True)
class Copies:
    """How many samples are copies of training pictures by ``scoring.metrics.memorization``.

    Attributes:
        found: None where too few pictures are held out to say what a copy is.
        by_chance: the share of pictures that training never saw which count as copies too.
        searched: among how many training pictures, of ``training``.
        twins: pictures held out that have their like among these, and say nothing of chance.
    """

    found: int | None
    by_chance: float | None
    searched: int
    training: int
    twins: int = 0


@dataclass(frozen=True, kw_only=True)
class LdmScores:
    """All scores of a set of samples.

    Attributes:
        recognized, recognized_real: means over styles, for a set may have many pictures of one; None where it has no
            unseen picture of any style.
        measures, real_measures: against the reference, of the samples and of other real pictures, which are the floor.
        drawn: how many pictures of each set a draw of the measures has; 0 where there are too few.
        matrix: what samples are taken for, int64 ``[K, K]``. neighbors: each sample's nearest training picture.
        is_copy: bool [n], None as ``copies.found``.
    """

    recognized: float
    recognized_real: float | None
    styles: list[StyleScore]
    measures: dict[str, Measured]
    real_measures: dict[str, Measured]
    drawn: int
    copies: Copies
    matrix: Tensor
    neighbors: Neighbors
    is_copy: Tensor | None

    def to_json(self) -> dict[str, Any]:
        """Return the scores as plain values; what cannot be told is None."""
        return {
            "recognized": self.recognized,
            "recognized_real": self.recognized_real,
            "measures": {name: _plain(one) for name, one in self.measures.items()},
            "real_measures": {name: _plain(one) for name, one in self.real_measures.items()},
            "pictures_per_draw": self.drawn,
            "copies": asdict(self.copies),
            "styles": [asdict(style) for style in self.styles],
        }


def _plain(one: Measured) -> dict[str, float | None]:
    return {name: value if math.isfinite(value) else None for name, value in asdict(one).items()}


def read_drawn(samples: SampleSet, judge: Judge, names: Sequence[str]) -> Drawn:
    """Return what is measured of samples, one shard after the other; ``names`` are the judge's styles.

    Raises:
        ModelError: a shard is missing or damaged.
    """
    ids = torch.tensor([names.index(style) for style in samples.styles])
    features, style_id, thumbnails, inception = [], [], [], []
    for shard, tensors in samples.read_all():
        features += [found for found, _ in judge_in_batches(judge, tensors["pixels"])]
        style_id.append(ids[samples.style_id(shard)])
        thumbnails.append(to_thumbnails(tensors["pixels"]))
        if "inception" in tensors:
            inception.append(tensors["inception"])
    labeled = LabeledFeatures(torch.cat(features), torch.cat(style_id))
    return Drawn(labeled, torch.cat(thumbnails), torch.cat(inception) if inception else None)


def score_samples(drawn: Drawn, real: RealPictures, judge: Judge, names: Sequence[str]) -> LdmScores:
    """Return all scores of samples; only styles that there are samples of count."""
    labeled = drawn.labeled
    matrix = confusion_matrix(judge.decide(labeled.features), labeled.style_id)
    known = torch.isin(real.unseen.style_id, labeled.style_id)
    real_matrix = confusion_matrix(judge.decide(real.unseen.features[known]), real.unseen.style_id[known])
    neighbors = find_neighbors(real.searched, drawn.thumbnails)
    unseen = find_neighbors(real.searched, real.unseen_thumbnails)
    new = leave_out_twins(unseen)
    limits = CopyLimits.from_new(unseen)
    is_copy = None if limits is None else limits.find(neighbors)
    copies = Copies(
        None if is_copy is None else int(is_copy.sum()),
        None if limits is None else float(limits.find(new).double().mean()),
        len(real.searched),
        real.num_training,
        len(unseen.ratio) - len(new.ratio),
    )
    try:
        (measures, real_measures), count = compare_sets(real.reference, [labeled, real.others])
    except ValueError:  # fewer than two pictures of the same styles on all sides
        measures, real_measures, count = {}, {}, 0
    shares, mistaken = recognized_by_style(matrix), most_mistaken(matrix)
    real_shares = recognized_by_style(real_matrix)
    known_shares = [one for one in real_shares if one is not None]  # each style counts alike, as among samples
    rows = []
    for i in sorted(set(labeled.style_id.tolist())):
        ours, other = labeled.style_id == i, mistaken[i]
        found = None if is_copy is None else int(is_copy[ours].sum())
        taken_for = None if other is None else names[other]
        row = StyleScore(
            style=names[i],
            samples=int(ours.sum()),
            recognized=shares[i],
            recognized_real=real_shares[i],
            taken_for=taken_for,
            copies=found,
        )
        rows.append(row)
    return LdmScores(
        recognized=float(matrix.trace() / matrix.sum()),
        recognized_real=sum(known_shares) / len(known_shares) if known_shares else None,
        styles=rows,
        measures=measures,
        real_measures=real_measures,
        drawn=count,
        copies=copies,
        matrix=matrix,
        neighbors=neighbors,
        is_copy=is_copy,
    )
