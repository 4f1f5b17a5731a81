"""Which checkpoint a run goes back to whose numbers are lost."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from latentart.errors import ModelError
from latentart.storage.checkpoints import checkpoint_folder, take_checkpoint, write_checkpoint
from latentart.storage.folders import write_json_atomic
from latentart.training.survival.recovery import find_sound_checkpoint


def save(run: Path, step: int, in_a_row: int = 0) -> Path:
    """Write a checkpoint that was made after so many updates left out, and return its folder."""
    folder = checkpoint_folder(run, step)
    state = {"optimizers": {"numbers": {"in_a_row": in_a_row}}}
    write_checkpoint(run, take_checkpoint(step, {"model": {"w": torch.ones(2)}}, state))
    return folder


def test_damaged_ones_and_those_amid_bad_updates_are_passed_over(tmp_path: Path) -> None:
    """Back to the newest that is neither, but no farther than where the call began."""
    for step in (10, 20):
        save(tmp_path, step)
    save(tmp_path, 30, in_a_row=2)
    (save(tmp_path, 40) / "state.json").write_text("{}")

    found = find_sound_checkpoint(tmp_path, None)

    assert found is not None
    assert found.step == 20
    assert find_sound_checkpoint(tmp_path, found) is found


def test_one_of_a_later_version_is_not_passed_over(tmp_path: Path) -> None:
    """It is not damaged: to go back over it would lose what was trained, so the run ends and says so."""
    save(tmp_path, 10)
    newest = save(tmp_path, 20)
    write_json_atomic(newest / "MANIFEST.json", {"format": 99, "files": {}})

    with pytest.raises(ModelError, match=r"format 99.*Update latentart"):
        find_sound_checkpoint(tmp_path, None)
    assert newest.is_dir()
