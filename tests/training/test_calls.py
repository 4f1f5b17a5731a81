"""What one call asks for: where it goes on from, when it ends; and which settings may change meanwhile."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from latentart.storage.checkpoints import find_checkpoint, load_checkpoint

Run = Callable[..., Any]
STEP = "step-{:08d}".format
EACH = "ldm.training.run.checkpoint_every=1"


def flip(path: Path) -> None:
    """Flip the last bit of a file."""
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def tensors(folder: Path) -> dict[str, bytes]:
    """Return the tensor files of a folder."""
    found = {path.name: path.read_bytes() for path in folder.glob("*.safetensors")}
    assert found
    return found


def steps(run: Path) -> list[int]:
    """Return the steps whose checkpoints are there."""
    return sorted(int(path.name[5:]) for path in (run / "checkpoints").iterdir())


@pytest.fixture
def denoisers(workspace: Path, run: Run) -> Path:
    """Return a workspace whose denoiser has three checkpoints, of steps 1 to 3."""
    shutil.rmtree(workspace / "runs/ldm")
    assert run(workspace, "train", "ldm", EACH, "ldm.training.run.keep_checkpoints=9").code == 0
    return workspace


def test_max_steps_stops_each_call_and_the_end_is_the_same(story: Any, run: Run, cleaned: Path) -> None:
    """Call by call, over the ends of stages too, with the same bits; each says how to go on."""
    calls = [run(cleaned, "train", "vae", "--max-steps", "4") for _ in range(3)]

    assert [call.code for call in calls] == [0, 0, 0]
    assert [call.out.strip() for call in calls] == [
        f"runs/vae/checkpoints/{STEP(4)}",
        f"runs/vae/checkpoints/{STEP(8)}",
        "runs/vae/model",
    ]
    assert "Stopped by --max-steps: step 4 is saved. Run the same command again to go on." in calls[0].err
    for name in ("model", f"checkpoints/{STEP(10)}"):
        assert tensors(cleaned / "runs/vae" / name) == tensors(story.folder / "runs/vae" / name)


@pytest.mark.slow
def test_milestones_stay(run: Run, workspace: Path) -> None:
    """Every second checkpoint stays beside the newest two; in stages too, whose ends always stay."""
    words = ("ldm.training.steps=7", EACH, "ldm.training.run.milestone_every=2", "vae.run.milestone_every=4")
    shutil.rmtree(workspace / "runs")

    assert run(workspace, "train", "vae", *words).code == 0
    assert run(workspace, "train", "ldm", *words).code == 0

    assert steps(workspace / "runs/ldm") == [2, 4, 6, 7]
    assert steps(workspace / "runs/vae") == [3, 4, 6, 8, 10]


def test_a_limit_at_the_end_of_a_stage_finishes_it(run: Run, cleaned: Path) -> None:
    """Its model is there, and no step of the next one is made."""
    done = run(cleaned, "train", "vae", "--max-steps", "3", "--json")

    assert {key: json.loads(done.out)[key] for key in ("stages", "paused_at")} == {"stages": ["l1"], "paused_at": 3}
    assert (cleaned / "runs/vae/model/model.json").exists()
    assert run(cleaned, "train", "vae", "--stage", "l1", "--max-steps", "1").err.startswith("stage l1 is finished")


def test_a_limit_stops_the_denoiser_too(story: Any, run: Run, workspace: Path) -> None:
    """Time that is used up stops after one step; the rest ends with the same bits."""
    shutil.rmtree(workspace / "runs/ldm")
    first = run(workspace, "train", "ldm", "--max-steps", "1", "--json")
    second = run(workspace, "train", "ldm", "--max-time", "1h")

    assert json.loads(first.out)["paused_at"] == 1
    assert (first.code, second.code, second.out) == (0, 0, "runs/ldm/model\n")
    last = f"runs/ldm/checkpoints/{STEP(3)}"
    assert tensors(workspace / last) == tensors(story.folder / last)


def test_max_time_stops_with_a_checkpoint(run: Run, workspace: Path) -> None:
    """A second is over long before these steps are."""
    shutil.rmtree(workspace / "runs/ldm")

    done = run(workspace, "train", "ldm", "--max-time", "1s", "ldm.training.steps=100000")

    assert done.code == 0
    assert "Stopped by --max-time: step " in done.err
    assert find_checkpoint(workspace / "runs/ldm") is not None


def test_a_signal_at_the_last_step_of_a_stage_stops_before_the_next(run: Run, cleaned: Path) -> None:
    """It is not forgotten between stages; the stage that is finished gets its model in the next call."""
    short = "vae.stages.l1.steps=1"
    stopped = run(cleaned, "train", "vae", short, stop_at="vae l1: step 1/")
    again = run(cleaned, "train", "vae", "--stage", "l1", short)

    assert "step 1 is saved in runs/vae" in stopped.error(143)
    assert again.code == 0
    assert (cleaned / "runs/vae/model/model.json").exists()


def test_never_begins_in_an_empty_run_alone(run: Run, workspace: Path, snapshot: Run) -> None:
    """Else it says what to move away, and nothing is touched."""
    before = snapshot(workspace)
    lines = [run(workspace, "train", kind, "--resume", "never").error(2) for kind in ("vae", "ldm")]
    assert snapshot(workspace) == before
    (workspace / "runs/ldm").rename(workspace / "aside")
    anew = run(workspace, "train", "ldm", "--resume", "never")

    assert "runs/vae is not empty: it has checkpoints, model. Move runs/vae away" in lines[0]
    assert "runs/ldm is not empty" in lines[1]
    assert anew.code == 0


def test_a_named_checkpoint_of_another_run_is_gone_on_from(run: Run, denoisers: Path) -> None:
    """The end is the same, and the other run is only read."""
    other, mine = denoisers / "other", denoisers / "runs/ldm"
    mine.rename(other)
    before = {path: path.stat().st_mtime_ns for path in other.rglob("*")}

    done = run(denoisers, "train", "ldm", "--resume", f"other/checkpoints/{STEP(1)}")

    assert done.code == 0
    assert tensors(mine / "checkpoints" / STEP(3)) == tensors(other / "checkpoints" / STEP(3))
    assert json.loads((mine / "metrics.jsonl").read_text().splitlines()[0])["step"] == 2
    assert {path: path.stat().st_mtime_ns for path in other.rglob("*")} == before


def test_a_named_checkpoint_never_replaces_newer_ones(run: Run, denoisers: Path, snapshot: Run) -> None:
    """Of this run: newer ones have to be moved away; of another: this one must be empty."""
    shutil.copytree(denoisers / "runs/ldm", denoisers / "other")
    before = snapshot(denoisers)
    own = run(denoisers, "train", "ldm", "--resume", f"runs/ldm/checkpoints/{STEP(1)}").error(2)
    foreign = run(denoisers, "train", "ldm", "--resume", f"other/checkpoints/{STEP(3)}").error(2)
    assert snapshot(denoisers) == before
    for step in (2, 3):
        (denoisers / f"runs/ldm/checkpoints/{STEP(step)}").rename(denoisers / STEP(step))
    done = run(denoisers, "train", "ldm", "--resume", f"runs/ldm/checkpoints/{STEP(1)}")

    assert f"runs/ldm has checkpoints, newer ones than step 1, up to {STEP(3)}" in own
    assert "runs/ldm has checkpoints, others, up to" in foreign
    assert done.code == 0
    assert tensors(denoisers / f"runs/ldm/checkpoints/{STEP(3)}") == tensors(denoisers / STEP(3))


def test_a_named_checkpoint_that_is_damaged_or_another_s_is_refused(run: Run, denoisers: Path) -> None:
    """It is not passed over, as it was asked for."""
    (denoisers / "runs/ldm").rename(denoisers / "other")
    flip(denoisers / "other/checkpoints" / STEP(2) / "ema.safetensors")

    damaged = run(denoisers, "train", "ldm", "--resume", f"other/checkpoints/{STEP(2)}").error(6)
    foreign = run(denoisers, "train", "ldm", "--resume", f"runs/vae/checkpoints/{STEP(10)}").error(6)
    folder = run(denoisers, "train", "ldm", "--resume", "other").error(6)

    assert f"other/checkpoints/{STEP(2)}/ema.safetensors is damaged" in damaged
    assert f"runs/vae/checkpoints/{STEP(10)} is no checkpoint of the denoiser." in foreign
    assert "other" in folder
    assert not (denoisers / "runs/ldm").exists()


def test_no_sound_checkpoint_is_not_taken_for_an_empty_run(run: Run, denoisers: Path, snapshot: Run) -> None:
    """With every one damaged, or all gone and a model there, nothing begins anew by itself."""
    for step in (1, 2, 3):
        flip(denoisers / f"runs/ldm/checkpoints/{STEP(step)}/ema.safetensors")
    before = snapshot(denoisers)
    damaged = run(denoisers, "train", "ldm")
    assert snapshot(denoisers) == before
    shutil.rmtree(denoisers / "runs/ldm/checkpoints")
    before = snapshot(denoisers)
    gone = run(denoisers, "train", "ldm").error(6)

    assert "none of the 3 checkpoints in runs/ldm is sound" in damaged.error(6)
    assert [damaged.err.count(f"Skipping the checkpoint {STEP(step)}") for step in (1, 2, 3)] == [1, 1, 1]
    assert "runs/ldm has a model, but no checkpoint to go on from. Move runs/ldm away" in gone
    assert snapshot(denoisers) == before


@pytest.mark.parametrize("kind", ["vae", "ldm"])
def test_harmless_changes_are_noted_and_take_effect(run: Run, cleaned: Path, kind: str) -> None:
    """The log says what was and is, once; the optimizers' edited settings hold from there on."""
    run(cleaned, "train", "vae", "--stage", "l1", *(("--max-steps", "2") if kind == "vae" else ()))
    group = "vae" if kind == "vae" else "ldm.training"
    more = ("vae.discriminator.weight_decay=0.3",) if kind == "vae" else ("ldm.training.steps=4",)
    if kind == "ldm":
        run(cleaned, "train", "ldm", "--max-steps", "2")
    edited = (
        f"{group}.optimizer.lr=1e-4",
        f"{group}.optimizer.betas=[0.4,0.95]",
        f"{group}.optimizer.weight_decay=0.2",
    )

    assert run(cleaned, "train", kind, *edited, *more, "--max-steps", "1").code == 0

    log = (cleaned / f"runs/{kind}/log.txt").read_text()
    was = load_checkpoint(cleaned / f"runs/{kind}/checkpoints/{STEP(2)}").state["config"]
    for name in group.split("."):
        was = was[name]
    assert log.count(f"{group}.optimizer.lr was {was['optimizer']['lr']} and is 0.0001") == 1
    assert f"{group}.optimizer.betas was {was['optimizer']['betas']} and is [0.4, 0.95]" in log
    assert ("ldm.training.steps was 3 and is 4" if kind == "ldm" else "vae.discriminator.weight_decay was") in log
    optimizers = load_checkpoint(cleaned / f"runs/{kind}/checkpoints/{STEP(3)}").state["optimizers"]
    for name, decay in (("optimizer", 0.2), ("discriminator_optimizer", 0.3)):
        if name in optimizers:
            groups = optimizers[name]["param_groups"]
            assert all(one["betas"] == [0.4, 0.95] for one in groups)
            assert {one["weight_decay"] for one in groups} == {decay, 0.0}
    assert ("discriminator_optimizer" in optimizers) == (kind == "vae")


def test_a_second_process_is_kept_out(run: Run, workspace: Path, snapshot: Run) -> None:
    """A lock whose process lives is one line, and nothing is touched."""
    (workspace / "runs/ldm/lock").write_text(str(os.getppid()))
    before = snapshot(workspace)

    line = run(workspace, "train", "ldm").error(5)

    assert f"runs/ldm is in use by process {os.getppid()}. Wait for it, or delete runs/ldm/lock" in line
    assert snapshot(workspace) == before


@pytest.mark.parametrize(("kind", "setting"), [("vae", "vae.run"), ("ldm", "ldm.training.run")])
def test_a_disk_too_small_is_said_before_the_run(run: Run, cleaned: Path, story: Any, kind: str, setting: str) -> None:
    """What is needed, what is free and what to lower; nothing is left behind."""
    if kind == "ldm":
        shutil.copytree(story.folder / "runs/vae", cleaned / "runs/vae")

    line = run(cleaned, "train", kind, f"{setting}.keep_checkpoints=1000000000").error(5)

    assert f"runs/{kind} needs " in line
    assert " GB for checkpoints and model; " in line
    assert f"lower {setting}.keep_checkpoints (1000000000)" in line
    assert not (cleaned / f"runs/{kind}").exists()


def test_a_file_in_the_place_of_the_checkpoints_is_said_before_the_run(run: Run, cleaned: Path) -> None:
    """Not after the first thousand steps."""
    (cleaned / "runs/vae").mkdir(parents=True)
    (cleaned / "runs/vae/checkpoints").write_text("mine")

    line = run(cleaned, "train", "vae").error(5)

    assert "runs/vae/checkpoints cannot be written: " in line
    assert [path.name for path in (cleaned / "runs/vae").iterdir()] == ["checkpoints"]


def test_a_request_saves_and_the_run_goes_on(
    story: Any, run: Run, workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SIGUSR1, as a scheduler sends it before its limit: one more checkpoint, and the same end."""
    shutil.rmtree(workspace / "runs/ldm")
    kill = os.kill
    monkeypatch.setattr(os, "kill", lambda pid, _: kill(pid, signal.SIGUSR1))  # what the screen's trigger sends

    done = run(workspace, "train", "ldm", stop_at="ldm: step 1/")

    assert done.code == 0
    assert steps(workspace / "runs/ldm") == [1, 3]
    assert "step 1: a checkpoint was asked for" in (workspace / "runs/ldm/log.txt").read_text()
    last = f"runs/ldm/checkpoints/{STEP(3)}"
    assert tensors(workspace / last) == tensors(story.folder / last)


def test_a_resume_names_its_checkpoint_and_what_is_kept(run: Run, cleaned: Path) -> None:
    """Whoever goes on reads from where, and that nothing before it is lost."""
    run(cleaned, "train", "vae", "--max-steps", "1")

    done = run(cleaned, "train", "vae", "--max-steps", "1")

    assert (
        "goes on from step-00000001 in runs/vae/checkpoints: the checkpoints, previews and numbers up to " in done.err
    )
