"""Model folders, checkpoints and configs of strangers: each ends in one line, no code runs, memory stays bounded."""

from __future__ import annotations

import re
import runpy
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from latentart.errors import ModelError
from latentart.storage.saved_values import from_values

SET = Path(__file__).with_name("hostile_folders.py")
hostile = runpy.run_path(str(SET))
CASES = hostile["all_cases"]()
GIGABYTE = 10**9
SAMPLE = CASES[::11]  # of every kind a few


@pytest.mark.parametrize("case", SAMPLE, ids=lambda case: re.sub(r"[^\w.]+", "-", case.name)[:50])
def test_a_sample_of_the_set_is_refused(story: Any, tmp_path: Path, case: Any) -> None:
    """One line, the right exit code, nothing run, no control codes on the screen."""
    result = hostile["run_case"](case, story.folder, tmp_path)

    assert result.fault == "", result.line


@pytest.mark.faults
def test_the_whole_set_is_refused(story: Any) -> None:
    """Every case, in a process of its own, whose memory tells what it took at the most."""
    done = subprocess.run(
        [sys.executable, SET, story.folder], capture_output=True, text=True, check=False, timeout=1200
    )

    score = re.search(r"(\d+) of (\d+) refused, (\d+) code executions, peak (\d+) MB\n$", done.stdout)
    assert score is not None, done.stderr
    assert (int(score[1]), int(score[3])) == (len(CASES), 0), done.stdout
    assert int(score[2]) == len(CASES) > 250
    assert int(score[4]) * 10**6 < 2 * GIGABYTE


def test_a_bomb_that_is_let_off_is_seen(story: Any, tmp_path: Path) -> None:
    """The set would notice: what runs code, ends well, breaks down or moves the cursor is a fault."""
    case, command = hostile["Case"], hostile["GO_ON"]
    spoils: dict[str, Callable[[Path], None]] = {
        "code ran": lambda art: (art / "trace").mkdir(),
        "exit code 0": lambda _: None,
    }

    for fault, spoil in spoils.items():
        assert fault in hostile["run_case"](case("sound", spoil), story.folder, tmp_path).fault
    assert (
        "exit code 4"
        in hostile["run_case"](
            case("no pictures", lambda art: (art / "data/index.jsonl").unlink(), command), story.folder, tmp_path
        ).fault
    )


def test_values_that_a_run_remembers_keep_their_kinds() -> None:
    """Numbers, truths and null; an integer may stand for a fraction, nothing else for anything."""
    from latentart.training.steps.numbers import NumbersState

    found = from_values(NumbersState, {"skipped": 3, "log_mean": 2, "is_high": True, "of_a_newer_version": []})
    assert found == NumbersState(skipped=3, log_mean=2.0, is_high=True)
    for values in (
        {"skipped": True},
        {"skipped": 1.0},
        {"log_mean": 10**400},
        {"is_high": 1},
        {"seen": None},
        [],
        None,
    ):
        with pytest.raises(ModelError):
            from_values(NumbersState, values)
