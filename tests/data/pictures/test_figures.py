"""Figures are written whole, under names that are free."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from latentart.data.pictures.figures import choose_path, new_figure, save_figure
from latentart.errors import ResourceError, UsageError


def write(path: Path) -> None:
    """Write a small figure."""
    with new_figure(2.0, 1.0) as figure:
        figure.subplots().plot([1, 2], [1, 2])
        save_figure(figure, path)


def test_a_name_that_is_taken_is_left_alone(tmp_path: Path) -> None:
    """Our own name gets a number, one that was asked for is refused; a link that leads nowhere counts as taken."""
    default = tmp_path / "a.svg"
    assert choose_path(default, None) == default
    default.write_text("mine")
    (tmp_path / "a_2.svg").symlink_to(tmp_path / "nowhere")
    assert choose_path(default, None) == tmp_path / "a_3.svg"
    for name in ("a.svg", "a_2.svg"):
        with pytest.raises(UsageError, match="nothing is overwritten"):
            choose_path(default, tmp_path / name)
    with pytest.raises(UsageError, match="no name of a figure"):
        choose_path(default, tmp_path / "a.txt")


@pytest.mark.parametrize("kind", ["svg", "png"])
def test_a_figure_is_written_once(tmp_path: Path, kind: str) -> None:
    """Into a folder that it makes, the same every time, and not over what has come there meanwhile."""
    path, again = tmp_path / f"new/a.{kind}", tmp_path / f"b.{kind}"
    write(path)
    write(again)
    assert path.read_bytes() == again.read_bytes()
    assert path.read_bytes()[:5] == {"svg": b"<?xml", "png": b"\x89PNG\r"}[kind]

    path.write_text("mine")
    with pytest.raises(UsageError, match=re.escape(f"{path} exists")):
        write(path)
    assert path.read_text() == "mine"
    assert sorted(one.name for one in tmp_path.rglob("*")) == sorted([f"a.{kind}", f"b.{kind}", "new"])


def test_a_place_that_takes_no_figure_is_named(tmp_path: Path) -> None:
    """In one line."""
    (tmp_path / "file").write_text("mine")
    with pytest.raises(ResourceError, match="cannot be written"):
        write(tmp_path / "file" / "a.svg")
