"""Old checkpoints go when a newer one is sound; those that a run went back over stay, under another name."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from latentart.storage.checkpoints import (
    checkpoint_folder,
    find_checkpoint,
    load_checkpoint,
    take_checkpoint,
    write_checkpoint,
)
from latentart.storage.old_checkpoints import prune_checkpoints, set_aside_later


def save(run: Path, step: int) -> Path:
    """Save a small checkpoint whose content tells its step."""
    folder = checkpoint_folder(run, step)
    write_checkpoint(run, take_checkpoint(step, {"model": {"w": torch.full((2, 3), float(step))}}, {"loss": step / 3}))
    return folder


def flip(path: Path, place: int) -> None:
    """Flip one bit of a file."""
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)


def steps(run: Path) -> list[int]:
    """List the steps of the checkpoints that lie in a run."""
    return sorted(int(p.name.removeprefix("step-")) for p in (run / "checkpoints").iterdir())


def test_pruning_keeps_the_newest_and_the_milestones(tmp_path: Path) -> None:
    """The newest two and the named steps stay, the rest goes."""
    for step in (1, 2, 3, 4, 5, 6):
        save(tmp_path, step)
    prune_checkpoints(tmp_path, keep=2, milestones={2, 99})

    assert steps(tmp_path) == [2, 5, 6]
    with pytest.raises(ValueError, match="got 1"):
        prune_checkpoints(tmp_path, keep=1)


def test_pruning_never_deletes_the_last_one_that_verifies(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """With all newer ones damaged the old ones stay; as soon as one verifies they go."""
    for step in (1, 2, 3):
        save(tmp_path, step)
    for step in (2, 3):
        flip(checkpoint_folder(tmp_path, step) / "state.json", 0)
    prune_checkpoints(tmp_path)
    assert steps(tmp_path) == [1, 2, 3]
    assert "the old ones stay" in caplog.text
    save(tmp_path, 4)
    prune_checkpoints(tmp_path)

    assert steps(tmp_path) == [3, 4]
    shutil.rmtree(tmp_path / "checkpoints")
    prune_checkpoints(tmp_path)


def test_what_was_gone_back_over_is_not_found_any_more(tmp_path: Path) -> None:
    """Later checkpoints stay under another name, and one that lies there from an earlier time makes room."""
    for step in (1, 2, 3):
        save(tmp_path, step)
    set_aside_later(tmp_path, 1)
    first = find_checkpoint(tmp_path)
    save(tmp_path, 3)
    set_aside_later(tmp_path, 1)

    assert first is not None
    assert first.step == 1
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == [
        "left-step-00000002",
        "left-step-00000003",
        "step-00000001",
    ]
    assert load_checkpoint(tmp_path / "checkpoints/left-step-00000003").step == 3
