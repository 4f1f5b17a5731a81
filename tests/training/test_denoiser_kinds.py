"""A workspace whose denoiser is a transformer goes the whole way, and its model folder is read back."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

Run = Callable[..., Any]
TRANSFORMER = (
    "ldm.model.kind=dit",
    "ldm.model.width=16",
    "ldm.model.depth=2",
    "ldm.model.head_channels=8",
    "ldm.model.embedding_channels=16",
    "ldm.model.dropout=0.1",
    "ldm.training.run.recompute=true",
)


def test_a_transformer_goes_the_whole_way(run: Run, workspace: Path) -> None:
    """Train on the latents that are there, sample from the folder alone; a UNet's checkpoint is not gone on with."""
    refused = run(workspace, "train", "ldm", *TRANSFORMER)
    shutil.rmtree(workspace / "runs/ldm")
    trained = run(workspace, "train", "ldm", *TRANSFORMER)
    again = run(workspace, "train", "ldm", *TRANSFORMER)
    sampled = run(workspace, "sample", "-s", "all", "--grid", "1x3")

    assert 'ldm.model.kind was "unet" and is "dit"' in refused.error(6)
    assert [done.code for done in (trained, again, sampled)] == [0, 0, 0], sampled.err
    assert "Nothing was left to do" in again.err
    about = json.loads((workspace / "runs/ldm/model/model.json").read_text())["denoiser"]
    assert (about["kind"], about["depth"], about["width"]) == ("dit", 2, 16)
    assert "widths" not in about
