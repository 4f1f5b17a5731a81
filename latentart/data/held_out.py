"""The pictures that are held out of training, by which an autoencoder is judged."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence

from latentart.data.index import IndexEntry

MIN_HELD_OUT = 64  # fewer say little; a small set gives an eighth
MAX_HELD_OUT = 4096  # more say no more, and take longer


def split_held_out(entries: Sequence[IndexEntry], share: float) -> tuple[list[int], list[int]]:
    """Return the indices of the pictures to train on and of those held out, both rising.

    Held out are ``min(max(round(share · N), min(64, N // 8)), 4096)`` of N pictures, none for a share of 0, and fewer
    where they would take the last picture of a style. Which ones depends on the content of the pictures alone, never
    on their order or names: those first by a hash of ``sha256``, so that a few pictures more change little. Pictures
    that look the same stay together, or what is measured on held-out pictures would flatter: all of them are held out,
    or none where they are more than are still wanted.

    Args:
        entries: the whole clean set.
        share: of the pictures, from 0 up to but not including 1.

    Raises:
        ValueError: ``share`` is out of range.
    """
    wanted = _how_many(len(entries), share)
    left = Counter(entry.style for entry in entries)
    held_out: list[int] = []
    members: dict[int, list[int]] = {}
    for i, first in enumerate(group_twins(entries) if wanted else []):
        members.setdefault(first, []).append(i)
    groups = [(_rank(min(entries[i].sha256 for i in group)), group) for group in members.values()]
    for _, group in sorted(groups):
        if len(held_out) == wanted:
            break
        taken = Counter(entries[i].style for i in group)
        if len(held_out) + len(group) <= wanted and all(left[style] > count for style, count in taken.items()):
            left -= taken
            held_out += group
    is_held_out = set(held_out)
    return [i for i in range(len(entries)) if i not in is_held_out], sorted(held_out)


def group_twins(entries: Sequence[IndexEntry]) -> list[int]:
    """Return of each picture the index of the first that looks the same, or like one that does: its own for most."""
    likes = {entry.sha256: entry.twin for entry in entries if entry.twin}
    originals = set(likes.values())
    firsts: dict[str, int] = {}
    groups = []
    for i, entry in enumerate(entries):
        is_alone = not entry.twin and entry.sha256 not in originals
        groups.append(i if is_alone else firsts.setdefault(_end_of_chain(entry.sha256, likes), i))
    return groups


def _end_of_chain(name: str, likes: dict[str, str]) -> str:
    """Return the picture at the end of a chain of likenesses, and let all on the way lead straight to it."""
    way: dict[str, None] = {}
    while name in likes and name not in way:
        way[name] = None
        name = likes[name]
    likes.update(dict.fromkeys(way, name))
    likes.pop(name, None)  # of a ring the first that was met is its end
    return name


def _how_many(count: int, share: float) -> int:
    if not 0 <= share < 1:
        raise ValueError(f"share: got {share}, expected at least 0 and less than 1")
    return min(max(round(share * count), min(MIN_HELD_OUT, count // 8)), MAX_HELD_OUT) if share else 0


def _rank(sha256: str) -> bytes:
    return hashlib.blake2b(sha256.encode(), digest_size=16, person=b"held out").digest()
