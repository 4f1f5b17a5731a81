"""The whole path in one command, on pictures of its own or on the user's."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from latentart.data.synthetic.art import STYLES

Run = Callable[..., Any]
SMALL = (
    "vae.model.widths=[8,8,16]",
    "vae.model.head_channels=8",
    "ldm.model.widths=[16,16]",
    'ldm.model.attention=["none","linear"]',
    "ldm.model.head_channels=8",
    "ldm.model.embedding_channels=16",
    "vae.stages.hires.resolution=32",
    "ldm.training.resolution=32",
    "sample.steps=2",
)


def test_the_demo_draws_cleans_trains_and_samples(run: Run, tmp_path: Path, snapshot: Run) -> None:
    """From an empty folder to one row per style; done again it changes nothing and says the same."""
    done = run(tmp_path, "demo", "--quick", *SMALL)
    before = snapshot(tmp_path)
    again = run(tmp_path, "demo", "--quick", *SMALL)

    assert (done.code, again.code) == (0, 0)
    assert done.out == again.out == "latentart-demo/samples/all_eta0_8x8.png\n"
    last = done.err.splitlines()[-1]
    assert last == "Next: cd latentart-demo && latentart sample --style High_Renaissance --eta 0.8 --grid 4x4"
    assert "its pictures are noise" in done.err
    assert "'random' backbone" in done.err
    with Image.open(tmp_path / done.out.strip()) as grid:
        assert json.loads(grid.info["latentart"])["styles"][::8] == sorted(STYLES)
    report = json.loads((tmp_path / "latentart-demo/data/report.json").read_text())
    assert (report["kept"], report["num_dropped"]) == (64, 6)
    after = snapshot(tmp_path)
    written = {name for name in after if after[name] != before.get(name)}
    assert {Path(name).parent.name for name in written} <= {"data"}, "only the report may be written anew"


@pytest.mark.slow
def test_the_demo_takes_the_workspace_s_own_pictures(
    run: Run, init_tiny: Run, story: Any, tmp_path: Path, snapshot: Run
) -> None:
    """In a workspace with other pictures nothing is drawn among them, and their folder stays as it is."""
    init_tiny(story.raw)
    before = snapshot(story.raw)

    done = run(tmp_path, "demo", "new", "-q")

    assert done.out == "new/samples/all_eta0_3x8.png\n"
    assert snapshot(story.raw) == before


def test_the_demo_never_draws_among_a_user_s_pictures(run: Run, pictures: Run, tmp_path: Path, snapshot: Run) -> None:
    """Pictures put into the demo workspace's own raw folder are the user's."""
    run(tmp_path, "init", "art", "--preset", "demo")
    raw = pictures(tmp_path / "art/raw", ("Cubism",), 1)
    before = snapshot(raw)

    done = run(tmp_path, "demo", "art", "data.min_side=64", "-q")

    assert "sound picture" in done.error(4), "its one picture has 32 px"
    assert snapshot(raw) == before


@pytest.mark.parametrize("name", ["file", "folder"])
def test_the_demo_refuses_another_folder(run: Run, tmp_path: Path, snapshot: Run, name: str) -> None:
    """What is there and is no workspace is left alone."""
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder/letter.txt").write_text("dear")
    (tmp_path / "file").write_text("sir")
    before = snapshot(tmp_path)

    line = run(tmp_path, "demo", name).error(2)

    assert f"{name} exists and is not a workspace; nothing was written" in line
    assert snapshot(tmp_path) == before
