"""The judge of a workspace, trained once on real pictures and kept, and the real pictures that samples are compared to.

cache/judge-<key>/judge.safetensors; safe to delete.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from latentart.builders import build_crop
from latentart.core.randomness import seed_for
from latentart.data.datasets import PictureDataset
from latentart.data.held_out import group_twins, split_held_out
from latentart.data.index import IndexEntry, index_fingerprint, twins_fingerprint
from latentart.data.loading import choose_workers, load_batches
from latentart.errors import DataError
from latentart.layout import Workspace
from latentart.process.progress import Progress
from latentart.scoring.kept import kept
from latentart.scoring.metrics.judge import Judge, shrink, train_judge
from latentart.storage.checksums import key_of
from latentart.storage.tensors import load_matching

logger = logging.getLogger(__name__)

VERSION = 1  # of how a judge is trained and what it looks at
MAX_TAUGHT = 4096
MAX_REFERENCE = 2048
FEWEST_TAUGHT = 8  # held-out pictures of a style that can teach it; else training pictures do
BORROWED_PER_STYLE = 64
MOST_STEPS, FEWEST_STEPS, EPOCHS = 160, 60, 20
BATCH, SMALLEST_BATCH = 32, 8
READ_AT_ONCE = 32
MANY = 3000  # pictures that are read by more than one process


@dataclass(frozen=True)
class Halves:
    """Which real pictures teach the judge, and which samples are compared with: indexes of entries, rising.

    Attributes:
        training: all pictures that are not held out. rest: those that did not teach the judge, nor look like one.
        is_borrowed: training pictures teach it, as too few are held out; then all of these are the reference.
    """

    teaching: list[int]
    reference: list[int]
    training: list[int]
    rest: list[int]
    is_borrowed: bool


def find_judge(workspace: Workspace, *, quiet: bool = False) -> Judge:
    """Return the workspace's judge, from the cache where its pictures and settings are the same.

    It is taught by half of the held-out pictures; where a style has too few of these, by training pictures.

    Raises:
        DataError: there are no clean pictures, none is held out, or more than 1 % of them are gone.
        ResourceError: the disk does not take it.
    """
    entries, names = workspace.read_pictures()
    folder = workspace.cache / f"judge-{judge_key(workspace, entries)}"
    halves = choose_halves(workspace, entries)  # before the cache is asked: that nothing is held out is said

    def read(tensors: dict[str, Tensor]) -> Judge:
        judge = Judge(len(names))
        load_matching(judge, tensors, "judge")
        return judge.eval().requires_grad_(requires_grad=False)

    def train() -> dict[str, Tensor]:
        return dict(_train(workspace, entries, names, halves, quiet=quiet).state_dict())

    return kept(folder, "judge", read, train, again="trained anew")


def _train(workspace: Workspace, entries: list[IndexEntry], names: list[str], halves: Halves, *, quiet: bool) -> Judge:
    if halves.is_borrowed:
        logger.info(
            "few pictures are held out (%d): training pictures teach the judge, the held-out ones are the reference",
            len(halves.reference),
        )
    pixels, style_id = read_small(workspace, entries, names, halves.teaching, quiet=quiet)
    batch_size = min(BATCH, max(SMALLEST_BATCH, len(pixels) // 2))
    steps = max(FEWEST_STEPS, min(MOST_STEPS, EPOCHS * len(pixels) // batch_size))
    seed = seed_for(workspace.config.seed, "judge")
    with Progress("judge", steps, quiet=quiet) as progress:
        return train_judge(
            pixels, style_id, len(names), seed=seed, steps=steps, batch_size=batch_size, on_step=progress.update
        )


def judge_key(workspace: Workspace, entries: Sequence[IndexEntry]) -> str:
    """Return the name part of a judge: 16 hex digits over everything it follows from."""
    config = workspace.config
    source: list[Any] = [VERSION, index_fingerprint(entries), config.data.held_out]
    source += [config.ldm.training.resolution, config.seed]
    source += [twins] if (twins := twins_fingerprint(entries)) else []
    return key_of(source)


def choose_halves(workspace: Workspace, entries: Sequence[IndexEntry]) -> Halves:
    """Return which pictures teach the judge and which are the reference.

    Raises:
        DataError: no picture is held out.
    """
    training, held_out = split_held_out(entries, workspace.config.data.held_out)
    if not held_out:
        msg = f"no picture of {workspace.data} is held out of training, so there is nothing to compare with."
        raise DataError(msg, "Set data.held_out=0.1 with at least 8 pictures, then train again.")
    teaching, reference = alternate(entries, held_out)
    taught = Counter(entries[i].style for i in teaching)
    if min(taught[style] for style in {entry.style for entry in entries}) >= FEWEST_TAUGHT:
        return Halves(
            spread(teaching, MAX_TAUGHT), spread(reference, MAX_REFERENCE), training, training, is_borrowed=False
        )
    by_style: dict[str, list[int]] = {}
    for i in training:
        by_style.setdefault(entries[i].style, []).append(i)
    each = min(BORROWED_PER_STYLE, MAX_TAUGHT // len(by_style))
    # half of a style at most: the rest is compared with the reference as other real pictures
    lent = [spread(found, max(1, min(each, len(found) // 2))) for found in by_style.values()]
    borrowed = sorted(i for found in lent for i in found)
    groups = group_twins(entries)
    taken = {groups[i] for i in borrowed}
    rest = [i for i in training if groups[i] not in taken]
    return Halves(borrowed, spread(held_out, MAX_REFERENCE), training, rest, is_borrowed=True)


def alternate(entries: Sequence[IndexEntry], indexes: Sequence[int]) -> tuple[list[int], list[int]]:
    """Return two halves of the pictures; of each style every other one goes to the second, with what looks like it."""
    count: dict[str, int] = {}
    halves: tuple[list[int], list[int]] = ([], [])
    groups, side_of = group_twins(entries), dict[int, int]()
    for i in indexes:
        group, style = groups[i], entries[i].style
        if group not in side_of:
            number = count.get(style, 0)
            side_of[group] = number % 2
            count[style] = number + 1
        halves[side_of[group]].append(i)
    return halves


def spread(indexes: Sequence[int], most: int) -> list[int]:
    """Return at most so many of the pictures, evenly spread over them."""
    count = min(most, len(indexes))
    return [indexes[i * len(indexes) // count] for i in range(count)]


def open_middles(workspace: Workspace, entries: Sequence[IndexEntry], names: Sequence[str]) -> PictureDataset:
    """Return the clean set as the squares in the middle of its pictures, at the denoiser's resolution."""
    config = workspace.config
    crop = build_crop(config.ldm.training.resolution, config.data, config.seed, is_random=False)
    return PictureDataset(workspace.data, entries, names, crop, memory_bytes=0)


def read_middles(
    workspace: Workspace,
    entries: Sequence[IndexEntry],
    names: Sequence[str],
    indexes: Sequence[int],
    label: str,
    *,
    quiet: bool,
    at_once: int = READ_AT_ONCE,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the middles of some pictures, pixels uint8 ``[B, 3, R, R]`` and style_id int64 [B], a batch at a time.

    Raises:
        DataError: more than 1 % of the pictures are gone.
    """
    keys = [[(0, i) for i in indexes[start : start + at_once]] for start in range(0, len(indexes), at_once)]
    asked, done = workspace.config.data.workers, 0
    # few pictures would be read sooner than processes start, and no step waits
    workers = asked if asked or len(indexes) < MANY else choose_workers(0, "cuda")
    with Progress(label, len(indexes), quiet=quiet) as progress:
        for pixels, style_id, _ in load_batches(open_middles(workspace, entries, names), keys, workers=workers):
            yield pixels, style_id
            done += len(style_id)
            progress.update(done)


def read_small(
    workspace: Workspace, entries: Sequence[IndexEntry], names: Sequence[str], indexes: Sequence[int], *, quiet: bool
) -> tuple[Tensor, Tensor]:
    """Return pictures as the judge sees them, pixels uint8 ``[n, 3, R, R]``, and their styles int64 [n].

    They are read at the denoiser's resolution and shrunk as samples are.

    Raises:
        DataError: more than 1 % of the pictures are gone.
    """
    read = read_middles(workspace, entries, names, indexes, "read real pictures", quiet=quiet)
    pixels, style_id = zip(*((shrink(batch), styles) for batch, styles in read), strict=True)
    return torch.cat(pixels), torch.cat(style_id)
