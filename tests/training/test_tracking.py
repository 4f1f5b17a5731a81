"""Trackers beside real trainings: they show what the log holds, and change nothing of the run."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from latentart.config.workspace import resolve
from latentart.training.run import tracked_settings

Run = Callable[..., Any]
BOARD = "tracking.tensorboard=true"


def board(run: Path) -> EventAccumulator:
    """Return what TensorBoard reads of a run."""
    found = EventAccumulator(str(run / "tensorboard"))
    found.Reload()
    return found


def logged(run: Path, name: str) -> list[tuple[int, float]]:
    """Return a number as the run's own log has it."""
    lines = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    return [(line["step"], pytest.approx(line[name], rel=1e-6)) for line in lines if name in line]


def weights(run: Path) -> dict[str, bytes]:
    """Return the files of the model."""
    return {path.name: path.read_bytes() for path in (run / "model").glob("*.safetensors")}


def test_a_stopped_denoiser_is_one_curve_with_the_same_bits(
    story: Any, run: Run, workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each step once, and the previews; a package that is missing is one warning; the weights are as ever."""
    monkeypatch.setitem(sys.modules, "wandb", None)
    former = (workspace / "runs/ldm").rename(workspace / "former")
    words = ("train", "ldm", BOARD, "tracking.wandb=true")

    stopped = run(workspace, *words, stop_at="ldm: step 1/")
    again = run(workspace, *words)

    folder = workspace / "runs/ldm"
    assert (stopped.code, again.code) == (143, 0), again.err
    assert again.err.count("Weights & Biases is switched off") == 1
    assert 'pip install ".[wandb]"' in (folder / "log.txt").read_text()
    found = board(folder)
    for name in ("loss", "lr", "held_out_loss"):
        if logged(folder, name):
            assert [(event.step, event.value) for event in found.Scalars(name)] == logged(folder, name)
    assert [event.step for event in found.Scalars("loss")] == [1, 2, 3]
    assert [event.step for event in found.Images("previews")] == [3]
    assert "time" not in found.Tags()["scalars"]
    assert weights(folder) == weights(former) == weights(story.folder / "runs/ldm")


@pytest.mark.slow
def test_all_stages_of_an_autoencoder_are_one_curve(run: Run, cleaned: Path) -> None:
    """Stage after stage in the run's steps, with the preview and the scores at the end of each."""
    assert run(cleaned, "train", "vae", BOARD).code == 0

    found = board(cleaned / "runs/vae")
    assert [event.step for event in found.Scalars("loss")] == list(range(1, 11))
    assert [event.step for event in found.Images("previews")] == [3, 6, 8, 10]
    assert [(event.step, event.value) for event in found.Scalars("psnr")] == logged(cleaned / "runs/vae", "psnr")


def test_nothing_is_tracked_unless_asked_for(run: Run, story: Any) -> None:
    """The default has no folder of any tracker."""
    assert not list(story.folder.glob("runs/*/tensorboard"))
    assert not list(story.folder.glob("runs/*/wandb*"))


def test_settings_go_out_without_places() -> None:
    """What a tracker is told names no folder and no file of this machine."""
    settings = ["data.raw=/secret/raw", "data.root=/secret/data", "data.labels=/secret/table.csv"]
    tree = resolve({"preset": "demo"}, [*settings, "vae.perceptual.weights=/secret/vgg.pth"]).to_json()

    for kind in ("vae", "ldm"):
        told = tracked_settings(tree, kind)
        assert "secret" not in json.dumps(told)
        assert told["seed"] == 0
        assert told.keys() & {"vae", "ldm"} == {kind}
    assert tracked_settings(tree, "vae")["vae"]["model"]["latent_channels"] == 4
