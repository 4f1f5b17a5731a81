"""The range test on a workspace: the suggestion, the figure, and that nothing else changes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Run = Callable[..., Any]


def test_the_denoiser_s_rate_is_found_and_no_run_is_touched(run: Run, workspace: Path, snapshot: Run) -> None:
    """The whole curve comes as JSON; every file that was there is as it was."""
    before = snapshot(workspace)

    done = run(workspace, "find-lr", "ldm", "--from", "1e-5", "--to", "100", "--steps", "30", "--json", "-q")

    told = json.loads(done.out)
    after = snapshot(workspace)
    assert set(after) - set(before) == {"find-lr-ldm.svg"}
    assert {name: after[name] for name in before} == before
    rates = [point["lr"] for point in told["points"]]
    assert rates[0] == pytest.approx(1e-5)
    assert rates == sorted(rates)
    assert told["has_diverged"] or len(rates) == 30
    if told["peak"] is not None:
        assert told["peak"] == min(told["points"], key=lambda point: point["smoothed"])["lr"]
        assert told["setting"] == f"ldm.training.optimizer.lr={told['peak']:.1e}"
    assert told["config_has"] == 2e-3
    assert (workspace / "find-lr-ldm.svg").read_text(encoding="utf-8").rstrip().endswith("</svg>")


def test_the_same_test_finds_the_same(run: Run, workspace: Path) -> None:
    """Weights, batches and noise follow from the seed."""
    words = ("find-lr", "vae", "--from", "1e-5", "--to", "1", "--steps", "20", "--json", "-q")

    first, second = (json.loads(run(workspace, *words).out) for _ in range(2))

    assert first["points"] == second["points"]
    assert (first["figure"], second["figure"]) == ("find-lr-vae-l1.svg", "find-lr-vae-l1_2.svg")


@pytest.mark.slow
def test_a_later_stage_starts_from_the_one_before(run: Run, workspace: Path) -> None:
    """Its first loss is that of trained weights; and its adversarial term does not count."""
    words = ("--from", "1e-5", "--to", "1", "--steps", "20", "--json", "-q")

    fresh = json.loads(run(workspace, "find-lr", "vae", *words).out)
    later = json.loads(run(workspace, "find-lr", "vae", "--stage", "adversarial", *words).out)

    assert later["points"][0]["loss"] != fresh["points"][0]["loss"]
    assert later["figure"] == "find-lr-vae-adversarial.svg"


def test_what_cannot_be_tested_is_said(run: Run, cleaned: Path) -> None:
    """No such stage, no stage before it, no autoencoder, no range, no name of a figure."""
    assert "no stage 'l2'" in run(cleaned, "find-lr", "vae", "--stage", "l2").error(2)
    assert "stage l1, which is not finished" in run(cleaned, "find-lr", "vae", "--stage", "adversarial").error(6)
    assert "no trained autoencoder" in run(cleaned, "find-lr", "ldm").error(6)
    assert "is no range" in run(cleaned, "find-lr", "ldm", "--from", "1", "--to", "0.1").error(2)
    assert "end in .svg or .png" in run(cleaned, "find-lr", "vae", "--out", "a.txt").error(2)
    assert not (cleaned / "runs").exists()


def test_all_stages_are_told_to_be_tested_one_at_a_time(run: Any, cleaned: Path) -> None:
    """`--stage all` names the stage that it tests, and so does the figure."""
    done = run(cleaned, "find-lr", "vae", "--stage", "all", "--steps", "20", "-q")

    assert done.code == 0, done.err
    assert "One stage is tested at a time: this is the first, l1." in done.err
    assert (cleaned / "find-lr-vae-l1.svg").is_file()
