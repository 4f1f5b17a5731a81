"""A style that is added to a trained workspace: learned in a quarter of the steps, and what was known stays known."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from peers.figures import Figure

pytestmark = pytest.mark.peers

NEW = "Pointillism"


def test_an_eighth_style(show: Any, run: Callable[..., Any], tmp_path: Path, *, is_quick: bool) -> None:
    """The judge takes 90 % of its samples for it; of all others together it takes at most two in a hundred fewer."""
    steps, per_style = (40, 4) if is_quick else (1000, 64)
    art, length = tmp_path / "art", f"ldm.training.steps={steps}"

    def call(*words: str | Path) -> str:
        done = run(art if art.exists() else tmp_path, *words)
        assert done.code == 0, done.err
        return str(done.out)

    def recognized(model: Path) -> dict[str, float]:
        said = call("evaluate", "ldm", "--model", model, "--per-style", str(per_style), "--json")
        return {row["style"]: row["recognized"] for row in json.loads(said)["styles"] if row["samples"]}

    call("demo", "art", *(["--quick"] if is_quick else []), "ldm.training.steps=1")  # pictures and an autoencoder
    shutil.rmtree(art / "runs/ldm")
    (art / "raw" / NEW).rename(tmp_path / NEW)
    call("clean-data")
    call("train", "ldm", length)
    shutil.copytree(art / "runs/ldm/model", tmp_path / "seven")
    (tmp_path / NEW).rename(art / "raw" / NEW)
    call("clean-data")
    call("train", "ldm", "--add-styles", length)
    before, after = recognized(tmp_path / "seven"), recognized(art / "runs/ldm/model")
    change = sum(after[style] - share for style, share in before.items()) / len(before)

    show(
        [
            Figure(f"recognized of {NEW}, added to {len(before)} styles", f"{after[NEW]:.1%}", after[NEW]),
            Figure("change of the others", f"{100 * change:+.1f} points", change, numbers=before),
        ]
    )

    assert after[NEW] >= 0.9
    assert change >= -0.02
