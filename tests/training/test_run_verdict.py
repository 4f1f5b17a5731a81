"""The verdict in a run: what is measured, where it is written, and that it changes nothing."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from latentart.layout import Workspace
from latentart.scoring.judging import judge_key
from latentart.scoring.metrics.judge import Judge
from latentart.scoring.run_history import RunHistory
from latentart.storage.folders import commit_folder
from latentart.storage.tensors import write_tensors
from latentart.training.log import RunLog
from latentart.training.verdicts import RunVerdict, without_harm

Run = Callable[..., Any]
OFTEN = ("ldm.training.run.preview_every=2", "ldm.training.run.evaluate_every=1", "ldm.training.steps=6")
ON = ("ldm.training.run.verdict=true", *OFTEN)


def metrics(run: Path) -> list[dict[str, Any]]:
    """Return the lines of a run's metrics."""
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def tensors(art: Path) -> dict[str, bytes]:
    """Return every tensor file of the denoiser's last checkpoint."""
    folder = max((art / "runs/ldm/checkpoints").iterdir())
    return {path.name: path.read_bytes() for path in folder.glob("*.safetensors")}


def plant_judge(art: Path) -> None:
    """Put an untrained judge where the workspace looks for its own: to train one takes seconds."""
    workspace = Workspace.open(art / "latentart.json")
    entries, names = workspace.read_pictures()

    def write(folder: Path) -> None:
        write_tensors(folder / "judge.safetensors", dict(Judge(len(names)).state_dict()))

    commit_folder(workspace.cache / f"judge-{judge_key(workspace, entries)}", write)


@pytest.mark.slow
def test_previews_are_judged_and_the_run_stays_the_same(run: Run, workspace: Path) -> None:
    """Each page has its numbers and its verdict, a resumed run too; the weights are those of a run without."""
    shutil.rmtree(workspace / "runs/ldm")
    plant_judge(workspace)
    assert run(workspace, "train", "ldm", *ON, stop_at="ldm: step 1/").code == 143
    assert run(workspace, "train", "ldm", *ON).code == 0
    ours, lines = tensors(workspace), metrics(workspace / "runs/ldm")
    shutil.rmtree(workspace / "runs/ldm")
    assert run(workspace, "train", "ldm", *OFTEN, "ldm.training.run.verdict=false").code == 0

    measured, said = ([line for line in lines if name in line] for name in ("recognition", "verdict"))
    assert [line["step"] for line in said] == [line["step"] for line in measured]
    assert said[-1]["step"] == 6
    assert said[-1]["evidence"]
    assert {"recognition_chance": 1 / 3, "judged_samples": 12, "blank_loss": 1.0}.items() <= measured[-1].items()
    assert 0 <= measured[-1]["recognition"] <= 1
    assert "copies" not in measured[-1]  # of one held-out picture nothing follows
    assert ours == tensors(workspace)
    assert not [line for line in metrics(workspace / "runs/ldm") if "verdict" in line]


@pytest.mark.slow
def test_a_judge_is_trained_at_the_first_page(run: Run, workspace: Path) -> None:
    """And kept; the run's weights are the same, for no random number is taken from it."""
    shutil.rmtree(workspace / "runs/ldm")
    assert run(workspace, "train", "ldm", *ON).code == 0
    ours, judges = tensors(workspace), list((workspace / "cache").glob("judge-*"))
    shutil.rmtree(workspace / "runs/ldm")
    assert run(workspace, "train", "ldm", *OFTEN).code == 0

    assert len(judges) == 1
    assert ours == tensors(workspace)


@pytest.mark.slow
def test_a_judge_that_cannot_be_had_is_a_warning(run: Run, workspace: Path) -> None:
    """The run goes on to its end, and is judged by what there is."""
    shutil.rmtree(workspace / "runs/ldm")
    for path in (workspace / "data").glob("*/*.png"):
        path.write_bytes(b"")

    done = run(workspace, "train", "ldm", *ON)

    assert done.code == 0
    assert "The verdict does without a judge" in done.err
    assert [line["step"] for line in metrics(workspace / "runs/ldm") if "verdict" in line] == [2, 4, 6]


def test_an_autoencoders_stages_are_judged(run: Run, cleaned: Path) -> None:
    """Each by itself, beside the error of one who knows colors alone."""
    settings = ("vae.run.preview_every=1", "vae.run.evaluate_every=1")
    assert run(cleaned, "train", "vae", "--stage", "l1", *settings).code == 0

    said = [line for line in metrics(cleaned / "runs/vae") if "verdict" in line]
    blank = [line["blank_loss"] for line in metrics(cleaned / "runs/vae") if "blank_loss" in line]

    assert [(line["step"], line["stage"], line["verdict"]) for line in said] == [
        (1, "l1", "too_early"),
        (2, "l1", "too_early"),
        (3, "l1", "finished"),
    ]
    assert blank[0] == blank[-1] > 0


def script(log: RunLog, verdict: RunVerdict, losses: list[tuple[float, float]], every: int = 100) -> None:
    """Write a run of these (training, held-out) losses, and have it judged after each."""
    for number, (training, held_out) in enumerate(losses, start=1):
        step = number * every
        for part in range(5):
            log.metrics(step - every + (part + 1) * every // 5, loss=training, gradient_norm=1.0, skipped_steps=0.0)
        log.metrics(step, held_out_loss=held_out)
        verdict.say(step, {})


def test_the_log_says_what_is_new_and_what_is_grave(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """One line when learning begins, a warning at each preview of a run that overfits, and all of it in the metrics."""
    caplog.set_level(logging.INFO)
    log = RunLog(tmp_path)
    verdict = RunVerdict(tmp_path, log, "denoiser", 2000)
    falling = [(1 - 0.05 * i, 1 - 0.05 * i) for i in range(10)]
    rising = [(0.5 - 0.03 * i, 0.55 + 0.02 * i) for i in range(10)]

    script(log, verdict, falling + rising)

    kinds = [line["verdict"] for line in metrics(tmp_path) if "verdict" in line]
    assert kinds[:4] == ["too_early"] * 4
    assert kinds[4:12] == ["learning"] * 8
    assert kinds[-3:] == ["overfitting"] * 3
    warned = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert len(warned) == kinds.count("overfitting")
    assert "overfitting: the held-out loss rose" in warned[-1].getMessage()
    assert (tmp_path / "log.txt").read_text().count("learning: ") == 1


def test_a_resumed_verdict_knows_what_was_said(tmp_path: Path) -> None:
    """It reads the metrics again, and does not say the same anew."""
    falling = [(1 - 0.05 * i, 1 - 0.05 * i) for i in range(10)]
    log = RunLog(tmp_path)
    script(log, RunVerdict(tmp_path, log, "denoiser", 2000), falling[:8])
    before = (tmp_path / "log.txt").read_text()

    log = RunLog(tmp_path, resume_step=700)
    again = RunVerdict(tmp_path, log, "denoiser", 2000)
    again.say(800, {})

    assert again.history.last_step == 700
    assert [one.step for one in again.history.said] == [100 * i for i in range(1, 8)]
    assert (tmp_path / "log.txt").read_text() == before


def test_stages_are_kept_apart(tmp_path: Path) -> None:
    """A verdict sees the numbers of the last stage alone, the charts see all."""
    log = RunLog(tmp_path)
    for step in range(1, 21):
        log.metrics(step, stage="l1" if step <= 12 else "hires", reconstruction=step, held_out_reconstruction=-step)

    history = RunHistory(tmp_path, "autoencoder")
    history.read()
    seen = history.to_history(8)

    assert [step for step, _ in seen.training] == list(range(13, 21))
    assert [value for _, value in seen.held_out] == [-step for step in range(13, 21)]
    assert (seen.begun, seen.share) == (12, 1.0)
    assert history.stages == {"l1": 1, "hires": 13}
    assert len(history.traces["reconstruction"]) == 20


def test_a_pause_between_calls_is_not_counted(tmp_path: Path) -> None:
    """The time is that between lines, but for a gap of hours."""
    log = RunLog(tmp_path)
    for step in range(1, 11):
        log.metrics(step, loss=1.0, time=1000.0 + 10 * step + (step > 5) * 86_400)
    history = RunHistory(tmp_path, "denoiser")
    history.read()

    assert history.seconds == 80


@pytest.mark.parametrize("error", [ValueError("bad"), MemoryError(), OSError(28, "No space"), RuntimeError()])
def test_whatever_goes_wrong_is_a_warning(error: Exception, caplog: pytest.LogCaptureFixture) -> None:
    """With what it says, or its name."""

    def fail() -> None:
        raise error

    without_harm(fail)

    assert caplog.messages == [f"No verdict on the run this time: {str(error) or type(error).__name__}"]
