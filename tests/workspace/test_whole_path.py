"""From a folder of pictures to a grid of samples: every command of the path, once and then again."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from latentart.config.workspace import resolve

Run = Callable[..., Any]
GRID = "sample --style High_Renaissance --eta 0.8 --grid 4x4"
LAST_VAE_STEP = 3 + 3 + 2 + 2  # half an epoch of 15 pictures in batches of 4 is 2 steps


def metrics(run: Path) -> list[dict[str, Any]]:
    """Return the lines of a run's metrics."""
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def pixels(path: Path) -> torch.Tensor:
    """Return a picture's values [H, W, 3] as whole numbers."""
    with Image.open(path) as picture:
        height, width = picture.height, picture.width
        return torch.frombuffer(bytearray(picture.convert("RGB").tobytes()), dtype=torch.uint8).view(height, width, 3)


@pytest.mark.parametrize("kind", ["vae", "ldm"])
def test_a_run_leaves_its_files_in_their_places(story: Any, kind: str) -> None:
    """Resolved config, machine, numbers, log, previews, checkpoints and model; nothing temporary."""
    run = story.folder / "runs" / kind
    last = LAST_VAE_STEP if kind == "vae" else 3

    assert sorted(path.name for path in run.iterdir()) == [
        "checkpoints", "config.json", "log.txt", "machine.json", "metrics.jsonl", "model", "previews",
    ]  # fmt: skip
    assert json.loads((run / "config.json").read_text()) == json.loads((story.folder / "latentart.json").read_text())
    assert (run / f"checkpoints/step-{last:08d}/MANIFEST.json").is_file()
    assert (run / f"previews/step-{last:08d}.png").is_file()
    assert (run / "model/MANIFEST.json").is_file()
    assert "finished" in (run / "log.txt").read_text()
    assert not [path for path in story.folder.rglob("*") if path.name.startswith((".tmp", ".old"))]


def test_the_metrics_hold_every_step(story: Any) -> None:
    """One line a step where the config asks for it, and the measured PSNR at the end of each stage."""
    lines = metrics(story.folder / "runs/vae")

    losses = [(line["step"], line["stage"]) for line in lines if "loss" in line]
    assert [step for step, _ in losses] == list(range(1, LAST_VAE_STEP + 1))
    assert list(dict.fromkeys(stage for _, stage in losses)) == ["l1", "adversarial", "lpips", "hires"]
    assert [(line["step"], line["stage"]) for line in lines if "psnr" in line] == [
        (3, "l1"), (6, "adversarial"), (8, "lpips"), (10, "hires"),
    ]  # fmt: skip


def test_each_command_says_what_to_type_next(story: Any) -> None:
    """The last line on stderr leads on; stdout carries where the result lies, and no progress."""
    said = {command: outcome.err.splitlines()[-1] for command, outcome in story.outcomes.items()}

    assert said["init"] == "Next: cd art && latentart clean-data"
    assert said["clean-data data.workers=1"].endswith("Next: latentart train vae")
    assert said["train vae"].endswith("Next: latentart train ldm")
    assert said["encode"] == "Next: latentart train ldm"
    assert said["train ldm"].endswith("Next: latentart sample --style all")
    assert said[GRID] == "More of them: the same with --seed 16."
    assert story.outcomes["train vae"].out == "runs/vae/model\n"
    assert story.outcomes["train ldm"].out == "runs/ldm/model\n"
    assert story.outcomes[GRID].out == "samples/High_Renaissance_eta0.8_4x4.png\n"


def test_the_log_says_that_lpips_is_a_stand_in(story: Any) -> None:
    """The random backbone is no LPIPS, and nobody shall think so."""
    assert "'random' backbone: untrained" in story.outcomes["train vae"].err


def test_the_grid_carries_its_settings(story: Any) -> None:
    """All that is needed to make the picture again is in the file."""
    with Image.open(story.folder / "samples/High_Renaissance_eta0.8_4x4.png") as grid:
        settings, size = json.loads(grid.info["latentart"]), grid.size
    manifest = json.loads((story.folder / "runs/ldm/model/MANIFEST.json").read_text())["files"]

    assert size == (4 * 34 + 2, 4 * 34 + 2)
    assert settings["styles"] == ["High_Renaissance"] * 16
    assert settings["seeds"] == list(range(16))
    assert (settings["grid"], settings["eta"], settings["steps"]) == ([4, 4], 0.8, 3)
    assert settings["denoiser"] == manifest["denoiser.safetensors"]["sha256"]


def test_the_previews_show_pictures(story: Any) -> None:
    """The autoencoder's page has pictures over reconstructions; the denoiser's one row per style."""
    vae = pixels(story.folder / f"runs/vae/previews/step-{LAST_VAE_STEP:08d}.png")
    ldm = pixels(story.folder / "runs/ldm/previews/step-00000003.png")

    assert vae.shape[0] == 2 * 66 + 2
    assert ldm.shape[0] == 3 * 34 + 2
    assert min(vae.float().std(), ldm.float().std()) > 5


def test_the_model_folder_is_enough_to_sample(story: Any, run: Run, tmp_path: Path) -> None:
    """Copied away from its workspace, the model draws the same picture with the same settings."""
    shutil.copytree(story.folder / "runs/ldm/model", tmp_path / "model")
    config = resolve({"preset": "demo"}, ["sample.steps=3", "sample.precision=fp32"])
    (tmp_path / "any.json").write_text(config.to_text())

    done = run(tmp_path, *GRID.split(), "--model", "model", "-c", "any.json")

    assert done.out == "samples/High_Renaissance_eta0.8_4x4.png\n"
    there = story.folder / "samples/High_Renaissance_eta0.8_4x4.png"
    assert (tmp_path / done.out.strip()).read_bytes() == there.read_bytes()


def test_a_model_needs_no_config(story: Any, run: Run, tmp_path: Path) -> None:
    """Outside every workspace a model is sampled with the defaults."""
    done = run(tmp_path, "sample", "-s", "all", "-n", "1", "--model", story.folder / "runs/ldm/model", "--steps", "1")

    assert done.out == "samples/all_eta0_3x1.png\n"
    assert (tmp_path / "samples/all_eta0_3x1.png").is_file()


def test_the_same_commands_again_change_nothing(run: Run, workspace: Path, snapshot: Run) -> None:
    """Finished work is skipped: no file is written, not even with the same content, and each says so."""
    before = snapshot(workspace)

    done = {command: run(workspace, *command.split()) for command in ("train vae", "encode", "train ldm", GRID)}

    assert {outcome.code for outcome in done.values()} == {0}
    assert snapshot(workspace) == before
    assert "Nothing was left to do: every stage is finished" in done["train vae"].err
    assert "the latent cache is up to date" in done["encode"].err
    assert "Nothing was left to do: the denoiser is finished" in done["train ldm"].err
    assert "were there already" in done[GRID].err


def test_cleaning_again_changes_no_picture(run: Run, workspace: Path, snapshot: Run) -> None:
    """The clean pictures and their index stay as they are."""
    before = snapshot(workspace / "data")

    done = run(workspace, "clean-data", "data.workers=1")
    after = snapshot(workspace / "data")

    assert done.code == 0
    assert before.pop(".clean.sqlite")
    assert after.pop(".clean.sqlite")
    assert {name: content for name, (content, _) in after.items()} == {name: c for name, (c, _) in before.items()}
    assert {name: time for name, (_, time) in after.items() if name.endswith(".png")} == {
        name: time for name, (_, time) in before.items() if name.endswith(".png")
    }


def test_the_cache_is_made_anew_when_it_is_gone(run: Run, workspace: Path, snapshot: Run) -> None:
    """The cache is safe to delete: `encode` brings back the same bytes."""
    before = snapshot(workspace / "cache")
    for path in list((workspace / "cache").rglob("*")):
        path.unlink() if path.is_file() else None

    done = run(workspace, "encode")

    assert done.code == 0
    after = snapshot(workspace / "cache")
    assert {name: content for name, (content, _) in after.items()} == {name: c for name, (c, _) in before.items()}
