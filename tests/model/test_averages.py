"""Snapshots of averages, and the average of another width that is made from them: against one that was tracked."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from latentart.core.ema import Ema, gamma_from_relative_std
from latentart.errors import ModelError
from latentart.model.averages import drop_averages, list_averages, load_average, save_average
from latentart.storage.tensors import read_tensors

Run = Callable[..., Any]
LONG = ("ldm.training.steps=48", "ldm.training.optimizer.lr=1e-2", "ldm.training.run.checkpoint_every=21")
KEPT = "ldm.training.run.keep_checkpoints=9"
TRACKS = "ldm.training.run.ema.tracks=[0.05,0.1]"


@pytest.fixture(scope="module")
def tracked(story: Any, run_once: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a workspace whose denoiser was trained for 48 steps with two tracks. Others read it or copy it."""
    art = Path(shutil.copytree(story.folder, tmp_path_factory.mktemp("tracked") / "art"))
    shutil.rmtree(art / "runs/ldm")
    assert run_once(art, "train", "ldm", *LONG, KEPT, TRACKS).code == 0
    return art


@pytest.fixture
def own(tracked: Path, tmp_path: Path) -> Path:
    """Return a copy of it, to be changed at will."""
    return Path(shutil.copytree(tracked, tmp_path / "own"))


def flat(path: Path) -> Tensor:
    """Return all numbers of a safetensors file in one row."""
    return torch.cat([tensor.flatten() for _, tensor in sorted(read_tensors(path).items())])


@pytest.mark.slow
def test_a_run_leaves_24_snapshots_of_every_track(tracked: Path) -> None:
    """At every second of 48 steps, each with what it is beside it, and nothing temporary."""
    averages = list_averages(tracked / "runs/ldm")

    assert [(a.step, a.relative_std) for a in averages] == [(s, w) for s in range(2, 49, 2) for w in (0.05, 0.1)]
    assert averages[-1].path.name == "step-00000048_std0.1000.safetensors"
    about = json.loads(averages[-1].path.with_suffix(".json").read_text())
    assert about["gamma"] == pytest.approx(gamma_from_relative_std(0.1))
    assert len(list((tracked / "runs/ldm/averages").iterdir())) == 2 * len(averages)


@pytest.mark.parametrize("relative_std", [0.13, pytest.param(0.075, marks=pytest.mark.slow)])
def test_a_synthesized_model_is_the_one_of_a_run_that_tracked_it(
    run: Run, own: Path, story: Any, tmp_path: Path, relative_std: float
) -> None:
    """Its weights differ by less than 1 % of the way from the first snapshot to the last."""
    twin = Path(shutil.copytree(story.folder, tmp_path / "twin"))
    shutil.rmtree(twin / "runs/ldm")
    assert run(twin, "train", "ldm", *LONG, f"ldm.training.run.ema.relative_std={relative_std}").code == 0

    made = run(own, "ema", "--relative-std", relative_std)

    folder = own / f"runs/ldm/model-std{relative_std}"
    first, last = (flat(own / f"runs/ldm/averages/step-{step:08d}_std0.1000.safetensors") for step in (2, 48))
    direct = flat(twin / "runs/ldm/model/denoiser.safetensors")
    assert made.out == f"runs/ldm/model-std{relative_std}\n"
    assert "from 48 snapshots" in made.err
    assert (flat(folder / "denoiser.safetensors") - direct).norm() < 0.01 * (last - first).norm()


def test_the_model_says_what_it_is_and_is_sampled(run: Run, own: Path) -> None:
    """Width and step stand in model.json and in what `info` says; the rest is the run's model."""
    made = run(own, "ema", "--relative-std", "0.13", "--step", "40", "--out", "wide", "--json")
    about = json.loads((own / "wide/model.json").read_text())
    there = json.loads((own / "runs/ldm/model/model.json").read_text())

    said = json.loads(made.out)
    assert (said["model"], said["step"], said["snapshots"]) == ("wide", 40, 40)
    assert 0 < said["miss"] < 0.05
    assert about["training"]["ldm"] == {"step": 40, "steps": 48, "relative_std": 0.13}
    assert {**about, "training": None} == {**there, "training": None}
    assert run(own, "sample", "-s", "Cubism", "--grid", "1x1", "--model", "wide").code == 0
    assert "relative_std 0.13" in run(own, "info", "wide").out
    assert run(own, "ema", "--relative-std", "0.12", "--out", "wide").code == 0  # in place of the other


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (
            ("--relative-std", "0.01"),
            2,
            "48 snapshots up to step 48 make no average of width 0.01. They reach from 0.0",
        ),
        (("--relative-std", "0.5"), 2, "make no average of width 0.5. They reach from"),
        (("--relative-std", "-1"), 2, "make no average of width -1."),
        (("--relative-std", "0.1", "--step", "7"), 2, "there is no snapshot of step 7; the nearest is of step 6."),
        (("--relative-std", "0.1", "--out", "data"), 2, "data is in the way: it is no model folder."),
        (("--relative-std", "0.1", "--out", "runs/ldm/model"), 2, "runs/ldm/model is the run's own model."),
    ],
)
def test_what_cannot_be_made_is_refused(
    run: Run, own: Path, snapshot: Run, words: tuple[str, ...], code: int, message: str
) -> None:
    """One line that says what can, and nothing is written."""
    before = snapshot(own)

    assert message in run(own, "ema", *words).error(code)
    assert snapshot(own) == before


def test_a_run_without_tracks_has_no_snapshots(run: Run, workspace: Path) -> None:
    """The line says how they come."""
    line = run(workspace, "ema", "--relative-std", "0.1").error(6)

    assert "runs/ldm has no snapshots of averages." in line
    assert "ldm.training.run.ema.tracks=[0.05,0.1]" in line


@pytest.mark.parametrize("damage", ["flip", "cut", "gone", "about", "newer"])
def test_a_damaged_snapshot_is_named(run: Run, own: Path, damage: str) -> None:
    """A flipped bit, a torn or missing file and wrong JSON: the file, and that the others may do without it."""
    path = own / "runs/ldm/averages/step-00000010_std0.0500.safetensors"
    content = path.read_bytes()
    about = path.with_suffix(".json")
    match damage:
        case "flip":
            path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        case "cut":
            path.write_bytes(content[:100])
        case "gone":
            path.unlink()
        case "about":
            about.write_text("{}")
        case _:
            about.write_text(json.dumps({**json.loads(about.read_text()), "format": 99}))

    line = run(own, "ema", "--relative-std", "0.13").error(6)

    assert "averages/step-00000010_std0.0500" in line
    assert ("newer latentart" if damage == "newer" else "may do without it") in line
    if damage != "newer":
        about.unlink()
        assert run(own, "ema", "--relative-std", "0.13").code == 0


@pytest.mark.slow
def test_an_interrupted_run_leaves_the_same_snapshots(run: Run, own: Path, tracked: Path, snapshot: Run) -> None:
    """Stopped before its first one and gone on with: none is lost or different, and the model is the same."""
    shutil.rmtree(own / "runs/ldm")

    stopped = run(own, "train", "ldm", *LONG, KEPT, TRACKS, stop_at="ldm: step 1/")
    left = [average.step for average in list_averages(own / "runs/ldm")]
    again = run(own, "train", "ldm", *LONG, KEPT, TRACKS)

    assert (stopped.code, again.code) == (143, 0)
    assert left == []
    for part in ("averages", "model"):
        ours, theirs = (snapshot(art / "runs/ldm" / part) for art in (own, tracked))
        assert {name: content for name, (content, _) in ours.items()} == {
            n: content for n, (content, _) in theirs.items()
        }


@pytest.mark.parametrize("step", [21, 42])
def test_snapshots_from_after_the_checkpoint_are_made_anew(
    run: Run, own: Path, tracked: Path, snapshot: Run, step: int
) -> None:
    """A run that falls back drops what came later, even of a step that it will not take again, and ends the same."""
    for folder in (own / "runs/ldm/checkpoints").iterdir():
        if folder.name > f"step-{step:08d}":
            shutil.rmtree(folder)
    stray = own / "runs/ldm/averages/step-00000047_std0.1000.json"
    stray.write_text("{}")
    kept = own / "runs/ldm/averages/step-00000020_std0.1000.safetensors"
    before = kept.stat().st_mtime_ns

    again = run(own, "train", "ldm", *LONG, KEPT, TRACKS)

    assert again.code == 0, again.err
    assert f"steps {step} to 48" in again.err
    assert not stray.exists()
    assert kept.stat().st_mtime_ns == before
    ours, theirs = (snapshot(art / "runs/ldm/averages") for art in (own, tracked))
    assert {name: content for name, (content, _) in ours.items()} == {n: content for n, (content, _) in theirs.items()}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ([], "does not fit the config: ldm.training.run.ema.tracks was [0.05, 0.1] and is []."),
        (["ldm.training.run.ema.tracks=[0.05,0.2]"], "ldm.training.run.ema.tracks was [0.05, 0.1] and is [0.05, 0.2]"),
        ([TRACKS, "ldm.training.optimizer.kind=muon"], 'ldm.training.optimizer.kind was "adamw" and is "muon"'),
        ([TRACKS, "ldm.diffusion.weighting=learned"], 'ldm.diffusion.weighting was "uniform" and is "learned"'),
    ],
)
def test_other_tracks_or_optimizers_on_resume_are_refused(
    run: Run, own: Path, snapshot: Run, settings: list[str], message: str
) -> None:
    """An average or an optimizer cannot begin in the middle: the line names what was set otherwise."""
    if "uniform" in message:
        shutil.rmtree(own / "runs/ldm")
        assert run(own, "train", "ldm", TRACKS, "ldm.diffusion.weighting=uniform").code == 0
    before = snapshot(own)

    line = run(own, "train", "ldm", "ldm.training.steps=60", *settings).error(6)

    assert message in line
    assert "Put the config back as it was (runs/ldm/config.json)" in line
    assert snapshot(own) == before


def test_snapshots_are_listed_dropped_and_loaded(tmp_path: Path) -> None:
    """The pieces alone: float32 to the bit, in order, later ones deleted, another network refused."""
    narrow, wide = Ema(nn.Linear(3, 2), relative_std=0.05), Ema(nn.Linear(3, 2), relative_std=0.1)
    for step, ema in ((20, wide), (5, narrow), (20, narrow), (100, wide)):
        save_average(tmp_path, step, ema)
    taking = nn.Linear(3, 2)

    drop_averages(tmp_path, after=20)
    averages = list_averages(tmp_path)
    load_average(averages[-1], taking)

    assert [(a.step, a.relative_std) for a in averages] == [(5, 0.05), (20, 0.05), (20, 0.1)]
    assert len(list((tmp_path / "averages").iterdir())) == 6
    assert torch.equal(taking.weight, wide.network.get_parameter("weight"))
    with pytest.raises(ModelError, match=r"saved average step-00000005_std0\.0500\.safetensors does not fit"):
        load_average(averages[0], nn.Linear(3, 4))
    assert list_averages(tmp_path / "other") == []


def test_snapshots_from_before_an_average_began_anew_are_passed_over(tmp_path: Path) -> None:
    """They are of a network with fewer styles; when later ones are dropped they count again."""
    average = Ema(nn.Linear(2, 2), relative_std=0.05)
    for step, start in ((2, 0), (4, 0), (5, 4)):
        save_average(tmp_path, step, average, start)

    assert [(found.step, found.start) for found in list_averages(tmp_path)] == [(5, 4)]
    drop_averages(tmp_path, after=4)
    assert [(found.step, found.start) for found in list_averages(tmp_path)] == [(2, 0), (4, 0)]
