"""`evaluate vae`: scores of held-out pictures by style, the latents' channels, the grid, and a line in the run."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from latentart.layout import Workspace
from latentart.model.folder import load_autoencoder
from latentart.process.devices import Placement
from latentart.scoring.reconstructions import Evaluation

Run = Callable[..., Any]


def hold_out(folder: Path, share: float) -> Workspace:
    """Return the workspace with so many pictures held out."""
    path = folder / "latentart.json"
    config = json.loads(path.read_text())
    config["data"]["held_out"] = share
    path.write_text(json.dumps(config))
    return Workspace.open(path)


def test_it_scores_every_style_and_all(workspace: Path, run: Run) -> None:
    """The numbers for all are those that training writes; styles are weighted by their pictures."""
    opened = hold_out(workspace, 0.4)
    placement = Placement(torch.device("cpu"), "fp32")
    entries, names = opened.read_pictures()
    model = load_autoencoder(opened, placement)
    known = Evaluation(opened, entries, names, model.resolution, placement).score(model.autoencoder, None)

    done = run(workspace, "evaluate", "vae", "--json", "--quiet")

    assert done.code == 0, done.err
    found = json.loads(done.out)
    rows, total = found["styles"], found["all"]
    assert total["pictures"] == sum(row["pictures"] for row in rows) == known.pictures == 6
    assert total["psnr"] == pytest.approx(known.psnr, rel=1e-5)
    assert total["ssim"] == pytest.approx(known.ssim, rel=1e-5)
    assert total["frechet"] == pytest.approx(known.frechet, rel=1e-4)
    assert total["lpips"] is None
    assert total["psnr"] == pytest.approx(sum(row["psnr"] * row["pictures"] for row in rows) / 6)
    assert len(found["latents"]["channels"]) == len(found["latents"]["normalized_std"]) == 4
    assert found["grid_levels"] > 0
    with Image.open(workspace / found["worst_picture"]) as page:
        assert page.height == 2 * (64 + 2) + 2
    (line,) = (workspace / "runs/vae/evaluations.jsonl").read_text().splitlines()
    assert {**json.loads(line), "date": ""} == {**found, "date": ""}


def test_for_people_it_is_a_table(workspace: Path, run: Run) -> None:
    """Styles, channels, the grid, the page; ``--count`` takes fewer pictures."""
    hold_out(workspace, 0.4)

    done = run(workspace, "evaluate", "vae", "--count", 3)

    assert done.code == 0, done.err
    assert all(word in done.out for word in ("Cubism", "PSNR", "channel", "grid in flat colors", "worst-step"))
    assert "all" in done.out
    assert json.loads((workspace / "runs/vae/evaluations.jsonl").read_text())["all"]["pictures"] == 3


def test_nothing_held_out_is_said(workspace: Path, run: Run) -> None:
    """One line, exit code 4, and no file."""
    hold_out(workspace, 0.0)

    assert "is held out of training, so there is nothing to score on" in run(workspace, "evaluate", "vae").error(4)
    assert not (workspace / "runs/vae/evaluations.jsonl").exists()


def test_without_a_model_it_says_so(cleaned: Path, run: Run) -> None:
    """Exit code 6."""
    assert "there is no model at" in run(cleaned, "evaluate", "vae").error(6)
