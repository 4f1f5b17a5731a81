"""Slugs are safe folder names, and different for different names."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from latentart.data.slug import slug, slugs

HOSTILE = [
    "",
    ".",
    "..",
    ".git",
    "-rf",
    "../x",
    "/etc",
    "a\\..\\b",
    "nul",
    "CON",
    "com1.txt",
    " a",
    "a  b",
    "[/]",
    "a\nb",
    "COM¹",
    "Cu\u200bbism",
    "Cu\u200dbism",
    "a/../b",
]
HOSTILE += ["ends.", "\u202e日本", "na\udcffme", "x" * 300, "\ud800", "a\0b"]


@pytest.mark.parametrize("name", ["High_Renaissance", "Ukiyo-e", "v1.2", "x" * 80])
def test_a_safe_name_is_its_own_slug(name: str) -> None:
    """A name that is safe everywhere stays as the user wrote it."""
    assert slug(name) == name


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_name_becomes_a_safe_one_with_a_hash(name: str) -> None:
    """Separators, dots, devices, length and foreign bytes never reach the file system."""
    safe = slug(name)

    assert re.fullmatch(r"\w[\w.-]*-[0-9a-f]{8}", safe)
    assert len(safe.encode()) <= 80
    assert safe.split(".")[0].upper() not in {"CON", "NUL", "COM1", "COM¹"}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("Pop Art", "Pop_Art"),
        ("日本 画", "日本_画"),
        ("Café", "Café"),
        ("Cafe\u0301", "Café"),
        ("हिन्दी", "हिन्दी"),
        ("Модерн", "Модерн"),
        ("🎨 Art ❤️", "🎨_Art_❤️"),
        ("คิวบิสม์", "คิวบิสม์"),
        ("باروك", "باروك"),
        ("한국화", "한국화"),
        ("Ｐｏｐ", "Ｐｏｐ"),
        ("日本　画", "日本_画"),
        ("👩‍🎨 art", "👩‍🎨_art"),
        ("👍🏽", "👍🏽"),
        ("🏴󠁧󠁢󠁥󠁮󠁧󠁿", "🏴󠁧󠁢󠁥󠁮󠁧󠁿"),
        ("می‌خواهم", "می‌خواهم"),
        ("Arts & Crafts (O'Keeffe)", "Arts_&_Crafts_(O'Keeffe)"),
    ],
)
def test_names_of_any_writing_stay_readable(name: str, expected: str) -> None:
    """Letters stay, in one spelling, and a space costs no hash."""
    assert slug(name) == expected


def test_a_long_name_is_cut_between_letters() -> None:
    """80 bytes are the most, whatever a letter takes."""
    assert re.fullmatch(r"日{23}-[0-9a-f]{8}", slug("日" * 90))


def test_names_that_become_one_are_kept_apart() -> None:
    """A space and an underscore are different styles."""
    folders = slugs(["Pop Art", "Pop_Art", "👩‍🎨", "👩🎨"])

    assert len({folder.replace("\u200d", "") for folder in folders.values()}) == 4


@given(st.sets(st.text(max_size=20), max_size=8))
def test_slugs_differ_even_where_case_is_ignored(names: set[str]) -> None:
    """Any set of names gets as many different folders."""
    folders = slugs(names, taken=["index.jsonl"])

    assert set(folders) == names
    assert len({folder.casefold() for folder in folders.values()}) == len(names)


def test_names_that_differ_in_case_get_hashes() -> None:
    """Two names that one folder would hold on macOS or Windows are kept apart, in any order."""
    folders = slugs(["Cubism", "cubism", "Fauvism"])

    assert folders["Fauvism"] == "Fauvism"
    assert re.fullmatch(r"Cubism-[0-9a-f]{8}", folders["Cubism"])
    assert re.fullmatch(r"cubism-[0-9a-f]{8}", folders["cubism"])
    assert folders == slugs(["cubism", "Fauvism", "Cubism"])


def test_a_taken_name_is_avoided() -> None:
    """A style named like one of our own files does not take its place."""
    folders = slugs(["Index.jsonl"], taken=["index.jsonl"])

    assert re.fullmatch(r"Index\.jsonl-[0-9a-f]{8}", folders["Index.jsonl"])
