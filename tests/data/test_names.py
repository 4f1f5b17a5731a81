"""Names that a person may take for one are found, and no others."""

from __future__ import annotations

import pytest

from latentart.data.names import near_names


@pytest.mark.parametrize(
    "pair",
    [
        ("Pop Art", "pop_art"),
        ("Pop Art", "Pop Art "),
        ("Ｐｏｐ Art", "Pop-Art"),
        ("Cafe", "Café"),
        ("Ukiyo-e", "Ukiyo–e"),
        ("Rock'n", "Rock’n"),
        ("Cubism", "Cu\u00adbism"),
        ("Арт", "Apt"),
        ("İstanbul", "istanbul"),
        ("日本　画", "日本画"),
    ],
)
def test_names_that_look_the_same_are_near(pair: tuple[str, str]) -> None:
    """Case, width, spaces, accents, dashes, quotes, what is not seen, and letters of other alphabets."""
    assert near_names(pair) == [sorted(pair)]


@pytest.mark.parametrize(
    "pair", [("की", "को"), ("が", "か"), ("!", "?"), ("-", "_"), ("C+", "C"), ("A", "B"), ("אב", "אבא")]
)
def test_different_names_are_not(pair: tuple[str, str]) -> None:
    """Signs that make another word in their writing stay."""
    assert near_names(pair) == []
