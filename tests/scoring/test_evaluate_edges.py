"""Evaluations at the edges: few pictures, strange shares, models with labels, with codes, from elsewhere."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from latentart.scoring import judging

Run = Callable[..., Any]
COMMAND = ("evaluate", "ldm", "--steps", "2", "--quiet", "--per-style", "2")


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let judges learn little: what they are worth is tested elsewhere."""
    monkeypatch.setattr(judging, "MOST_STEPS", 2)
    monkeypatch.setattr(judging, "FEWEST_STEPS", 2)


def change(art: Path, held_out: float, entries: Callable[[list[dict[str, Any]]], list[dict[str, Any]]]) -> None:
    """Hold out another share of other entries of the clean set."""
    config = json.loads((art / "latentart.json").read_text())
    config["data"]["held_out"] = held_out
    (art / "latentart.json").write_text(json.dumps(config))
    index = art / "data/index.jsonl"
    found = entries([json.loads(line) for line in index.read_text().splitlines()])
    index.write_text("".join(json.dumps(entry) + "\n" for entry in found))


def test_one_picture_of_each_style_is_too_few(run: Run, workspace: Path) -> None:
    """Training needs them all, so none is held out: both evaluations say so."""
    change(workspace, 0.5, lambda entries: entries[::5])

    assert "so there is nothing to compare with" in run(workspace, *COMMAND).error(4)
    assert "so there is nothing to score on" in run(workspace, "evaluate", "vae").error(4)


def test_a_model_that_knows_one_of_two_styles_is_scored_in_that(run: Run, workspace: Path) -> None:
    """Its style has no picture that nobody saw, so what cannot be told of these is left out, in both forms."""
    change(
        workspace, 0.4, lambda entries: [{**e, "style": "Art_Deco" if i else "Cubism"} for i, e in enumerate(entries)]
    )

    plain, as_json = run(workspace, *COMMAND), run(workspace, *COMMAND, "--json")

    assert (plain.code, as_json.code) == (0, 0), plain.err
    found = json.loads(as_json.out)
    assert [(row["style"], row["samples"], row["recognized_real"]) for row in found["styles"]] == [("Cubism", 2, None)]
    assert (found["recognized_real"], found["measures"], found["pictures_per_draw"]) == (None, {}, 0)


def test_real_pictures_are_recognized_as_samples_are_style_by_style(run: Run, workspace: Path) -> None:
    """The ceiling is a mean over styles, however many pictures each has."""
    change(workspace, 0.5, lambda entries: [*entries[:5], *entries[5:7], *entries[10:12]])

    done = run(workspace, *COMMAND, "--json")

    assert done.code == 0, done.err
    found = json.loads(done.out)
    shares = [row["recognized_real"] for row in found["styles"] if row["recognized_real"] is not None]
    assert len(shares) > 1
    assert found["recognized_real"] == pytest.approx(sum(shares) / len(shares))


def test_a_model_from_elsewhere_is_evaluated_without_a_run(run: Run, workspace: Path) -> None:
    """Samples and scores go into the workspace's run, nothing to the model."""
    shutil.move(workspace / "runs/ldm/model", workspace / "elsewhere")
    shutil.rmtree(workspace / "runs/ldm")
    there = sorted((workspace / "elsewhere").iterdir())
    change(workspace, 0.4, lambda entries: entries)

    done = run(workspace, *COMMAND, "--model", "elsewhere", "--json")
    autoencoder = run(workspace, "evaluate", "vae", "--model", "elsewhere", "--json", "--quiet")

    assert (done.code, autoencoder.code) == (0, 0), done.err + autoencoder.err
    assert json.loads(done.out)["model"] == "elsewhere"
    assert (workspace / "runs/ldm/evaluations.jsonl").is_file()
    assert sorted((workspace / "elsewhere").iterdir()) == there
    assert "there is no model at latentart.json" in run(workspace, *COMMAND, "--model", "latentart.json").error(6)


@pytest.mark.slow
def test_a_model_with_labels_is_evaluated_by_its_styles(run: Run, workspace: Path) -> None:
    """Its other columns are left open."""
    shutil.rmtree(workspace / "runs/ldm")
    genres = ("portrait", "landscape")
    change(workspace, 0.4, lambda entries: [{**e, "labels": {"genre": genres[i % 2]}} for i, e in enumerate(entries)])
    short = ("ldm.training.steps=1", 'ldm.labels=["genre"]', "ldm.training.run.verdict=false")
    assert run(workspace, "train", "vae", "--allow-changed-data").code == 0
    assert run(workspace, "train", "ldm", *short).code == 0

    done = run(workspace, *COMMAND, "--json")

    assert done.code == 0, done.err
    assert json.loads(done.out)["samples"] == 6


@pytest.mark.slow
def test_a_book_of_codes_has_no_posterior_to_speak_of(run: Run, cleaned: Path) -> None:
    """Both evaluations go through; without a posterior the latents are the encoder's means."""
    change(cleaned, 0.4, lambda entries: entries)
    codes = ("vae.model.kind=vq", "vae.model.num_codes=16")
    assert run(cleaned, "train", "vae", "--stage", "l1", *codes).code == 0
    assert run(cleaned, "train", "ldm", "ldm.training.steps=1", "ldm.training.run.verdict=false").code == 0

    autoencoder, denoiser = run(cleaned, "evaluate", "vae", "--json", "-q"), run(cleaned, *COMMAND, "--json")

    assert (autoencoder.code, denoiser.code) == (0, 0), autoencoder.err + denoiser.err
    latents = json.loads(autoencoder.out)["latents"]
    assert latents["kl"] is None
    assert all(channel["posterior_std"] < 1e-3 for channel in latents["channels"])
    assert "channels dead, greatest correlation" in run(cleaned, "evaluate", "vae", "-q").out
