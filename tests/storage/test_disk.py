"""What a run needs of its disk: sizes that are true, and refusals in one line."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
import torch
from torch import nn

from latentart.errors import ResourceError
from latentart.storage.checkpoints import checkpoint_folder, take_checkpoint, write_checkpoint
from latentart.storage.disk import checkpoint_bytes, folder_bytes, require_room
from latentart.storage.whole import require_folders
from latentart.training.steps.optim import flatten_optimizer


def test_the_estimate_before_the_first_step_is_the_size_after_it(tmp_path: Path) -> None:
    """Moments that are not there yet are counted; headers and JSON are a small rest."""
    network = nn.Linear(300, 200)
    optimizer = torch.optim.AdamW(network.parameters())
    before = checkpoint_bytes({"model": network.state_dict(), "optimizer": {}}, [optimizer])
    network(torch.ones(1, 300)).sum().backward()
    optimizer.step()
    tensors = {"model": network.state_dict(), "optimizer": flatten_optimizer(optimizer)[0]}
    folder = checkpoint_folder(tmp_path, 1)
    write_checkpoint(tmp_path, take_checkpoint(1, tensors, {}))

    assert before == 3 * 4 * (300 * 200 + 200)
    assert before <= checkpoint_bytes(tensors, [optimizer]) <= before + 8  # the count of steps of each weight
    assert before < folder_bytes(folder) < 1.01 * before
    assert folder_bytes(tmp_path / "nothing") == 0


def test_too_little_room_is_one_line_with_both_numbers(tmp_path: Path) -> None:
    """In GB, with what the caller says helps."""
    require_room(tmp_path, shutil.disk_usage(tmp_path).free // 2, "")

    with pytest.raises(
        ResourceError, match=r"needs 1e\+06 GB for checkpoints and model; [\d.]+ GB .* free\. Lower it\."
    ):
        require_room(tmp_path, 10**15, "Lower it.")


def test_the_probe_leaves_nothing(tmp_path: Path) -> None:
    """Neither its file nor a folder that was not there."""
    (tmp_path / "there").mkdir()
    require_folders(tmp_path / "there")
    require_folders(tmp_path / "new")

    assert [path.name for path in tmp_path.rglob("*")] == ["there"]


def test_a_file_in_the_place_of_the_folder_is_named(tmp_path: Path) -> None:
    """What lies there stays."""
    (tmp_path / "checkpoints").write_text("mine")

    with pytest.raises(ResourceError, match="checkpoints cannot be written"):
        require_folders(tmp_path / "checkpoints")
    assert (tmp_path / "checkpoints").read_text() == "mine"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_permission_is_named(tmp_path: Path) -> None:
    """Before the first step, not after hours."""
    tmp_path.chmod(0o555)
    try:
        with pytest.raises(ResourceError, match="Permission denied"):
            require_folders(tmp_path)
    finally:
        tmp_path.chmod(0o755)
