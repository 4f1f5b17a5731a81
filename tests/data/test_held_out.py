"""Which pictures are held out depends on their content alone, and every style keeps one to train on."""

from __future__ import annotations

import hashlib
import time
from collections import Counter
from dataclasses import replace
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from latentart.data.held_out import group_twins, split_held_out
from latentart.data.index import IndexEntry


def entry(number: int, style: str = "Cubism") -> IndexEntry:
    """Return a picture of its own content."""
    content = hashlib.sha256(str(number).encode()).hexdigest()
    return IndexEntry(f"{style}/{number}.jpg", f"{style}/{number}.png", style, content, 64, 48)


def held_out_contents(entries: list[IndexEntry], share: float) -> set[str]:
    """Return the content hashes of what is held out."""
    return {entries[i].sha256 for i in split_held_out(entries, share)[1]}


styles = st.lists(st.sampled_from("abcdefgh"), max_size=200)
shares = st.floats(0, 1, exclude_max=True)


@given(styles, shares)
def test_both_parts_make_the_whole_and_every_style_keeps_one(names: list[str], share: float) -> None:
    """They are disjoint and rising; only what a style needs falls short of the number wanted."""
    entries = [entry(i, name) for i, name in enumerate(names)]

    training, held_out = split_held_out(entries, share)

    assert training == sorted(training)
    assert held_out == sorted(held_out)
    assert sorted(training + held_out) == list(range(len(entries)))
    assert {names[i] for i in training} == set(names)
    wanted = max(round(share * len(names)), min(64, len(names) // 8)) if share else 0
    assert len(held_out) == min(wanted, len(names) - len(set(names)))


@given(styles, shares, st.randoms(use_true_random=False))
def test_neither_order_nor_names_matter(names: list[str], share: float, random: Random) -> None:
    """An index in another order, of files by other names, holds the same pictures out."""
    entries = [entry(i, name) for i, name in enumerate(names)]
    other = [replace(one, file="x/1.jpg", source="y", labels={"a": "b"}, width=1) for one in entries]
    random.shuffle(other)

    assert held_out_contents(other, share) == held_out_contents(entries, share)


@pytest.mark.parametrize(
    ("count", "share", "expected"),
    [
        (0, 0.5, 0),
        (7, 0.02, 0),
        (8, 0.02, 1),
        (80, 0.02, 10),
        (512, 0.02, 64),
        (3000, 0.02, 64),
        (5000, 0.02, 100),
        (5000, 0.0, 0),
        (20000, 0.5, 4096),
    ],
)
def test_how_many(count: int, share: float, expected: int) -> None:
    """An eighth of a small set, then 64, then the share, at most 4096; none where none are asked for."""
    entries = [entry(i) for i in range(count)]

    training, held_out = split_held_out(entries, share)

    assert (len(training), len(held_out)) == (count - expected, expected)


def test_a_style_of_one_picture_is_passed_over() -> None:
    """Whatever its rank, it is trained on, and another takes its place."""
    common = [entry(i) for i in range(64)]
    for number in range(100, 140):
        training, held_out = split_held_out([*common, entry(number, "Rococo")], 0.5)

        assert 64 in training
        assert len(held_out) == 32


def test_the_choice_is_stable_when_pictures_are_added() -> None:
    """The same number out of a few more pictures changes few of them, and it is the choice of every release."""
    entries = [entry(i) for i in range(1040)]

    before, after = held_out_contents(entries[:1000], 0.01), held_out_contents(entries, 0.01)

    assert len(before - after) <= 6
    assert len(before) == len(after) == 64
    assert split_held_out(entries[:16], 0.01)[1] == [7, 11]


def test_styles_are_held_out_in_proportion() -> None:
    """The hash has no favorites."""
    entries = [entry(i, "abcd"[i % 4]) for i in range(8000)]

    counts = Counter(entries[i].style for i in split_held_out(entries, 0.1)[1])

    assert all(150 < counts[style] < 250 for style in "abcd")


@pytest.mark.parametrize("share", [-0.1, 1.0, float("nan")])
def test_an_impossible_share_is_refused(share: float) -> None:
    """By its name and value."""
    with pytest.raises(ValueError, match=f"share: got {share}"):
        split_held_out([entry(0)], share)


def test_it_is_instant() -> None:
    """A hundred thousand pictures take a fraction of a second."""
    entries = [entry(i) for i in range(100_000)]
    start = time.process_time()

    split_held_out(entries, 0.02)

    assert time.process_time() - start < 2


@given(styles, shares, st.lists(st.tuples(st.integers(0, 199), st.integers(0, 199)), max_size=60))
def test_pictures_that_look_the_same_stay_together(
    names: list[str], share: float, pairs: list[tuple[int, int]]
) -> None:
    """All of them are trained on or none; every style keeps one, and no more are held out than are wanted."""
    entries = [entry(i, name) for i, name in enumerate(names)]
    for original, twin in sorted(pairs):
        if original < twin < len(entries) and not entries[original].twin:
            entries[twin] = replace(entries[twin], twin=entries[original].sha256)
    groups = group_twins(entries)

    training, held_out = split_held_out(entries, share)

    assert not {groups[i] for i in training} & {groups[i] for i in held_out}
    assert sorted(training + held_out) == list(range(len(entries)))
    assert {names[i] for i in training} == set(names)
    assert len(held_out) <= max(round(share * len(names)), min(64, len(names) // 8))


@pytest.mark.parametrize("order", [(0, 1, 2, 3, 4), (4, 3, 2, 1, 0), (2, 0, 4, 1, 3)])
def test_chains_and_rings_of_twins_stay_together(order: tuple[int, ...]) -> None:
    """A picture like one that is like a third is of its group, in whatever order they stand; a ring is a group."""
    entries = [entry(i) for i in range(7)]
    chain = [*entries[:1], *(replace(entries[i], twin=entries[i - 1].sha256) for i in range(1, 5))]
    ring = [replace(entries[5], twin=entries[6].sha256), replace(entries[6], twin=entries[5].sha256)]

    groups = group_twins([*(chain[i] for i in order), *ring])

    assert groups == [0, 0, 0, 0, 0, 5, 5]


def test_twins_leave_the_choice_of_the_others_as_it_was() -> None:
    """One pair among a thousand pictures moves at most itself and those that take its place."""
    entries = [entry(i) for i in range(1000)]
    paired = [*entries[:999], replace(entries[999], twin=entries[0].sha256)]

    assert len(held_out_contents(entries, 0.1) ^ held_out_contents(paired, 0.1)) <= 4
    assert split_held_out(paired[:999], 0.1) == split_held_out(entries[:999], 0.1)


def test_the_choice_of_before_stays_without_twins() -> None:
    """Of an existing set the same hundred are held out as in every release: a hash over their indices."""
    entries = [entry(i, "abc"[i % 3] if i else "lone") for i in range(1000)]

    held_out = split_held_out(entries, 0.1)[1]

    assert hashlib.sha256(repr(held_out).encode()).hexdigest()[:16] == "c87203f41cafc48b"
