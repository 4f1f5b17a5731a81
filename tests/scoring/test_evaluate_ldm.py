"""`evaluate ldm`: scores, pictures and a line in the run; what is drawn is kept, and what is planted is found."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor

from latentart.data.synthetic.art import draw_picture
from latentart.layout import Workspace
from latentart.scoring import evaluation_samples
from latentart.scoring.judging import choose_halves, read_small
from latentart.storage.folders import commit_folder
from latentart.storage.tensors import read_tensors, write_tensors

Run = Callable[..., Any]
STYLES = ("Cubism", "High_Renaissance", "Minimalism")
COMMAND = ("evaluate", "ldm", "--steps", "2", "--quiet", "--per-style")
MEASURES = {"frechet", "kernel", "precision", "recall", "density", "coverage"}
PER_STYLE = 6


@pytest.fixture(scope="module")
def evaluated(story: Any, run_once: Run, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """Return a workspace with the story's models, 24 new pictures of each style, and what evaluating it wrote."""
    home = tmp_path_factory.mktemp("evaluated")
    folder = Path(shutil.copytree(story.folder, home / "art"))
    for name in ("data", "cache"):
        shutil.rmtree(folder / name)
    for style in STYLES:
        (home / "raw" / style).mkdir(parents=True)
        for index in range(24):
            draw_picture(style, 1, index, (32, 32)).save(home / "raw" / style / f"{index}.png")
    config = json.loads((folder / "latentart.json").read_text())
    config["data"] |= {"raw": str(home / "raw"), "held_out": 0.5}
    (folder / "latentart.json").write_text(json.dumps(config))
    assert run_once(folder, "clean-data", "data.workers=1", "--quiet").code == 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evaluation_samples, "SHARD", 8)
        done = run_once(folder, *COMMAND, PER_STYLE, "--json")
    assert done.code == 0, done.err
    return folder, done


@pytest.fixture
def art(evaluated: tuple[Path, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a copy of the evaluated workspace, whose shards hold 8 samples."""
    monkeypatch.setattr(evaluation_samples, "SHARD", 8)
    return Path(shutil.copytree(evaluated[0], tmp_path / "art", copy_function=shutil.copy2))


def shards(folder: Path) -> list[Path]:
    """Return the shards of the only set of samples."""
    return sorted((folder / "runs/ldm/evaluations").glob("*/shard-*"))


def pixels_of(folder: Path) -> list[Tensor]:
    """Return the samples of every shard, apart from the files."""
    return [read_tensors(shard / "samples.safetensors")["pixels"].clone() for shard in shards(folder)]


def plant(folder: Path, pixels: Tensor) -> None:
    """Put pictures in the place of all samples: number i of style i mod 3."""
    parts = torch.split(pixels, 8)
    assert len(parts) == len(shards(folder))
    for shard, part in zip(shards(folder), parts, strict=True):
        commit_folder(
            shard, lambda new, part=part: write_tensors(new / "samples.safetensors", {"pixels": part}), replace=True
        )


def by_turns(pixels: Tensor, style_id: Tensor, count: int) -> Tensor:
    """Return ``count`` pictures of each style, one style after the other in turn."""
    return torch.stack([pixels[style_id == style][:count] for style in range(len(STYLES))], dim=1).flatten(0, 1)


def test_it_writes_scores_pictures_and_a_line(evaluated: tuple[Path, Any]) -> None:
    """Every score for every style, within bounds; both pictures; the same in the run with a date."""
    folder, done = evaluated
    found = json.loads(done.out)

    assert (found["samples"], found["step"], found["per_style"]) == (18, 3, PER_STYLE)
    assert [row["style"] for row in found["styles"]] == list(STYLES)
    assert [row["samples"] for row in found["styles"]] == [PER_STYLE] * 3
    assert found["recognized"] == pytest.approx(sum(row["recognized"] for row in found["styles"]) / 3)
    assert found["measures"].keys() == found["real_measures"].keys() == MEASURES
    assert found["measures"]["frechet"]["value"] > found["real_measures"]["frechet"]["value"]
    assert found["copies"]["searched"] == found["copies"]["training"] == 36
    assert found["inception"] is None
    for name in ("confusion_picture", "closest_pairs_picture"):
        with Image.open(folder / found[name]) as picture:
            assert min(picture.size) > 100
    (line,) = (folder / "runs/ldm/evaluations.jsonl").read_text().splitlines()
    written = json.loads(line)
    assert written.pop("date")[:2] == "20"
    assert written == found


def test_again_draws_nothing_and_finds_the_same(art: Path, run: Run, evaluated: tuple[Path, Any]) -> None:
    """For people it is a table; the run has a second line, also where the first was torn."""
    before = {shard: shard.stat().st_mtime_ns for shard in shards(art)}
    log = art / "runs/ldm/evaluations.jsonl"
    log.write_text(log.read_text() + '{"date": "20')

    done = run(art, "evaluate", "ldm", "--steps", 2, "--per-style", PER_STYLE)

    assert done.code == 0, done.err
    assert "sample: step" not in done.err
    assert "judge: step" not in done.err
    assert {shard: shard.stat().st_mtime_ns for shard in shards(art)} == before
    assert all(name in done.out for name in (*STYLES, "recognized", "Fréchet", "confusion.png", "closest.png"))
    lines = log.read_text().splitlines()
    assert len(lines) == 3
    assert {**json.loads(lines[2]), "date": ""} == {**json.loads(lines[0]), "date": ""}


def test_a_stopped_one_goes_on(art: Path, run: Run) -> None:
    """A shard that is missing or damaged is drawn anew, with the same bits; the others stay."""
    before, first = pixels_of(art), shards(art)[0].stat().st_mtime_ns
    shutil.rmtree(shards(art)[2])
    damaged = shards(art)[1] / "samples.safetensors"
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"?")

    done = run(art, *COMMAND, PER_STYLE)

    assert done.code == 0, done.err
    assert all(map(torch.equal, pixels_of(art), before))
    assert shards(art)[0].stat().st_mtime_ns == first


def test_more_samples_join_those_that_are_there(art: Path, run: Run) -> None:
    """Whole shards stay, the last is drawn anew with those that join it: alike in float32, to a level of rounding.

    A processor may sum in another order where a batch has another size, so a gray level may tip over.
    """
    before, first = torch.cat(pixels_of(art)), shards(art)[0].stat().st_mtime_ns

    more = json.loads(run(art, *COMMAND, PER_STYLE + 2, "--json").out)
    fewer = json.loads(run(art, *COMMAND, PER_STYLE - 1, "--json").out)

    assert (more["samples"], fewer["samples"]) == (24, 15)
    assert torch.equal(torch.cat(pixels_of(art))[:16], before[:16])
    assert (torch.cat(pixels_of(art))[:18].int() - before.int()).abs().max() <= 1
    assert shards(art)[0].stat().st_mtime_ns == first


@pytest.mark.slow
def test_other_settings_have_another_place(art: Path, run: Run) -> None:
    """Nothing of a set of samples is taken for one of another seed or number of steps."""
    assert run(art, *COMMAND, PER_STYLE, "--seed", 1).code == 0
    assert run(art, "evaluate", "ldm", "--steps", 3, "--quiet", "--per-style", PER_STYLE).code == 0

    assert len(list((art / "runs/ldm/evaluations").iterdir())) == 3


def test_planted_copies_are_found(art: Path, run: Run) -> None:
    """Training pictures in the place of samples are copies, mirrored or not; pictures that it never saw are not."""
    workspace = Workspace.open(art / "latentart.json")
    entries, names = workspace.read_pictures()
    halves = choose_halves(workspace, entries)
    seen, seen_style = read_small(workspace, entries, names, halves.training, quiet=True)
    new, new_style = read_small(workspace, entries, names, halves.reference, quiet=True)
    copies = by_turns(seen, seen_style, PER_STYLE)
    copies[::2] = copies[::2].flip(-1)

    plant(art, copies)
    found = json.loads(run(art, *COMMAND, PER_STYLE, "--json").out)
    plant(art, by_turns(new, new_style, PER_STYLE))
    new_found = json.loads(run(art, *COMMAND, PER_STYLE, "--json").out)

    assert found["copies"]["found"] >= 17
    assert new_found["copies"]["found"] <= 1


def test_the_judge_is_not_fooled(art: Path, run: Run) -> None:
    """Real pictures are recognized and near; with shuffled labels they are neither."""
    workspace = Workspace.open(art / "latentart.json")
    entries, names = workspace.read_pictures()
    reference = choose_halves(workspace, entries).reference
    real = by_turns(*read_small(workspace, entries, names, reference, quiet=True), PER_STYLE)
    plant(art, real)
    found = json.loads(run(art, *COMMAND, PER_STYLE, "--json").out)
    plant(art, real.roll(1, 0))
    shuffled = json.loads(run(art, *COMMAND, PER_STYLE, "--json").out)

    assert found["recognized"] >= 0.6
    assert shuffled["recognized"] <= 0.2
    assert shuffled["measures"]["kernel"]["value"] > found["measures"]["kernel"]["value"]


def test_what_cannot_be_judged_is_said_in_one_line(art: Path, run: Run) -> None:
    """Nothing held out, no model, too many steps, no denoiser: before anything is drawn."""
    path = art / "latentart.json"
    config = json.loads(path.read_text())

    assert "is not within 1 to" in run(art, "evaluate", "ldm", "--steps", 5000).error(2)
    assert "there is no model at nowhere" in run(art, *COMMAND, 1, "--model", "nowhere").error(6)
    assert "has no denoiser yet" in run(art, *COMMAND, 1, "--model", "runs/vae/model").error(6)
    path.write_text(json.dumps({**config, "data": {**config["data"], "held_out": 0}}))
    assert "is held out of training, so there is nothing to compare with" in run(art, *COMMAND, 1).error(4)


def test_a_model_of_other_styles_is_refused(art: Path, run: Run) -> None:
    """It names the model and the clean set."""
    model = art / "runs/ldm/model"
    about = json.loads((model / "model.json").read_text())
    about["style_names"] = ["A", "B", "C"]

    def write(new: Path) -> None:
        for file in model.glob("*.safetensors"):
            shutil.copy(file, new)
        (new / "model.json").write_text(json.dumps(about))

    commit_folder(art / "other", write)

    assert "the model at other knows none of the styles of" in run(art, *COMMAND, 1, "--model", "other").error(6)


@pytest.mark.slow
def test_two_processes_share_the_drawing(art: Path, evaluated: tuple[Path, Any], run: Run) -> None:
    """The samples have the same bits as by one; the first process alone speaks."""
    before = torch.cat(pixels_of(art))
    shutil.rmtree(art / "runs/ldm/evaluations")
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--standalone", "-m"]
    words = [*map(str, COMMAND), str(PER_STYLE * 8), "--json", "--device", "cpu"]

    done = subprocess.run(
        [*launcher, "latentart", *words],
        cwd=art,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["samples"] == 8 * PER_STYLE * 3
    assert torch.equal(torch.cat(pixels_of(art))[:18], before)
