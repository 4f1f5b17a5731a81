"""`latentart plan` on tiny workspaces: what it says before, amid and after a training, and that it only looks."""

from __future__ import annotations

import json
import multiprocessing
import operator
import os
import shutil
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from latentart.cli.planning import duration, size
from latentart.config.workspace import preset_tree
from latentart.data.index import IndexEntry, read_index
from latentart.errors import ConfigError, ResourceError
from latentart.layout import Workspace
from latentart.planning.estimate import Occasions, Phase
from latentart.planning.phases import Planner, find_standing, scratch_workspace
from latentart.planning.pictures import Pictures, choose, find_pictures, take_some
from latentart.planning.plan import Plan, find_shortages, say_size, scratch_folder
from latentart.planning.process import call_apart
from latentart.planning.trial import Trial, changed, try_training
from latentart.scoring.reconstructions import vae_passes
from latentart.training.steps.memory import ldm_shortage

Run = Callable[..., Any]
BARE = ("ldm.training.run.verdict=false",)


def entry(number: int, style: str) -> IndexEntry:
    """Return an entry of an index."""
    return IndexEntry(f"{style}/{number}.jpg", f"{style}/{number}.jpg", style, f"{number}", 8, 8)


def pictures_of(count: int) -> Pictures:
    """Return so many pictures of one style."""
    return Pictures(Path(), [], count, count, 0, 1)


def a_plan(**changes: Any) -> Plan:
    """Return a plan of one phase."""
    phases = [Phase("vae l1", 100.0, 10, 0.1, memory=4 * 10**9, disk=3 * 10**9)]
    return replace(Plan(phases, 5.0, 2, 10, True, 8 * 10**9, 10**10, []), **changes)


def test_a_plan_sums_up() -> None:
    """Seconds with the start of every command, and bytes."""
    told = a_plan().to_json()

    assert (told["seconds"], told["disk"]) == (110.0, 3 * 10**9)
    assert told["phases"][0]["steps_per_second"] == 0.1


def test_what_does_not_suffice_is_said() -> None:
    """Memory by phase, and the disk for all; enough of both needs no word."""
    assert find_shortages(a_plan()) == []
    assert find_shortages(a_plan(memory_available=None)) == []
    (memory,) = find_shortages(a_plan(memory_available=3 * 10**9))
    (disk,) = find_shortages(a_plan(disk_free=10**9))
    assert memory.startswith("vae l1 needs 4 GB of memory, and 3 GB are left: ")
    assert disk == "the disk is too small: 3 GB are to be written, and 1 GB are free"


def test_the_size_of_the_network_is_set_against_the_pictures(story: Any) -> None:
    """The rule is training's; where the size fits, that is said too."""
    config = Workspace.open(story.folder / "latentart.json").config

    assert "it may not hold them all. By our rule of thumb ldm.model.size=XS fits" in say_size(
        config, pictures_of(1300)
    )
    assert say_size(config, pictures_of(13)).startswith("denoiser: 0.0")
    larger = ["ldm.model.size=XS", 'ldm.model.attention=["none","none","linear"]', "ldm.training.resolution=64"]
    demo = Workspace.open(story.folder / "latentart.json", larger).config
    assert "for 1300 pictures: by our rule of thumb that fits (size XS, some 5 M)" in say_size(demo, pictures_of(1300))
    assert "fewer than 500 pictures (13): expect samples that repeat them" in say_size(demo, pictures_of(13))


def test_some_pictures_stand_for_all() -> None:
    """Two of every style at the least, in their order; a small set is taken whole."""
    entries = [entry(i, "A") for i in range(90)] + [entry(90 + i, "B") for i in range(3)] + [entry(99, "C")]

    chosen = choose(entries, 10)

    assert len(chosen) == 10
    assert [one.style for one in chosen] == ["A"] * 7 + ["B"] * 2 + ["C"]
    assert chosen == sorted(chosen, key=entries.index)
    assert choose(entries, 94) is entries
    assert [one.style for one in choose(entries, 1)] == ["A", "A", "B", "B", "C"]


def test_pictures_are_linked_and_can_be_read(story: Any, tmp_path: Path) -> None:
    """The folder of a trial is a clean set of its own."""
    workspace = Workspace.open(story.folder / "latentart.json")
    found = find_pictures(workspace, tmp_path)

    folder = take_some(found, 6, tmp_path / "data")

    entries = read_index(folder / "index.jsonl")
    assert len(entries) == 6
    assert {one.style for one in entries} == set(workspace.read_pictures()[1])
    assert all((folder / one.file).read_bytes() == (workspace.data / one.file).read_bytes() for one in entries)
    assert (found.count, found.num_styles, found.raw_files) == (15, 3, 0)


def test_raw_files_are_counted_and_some_are_cleaned(init_tiny: Run, story: Any, tmp_path: Path, snapshot: Run) -> None:
    """Before clean-data a sample tells how many there will be; the raw folder is only read."""
    raw = shutil.copytree(story.raw, tmp_path / "raw")
    for name in ("a.txt", "a.json", "Thumbs.db"):  # beside the pictures, which clean-data does not count either
        (next(path for path in raw.iterdir() if path.is_dir()) / name).write_bytes(bytes(10_000))
    workspace = Workspace.open(init_tiny(raw, "data.workers=1") / "latentart.json")
    before = snapshot(raw)

    found = find_pictures(workspace, tmp_path / "scratch")

    assert (found.raw_files, found.count, found.num_styles) == (15, 15, 3)
    assert found.num_training + found.num_held_out == 15
    assert found.clean_seconds > 0
    assert found.clean_bytes == sum((found.root / one.file).stat().st_size for one in found.entries)
    assert snapshot(raw) == before
    assert not workspace.data.exists()


def test_a_run_says_where_it_stands(story: Any, tmp_path: Path) -> None:
    """From the state of its newest checkpoint, without its tensors; a torn one is passed over."""
    workspace = Workspace.open(story.folder / "latentart.json")

    standing = find_standing(workspace.vae_run)

    assert list(standing.done) == ["l1", "adversarial", "lpips", "hires"]
    assert (standing.stage, standing.step) == ("hires", standing.done["hires"])
    assert find_standing(workspace.ldm_run).step == 3
    assert find_standing(tmp_path).step == 0
    torn = tmp_path / "checkpoints/step-00000009"
    torn.mkdir(parents=True)
    (torn / "state.json").write_text("{")
    assert find_standing(tmp_path).step == 0


def test_a_finished_stage_that_a_new_cycle_makes_longer_is_planned(story: Any, tmp_path: Path) -> None:
    """The one that the run ended with, by the rule of the training; without the word nothing is left."""

    def left(*words: str) -> list[str]:
        settings = [f"vae.stages.hires.{word}" for word in words]
        workspace = Workspace.open(story.folder / "latentart.json", settings)
        planner = Planner(workspace, None, 1.0, tmp_path, find_pictures(workspace, tmp_path))
        return planner.stages_left(find_standing(workspace.vae_run))

    assert left() == left("epochs=99") == left("new_cycle_at=1") == []
    assert left("epochs=99", "new_cycle_at=1") == ["hires"]


@pytest.mark.slow
def test_a_stage_is_tried_to_its_end(story: Any, tmp_path: Path) -> None:
    """The real recipe runs in a folder apart, and everything is measured: steps of each part, files, memory."""
    workspace = Workspace.open(story.folder / "latentart.json", BARE)
    take_some(find_pictures(workspace, tmp_path), 15, tmp_path / "data")
    scratch = scratch_workspace(workspace, tmp_path)

    found = try_training(Trial(scratch, "l1", "cpu", 3.0, ("before", "whole"), Occasions(1, 1), ending=20.0))

    assert set(found.step) == {"before", "whole"}
    assert min(found.step.values()) > 0
    assert found.is_whole
    assert (found.tried, found.encode) == ((), 0.0)
    checkpoint = next((workspace.vae_run / "checkpoints").iterdir())
    assert found.checkpoint_bytes == pytest.approx(sum(p.stat().st_size for p in checkpoint.iterdir()), rel=0.1)
    assert found.model_bytes == pytest.approx(
        sum(p.stat().st_size for p in (workspace.vae_run / "model").iterdir()), rel=0.1
    )
    assert found.preview_bytes > 0
    assert found.line_bytes > 0
    assert found.memory is not None


def test_a_step_that_takes_too_long_is_derived(story: Any, tmp_path: Path) -> None:
    """Without time for the real batch smaller ones are tried, and nothing else is measured."""
    workspace = Workspace.open(story.folder / "latentart.json", BARE)
    take_some(find_pictures(workspace, tmp_path), 15, tmp_path / "data")
    stage = changed(workspace.config.vae.stages[0], {"batch_size": 100_000})
    scratch = scratch_workspace(workspace, tmp_path)
    config = changed(scratch.config, {"vae.stages": (stage,)})

    found = try_training(Trial(Workspace(tmp_path, config), stage.name, "cpu", 0.01))

    assert found.tried == (1,)
    assert not found.is_whole
    assert found.step["whole"] > 0
    assert found.checkpoint_bytes > 0


def test_the_end_of_a_stage_counts_its_pictures() -> None:
    """Error, scores, latents, preview: as many as the evaluation takes."""
    assert vae_passes(960, 64) == (64, 64, 256, 8)
    assert vae_passes(78_000, 1600) == (64, 256, 256, 8)
    assert vae_passes(5, 0) == (5, 5, 5, 5)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.04, "0.0 s"),
        (9.94, "9.9 s"),
        (48.2, "48 s"),
        (210, "3 min 30 s"),
        (7500, "2 h 05 min"),
        (10**6, "11 d 14 h"),
        (59.7, "1 min 00 s"),
    ],
)
def test_times_are_said_as_people_say_them(seconds: float, text: str) -> None:
    """Two units at most."""
    assert duration(seconds) == text


def test_sizes_are_decimal() -> None:
    """As disks are sold."""
    assert [size(n) for n in (0, 1500, 2_340_000, 10**9, 25 * 10**11)] == [
        "0 kB",
        "1.5 kB",
        "2.34 MB",
        "1 GB",
        "2.5 TB",
    ]


def test_a_workspace_without_pictures_is_told_so(run: Run, tmp_path: Path) -> None:
    """One line, and nothing is left behind."""
    run(tmp_path, "init", "art", "--preset", "demo")
    before = sorted(path.name for path in (tmp_path / "art").iterdir())

    assert "neither a clean set at data nor a raw folder at raw" in run(tmp_path / "art", "plan").error(4)
    assert sorted(path.name for path in (tmp_path / "art").iterdir()) == before


@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP", "SIGINT"])
def test_a_plan_that_is_ended_leaves_nothing(story: Any, tmp_path: Path, name: str) -> None:
    """Its folder goes, whoever ends it; the signal's exit code stays, and its handler is given back."""
    workspace = Workspace(tmp_path, Workspace.open(story.folder / "latentart.json").config)
    number, former = signal.Signals[name], signal.getsignal(signal.Signals[name])
    caught: list[BaseException] = []

    try:
        with scratch_folder(workspace) as scratch:
            (scratch / "large").write_text("x")
            signal.raise_signal(number)
    except (SystemExit, KeyboardInterrupt) as error:
        caught.append(error)

    assert [getattr(error, "code", 130) for error in caught] == [128 + number]
    assert list(tmp_path.iterdir()) == []
    assert signal.getsignal(number) == former


def test_what_goes_wrong_in_a_plan_is_not_the_caches(story: Any, tmp_path: Path) -> None:
    """An error on the way keeps its own words; a cache that cannot be made is named."""
    workspace = Workspace(tmp_path, Workspace.open(story.folder / "latentart.json").config)
    with pytest.raises(PermissionError, match="elsewhere"), scratch_folder(workspace):
        raise PermissionError("elsewhere")

    (tmp_path / "cache").write_text("a file of the user's")
    with pytest.raises(ResourceError, match="cache cannot be written"), scratch_folder(workspace):
        pass
    assert (tmp_path / "cache").read_text() == "a file of the user's"


@pytest.mark.slow
def test_a_plan_before_amid_and_after_a_training(run: Run, cleaned: Path, snapshot: Run) -> None:
    """All phases, then what is left of them, then nothing; no file of the workspace is touched."""
    before = snapshot(cleaned)
    first = json.loads(run(cleaned, "plan", "--seconds", "5", "--json", *BARE).out)
    assert snapshot(cleaned) == before

    run(cleaned, "train", "vae", "--stage", "l1", *BARE)
    run(cleaned, "train", "vae", "--stage", "adversarial", "--max-steps", "1", *BARE)
    amid = json.loads(run(cleaned, "plan", "--seconds", "5", "--json", *BARE).out)
    run(cleaned, "train", "vae", *BARE)
    run(cleaned, "train", "ldm", *BARE)
    before = snapshot(cleaned)
    after = run(cleaned, "plan", "--seconds", "5", *BARE)

    names = [(phase["name"], phase["steps"]) for phase in first["phases"]]
    stages = [("vae l1", 3), ("vae adversarial", 3), ("vae lpips", 2), ("vae hires", 2)]
    assert names == [*stages, ("encode", None), ("ldm", 3)]
    assert [(phase["name"], phase["steps"]) for phase in amid["phases"]][:2] == [
        ("vae adversarial", 2),
        ("vae lpips", 2),
    ]
    assert first["commands"] == 2
    assert all(phase["seconds"] > 0 for phase in first["phases"])
    assert all(phase["memory"] > 10**8 for phase in first["phases"] if phase["steps"])
    assert first["seconds"] == sum(p["seconds"] for p in first["phases"]) + 2 * first["start_seconds"]
    assert snapshot(cleaned) == before
    assert "Nothing is left to train" in after.err


@pytest.mark.slow
def test_who_is_interrupted_leaves_no_trial_behind() -> None:
    """The process is ended at once, however long it would last."""
    presses_ctrl_c = f"(__import__('os').kill({os.getpid()}, 2), __import__('time').sleep(3600))"
    began = time.monotonic()

    with pytest.raises(KeyboardInterrupt):
        call_apart(eval, presses_ctrl_c)

    assert time.monotonic() - began < 600
    assert multiprocessing.active_children() == []


@pytest.mark.slow
def test_a_call_apart_brings_back_what_happened() -> None:
    """A result, a known error with its hint, full memory, a bug, and an end from outside."""
    assert call_apart(operator.neg, 3) == -3
    with pytest.raises(ConfigError, match="there is no preset 'nope'") as known:
        call_apart(preset_tree, "nope")
    assert known.value.hint.startswith("Presets: ")
    with pytest.raises(ResourceError, match="the memory is full"):
        call_apart(torch.empty, 2**45)
    with pytest.raises(TypeError, match="bad operand"):
        call_apart(operator.neg, "text")
    with pytest.raises(RuntimeError, match="ended with 3"):
        call_apart(os._exit, 3)
    with pytest.raises(ResourceError, match="as memory was out"):
        call_apart(signal.raise_signal, signal.SIGKILL)


@pytest.mark.parametrize(("left", "is_said"), [(10**4, True), (10**12, False)])
def test_training_says_where_a_step_does_not_fit(
    story: Any, left: int, is_said: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By what one picture needs, times the batch, and the weights' gradients and moments."""
    from latentart.process.devices import Placement
    from latentart.training.build import build_ldm_step
    from latentart.training.steps import memory

    config = Workspace.open(story.folder / "latentart.json").config
    step_fn = build_ldm_step(config.ldm, 4, [3], 3, Placement(torch.device("cpu"), "fp32"), 0)
    monkeypatch.setattr(memory, "available_bytes", lambda _: left)
    before = {name: tensor.clone() for name, tensor in step_fn.denoiser.state_dict().items()}

    said = ldm_shortage(step_fn, (4, 8, 8), torch.tensor([0, 1]), 16)

    assert said.startswith("warning: a step needs ") if is_said else said == ""
    assert all(torch.equal(before[name], tensor) for name, tensor in step_fn.denoiser.state_dict().items())
    assert all(parameter.grad is None for parameter in step_fn.denoiser.parameters())
