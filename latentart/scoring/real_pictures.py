"""The real pictures of a workspace as its judge sees them: read once, kept in cache/real-<key>/; safe to delete."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from latentart.data.index import IndexEntry
from latentart.layout import Workspace
from latentart.scoring.judging import alternate, choose_halves, judge_key, read_middles, spread
from latentart.scoring.kept import kept
from latentart.scoring.metrics.comparison import LabeledFeatures
from latentart.scoring.metrics.judge import Judge, judge_in_batches, shrink
from latentart.scoring.metrics.memorization import to_thumbnails

FEWEST_UNSEEN = 512  # held-out pictures: of fewer, training pictures fill up what samples are compared with
MOST_COMPARED = 2048
MOST_SEARCHED = 131_072  # training pictures that copies are looked for among


@dataclass(frozen=True)
class RealPictures:
    """What samples are held against.

    Attributes:
        unseen: pictures that neither judge nor training saw; how well the judge knows these is its ceiling.
        reference, others: two disjoint sets of real pictures that the judge did not learn from.
        is_mixed: the reference holds training pictures too.
        unseen_thumbnails, searched: thumbnails uint8 ``[n, 3, 16, 16]`` of ``unseen`` and of training pictures.
        searched_index: which entries these are, int64. num_training: how many training pictures there are.
    """

    unseen: LabeledFeatures
    reference: LabeledFeatures
    others: LabeledFeatures
    is_mixed: bool
    unseen_thumbnails: Tensor
    searched: Tensor
    searched_index: Tensor
    num_training: int


@dataclass(frozen=True)
class _Roles:
    """Which entries play which part."""

    unseen: list[int]
    reference: list[int]
    others: list[int]
    searched: list[int]
    num_training: int
    is_mixed: bool


def find_real(workspace: Workspace, judge: Judge, *, quiet: bool = False) -> RealPictures:
    """Return the real pictures in the features of the workspace's judge, from the cache where they are there.

    Raises:
        DataError: there are no clean pictures, none is held out, or more than 1 % of them are gone.
        ResourceError: the disk does not take it.
    """
    entries, names = workspace.read_pictures()
    roles = _choose_roles(workspace, entries)
    folder = workspace.cache / f"real-{judge_key(workspace, entries)}"
    tensors = kept(
        folder,
        "real",
        lambda tensors: tensors if torch.equal(tensors["judge"], _mark(judge)) else None,
        lambda: _measure(workspace, judge, entries, names, roles, quiet=quiet),
    )
    unseen, reference, others = (
        LabeledFeatures(tensors[name], tensors[f"{name}_style"]) for name in ("unseen", "reference", "others")
    )
    return RealPictures(
        unseen,
        reference,
        others,
        roles.is_mixed,
        tensors["unseen_thumbnails"],
        tensors["searched"],
        torch.tensor(roles.searched),
        roles.num_training,
    )


def _choose_roles(workspace: Workspace, entries: Sequence[IndexEntry]) -> _Roles:
    halves = choose_halves(workspace, entries)
    is_mixed = len(halves.reference) < FEWEST_UNSEEN
    reference, others = halves.reference, halves.rest
    if is_mixed:
        reference, others = alternate(entries, sorted(halves.reference + halves.rest))
    training = halves.training
    return _Roles(
        halves.reference,
        spread(reference, MOST_COMPARED),
        spread(others, MOST_COMPARED),
        spread(training, MOST_SEARCHED),
        len(training),
        is_mixed,
    )


def _mark(judge: Judge) -> Tensor:
    """Return what tells one judge from another that was trained on the same pictures, on another machine."""
    return torch.nn.utils.parameters_to_vector(judge.parameters())[:64].detach().clone()


def _measure(
    workspace: Workspace,
    judge: Judge,
    entries: Sequence[IndexEntry],
    names: Sequence[str],
    roles: _Roles,
    *,
    quiet: bool,
) -> dict[str, Tensor]:
    """Read every picture that plays a part once, and keep what its parts need of it."""
    featured = sorted({*roles.unseen, *roles.reference, *roles.others})
    wanted = sorted({*featured, *roles.searched})
    rows_of_features = {i: row for row, i in enumerate(featured)}
    features = torch.zeros(len(featured), judge.num_features)
    style_id = torch.zeros(len(featured), dtype=torch.int64)
    thumbnails, done = torch.zeros(len(wanted), 3, 16, 16, dtype=torch.uint8), 0
    for batch, styles in read_middles(workspace, entries, names, wanted, "look at real pictures", quiet=quiet):
        small, here = shrink(batch), wanted[done : done + len(batch)]
        thumbnails[done : done + len(small)] = to_thumbnails(small)
        chosen = [place for place, i in enumerate(here) if i in rows_of_features]
        if chosen:
            rows = [rows_of_features[here[place]] for place in chosen]
            features[rows] = torch.cat([found for found, _ in judge_in_batches(judge, small[chosen])])
            style_id[rows] = styles[chosen]
        done += len(small)
    place_of = {i: place for place, i in enumerate(wanted)}
    tensors = {"judge": _mark(judge)}
    for name, indexes in (("unseen", roles.unseen), ("reference", roles.reference), ("others", roles.others)):
        rows = [rows_of_features[i] for i in indexes]
        tensors |= {name: features[rows], f"{name}_style": style_id[rows]}
    tensors["unseen_thumbnails"] = thumbnails[[place_of[i] for i in roles.unseen]]
    tensors["searched"] = thumbnails[[place_of[i] for i in roles.searched]]
    return tensors
