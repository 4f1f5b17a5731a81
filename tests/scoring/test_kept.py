"""What is kept in the cache: read where it is sound and wanted, made anew where not."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from latentart.scoring.kept import kept
from latentart.storage.folders import commit_folder, verify_folder

MADE = {"a": torch.arange(3.0)}


def cut(folder: Path) -> None:
    """Damage the file."""
    (folder / "x.safetensors").write_bytes(b"")


def of_others(folder: Path) -> None:
    """Put a sound folder without such a file in its place."""
    commit_folder(folder, lambda temporary: None or (temporary / "other").touch(), replace=True)


@pytest.mark.parametrize(("spoil", "is_said"), [(cut, True), (of_others, True), (lambda _: None, False)])
def test_it_is_made_once_and_again_where_it_is_damaged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, spoil: Callable[[Path], None], is_said: bool
) -> None:
    """One line says so; what is sound is read."""
    folder, made = tmp_path / "kept", []

    def make() -> dict[str, Tensor]:
        made.append(1)
        return MADE

    kept(folder, "x", lambda tensors: tensors["a"], make)
    spoil(folder)
    with caplog.at_level(logging.WARNING):
        found = kept(folder, "x", lambda tensors: tensors["a"], make, again="learned anew")

    assert torch.equal(found, MADE["a"])
    assert len(made) == 1 + is_said
    assert (f"{folder} is learned anew: " in caplog.text) == is_said
    verify_folder(folder)


def test_what_is_not_wanted_is_made_anew(tmp_path: Path) -> None:
    """Without a word: nothing is damaged."""
    kept(tmp_path / "kept", "x", lambda tensors: tensors, lambda: MADE)

    found = kept(tmp_path / "kept", "x", lambda t: t if t["a"][0] else None, lambda: {"a": torch.ones(3)})

    assert torch.equal(found["a"], torch.ones(3))
