"""Seeds: numbers and places between two, as text, JSON and part of a name."""

from __future__ import annotations

from typing import Any

import pytest

from latentart.core.seeds import (
    Between,
    Seed,
    first_after,
    is_between,
    later_seed,
    parse_seed,
    seed_from_json,
    seed_text,
    seed_to_json,
)

PLACES = [
    ("7", 7),
    ("3.25", 3.25),
    ("3:40:0.5", Between(3, 40, 0.5)),
    ("2003.25:3003.25:0.125", Between(2003.25, 3003.25, 0.125)),
]


@pytest.mark.parametrize(("text", "seed"), PLACES)
def test_a_seed_goes_through_text_and_json(text: str, seed: Seed) -> None:
    """Both ways give the same seed again."""
    assert parse_seed(text) == seed
    assert seed_text(seed) == text
    assert seed_from_json(seed_to_json(seed)) == seed


def test_places_between_places_survive_as_json() -> None:
    """As the frames of a walk between two places on the plane have them."""
    seed = Between(Between(1.5, 1001.5, 0.5), 7, 0.25)

    assert seed_from_json(seed_to_json(seed)) == seed


@pytest.mark.parametrize("text", ["", "-1", "x", "1:2", "1:2:1.5", "1:2:3:4", str(2**63), f"{2**40}.5", "1e3", "nan"])
def test_what_is_no_seed_is_refused(text: str) -> None:
    """Whatever a person may write."""
    with pytest.raises(ValueError, match="seed: got"):
        parse_seed(text)


DEEP: list[Any] = [0, 1, 0.5]
for _ in range(20):
    DEEP = [DEEP, 1, 0.5]


SHARES = [[1, 2, share] for share in (2, True, None, "x", {}, [0.5], 10**400)]


@pytest.mark.parametrize("value", [None, "7", True, -1, [1, 2], *SHARES, [1, "2", 0.5], 2**63, DEEP])
def test_json_that_is_no_seed_is_refused(value: Any) -> None:
    """Whatever a file or a browser may hold."""
    with pytest.raises(ValueError, match="seed: got"):
        seed_from_json(value)


def test_the_next_seeds_follow() -> None:
    """One further on, and the first that is not used."""
    place = Between(3.25, 1003.25, 0.5)

    assert later_seed(place, 2) == Between(5.25, 1005.25, 0.5)
    assert (first_after(place), first_after(7), first_after(3.25)) == (1004, 8, 4)
    assert (is_between(place), is_between(7), is_between(3.25)) == (True, False, True)
