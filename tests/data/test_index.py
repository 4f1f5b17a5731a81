"""The index survives any name, tells damage by line, and has a fingerprint of what training reads."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from latentart.data.index import IndexEntry, index_fingerprint, read_index, style_names, twins_fingerprint, write_index
from latentart.errors import DataError

ENTRY = IndexEntry("Cubism/0.jpg", "Cubism/a.jpg", "Cubism", "0" * 64, 640, 480)
OTHER = IndexEntry("odd-1/1.jpg", "od\udcff\nd/[/]日本.jpg", "od\udcff\nd", "1" * 64, 64, 64)


def test_entries_survive_a_round_trip(tmp_path: Path) -> None:
    """Names with newlines, markup and bytes that are not UTF-8 come back as they were, one line each."""
    path = tmp_path / "index.jsonl"

    twin = replace(ENTRY, file="Cubism/2.jpg", twin="1" * 64)

    write_index(path, [OTHER, ENTRY])
    write_index(tmp_path / "twins.jsonl", [OTHER, ENTRY, twin])

    assert read_index(path) == [OTHER, ENTRY]
    assert read_index(tmp_path / "twins.jsonl") == [OTHER, ENTRY, twin]
    (tmp_path / "twins.jsonl").unlink()
    assert path.read_bytes().isascii()
    assert path.read_bytes().count(b"\n") == 2
    assert [file.name for file in tmp_path.iterdir()] == ["index.jsonl"]


def test_a_failed_write_leaves_the_old_index(tmp_path: Path) -> None:
    """An index is replaced whole or not at all."""
    path = tmp_path / "index.jsonl"
    write_index(path, [ENTRY])

    with pytest.raises(AttributeError):
        write_index(path, [OTHER, None])  # type: ignore[list-item]

    assert read_index(path) == [ENTRY]


def test_a_missing_index_names_the_command_that_makes_it(tmp_path: Path) -> None:
    """Without an index the error says what to run."""
    with pytest.raises(DataError, match=r"^no clean data set at .*: run `latentart clean-data`$"):
        read_index(tmp_path / "index.jsonl")


@pytest.mark.parametrize(
    "line",
    [
        b'{"file": "a',
        b"",
        b"[1, 2]",
        b"[" * 10**5,
        b"\xff",
        b'{"file": "a/b.jpg"}',
        b'{"file": "a/b.jpg", "source": "s", "style": "x", "sha256": "0", "width": "64", "height": 64}',
        b'{"file": "a/b.jpg", "source": "s", "style": "", "sha256": "0", "width": 64, "height": 64}',
        b'{"file": "a/b.jpg", "source": "s", "style": "%b", "sha256": "0", "width": 64, "height": 64}' % (b"x" * 1001),
        b'{"file": "../b.jpg", "source": "s", "style": "x", "sha256": "0", "width": 64, "height": 64}',
        b'{"file": "/etc/b.jpg", "source": "s", "style": "x", "sha256": "0", "width": 64, "height": 64}',
        b'{"file": "a/b.jpg", "source": "s", "style": "x", "sha256": "0", "width": 64, "height": 64, "z": 1}',
    ],
)
def test_a_damaged_line_is_named_by_number(tmp_path: Path, line: bytes) -> None:
    """Cut lines, wrong types, unknown keys and paths that lead outside are refused with their line number."""
    path = tmp_path / "index.jsonl"
    write_index(path, [ENTRY])
    path.write_bytes(path.read_bytes() + line + b"\n")

    with pytest.raises(DataError, match="line 2: the index is damaged"):
        read_index(path)


def test_an_index_without_a_picture_is_none(tmp_path: Path) -> None:
    """Nothing is trained or scored on no pictures; cleaning never writes such a one."""
    write_index(tmp_path / "index.jsonl", [])

    with pytest.raises(DataError, match=r"index\.jsonl names no picture\. Run `latentart clean-data` again"):
        read_index(tmp_path / "index.jsonl")


def test_the_fingerprint_follows_what_training_reads() -> None:
    """Order and sources do not matter; files, styles, bytes and sizes do."""
    fingerprint = index_fingerprint([ENTRY, OTHER])

    assert fingerprint == index_fingerprint([OTHER, replace(ENTRY, source="moved.jpg")])
    for change in ({"file": "x"}, {"style": "x"}, {"sha256": "x"}, {"width": 1}, {"height": 1}):
        assert fingerprint != index_fingerprint([replace(ENTRY, **change), OTHER])
    assert fingerprint != index_fingerprint([ENTRY])


def test_only_twins_have_a_fingerprint() -> None:
    """Of which is like which; what training reads is the same with them."""
    twin = replace(OTHER, twin=ENTRY.sha256)

    assert twins_fingerprint([ENTRY, OTHER]) == ""
    assert twins_fingerprint([ENTRY, twin]) == twins_fingerprint([twin, ENTRY]) != ""
    assert index_fingerprint([ENTRY, twin]) == index_fingerprint([ENTRY, OTHER])


def test_style_names_are_sorted_and_as_written() -> None:
    """Each style is listed once, under the user's name."""
    assert style_names([OTHER, ENTRY, ENTRY]) == ["Cubism", "od\udcff\nd"]
