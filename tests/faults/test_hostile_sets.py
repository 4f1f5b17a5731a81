"""Folders, configs and pictures of strangers: the scores of the two hostile sets."""

from __future__ import annotations

import re
import runpy
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

TESTS = Path(__file__).parents[1]
FOLDERS, PICTURES = TESTS / "model/hostile_folders.py", TESTS / "data/cleaning/hostile_set.py"


@pytest.mark.faults
def test_hostile_checkpoints_models_and_configs_run_nothing(story: Any, score: Callable[[str], None]) -> None:
    """Each is refused in one line, and none of their code runs."""
    command = [sys.executable, FOLDERS, story.folder]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=1200)

    found = re.search(r"(\d+) of (\d+) refused, (\d+) code executions, peak (\d+) MB\n$", done.stdout)
    assert found, done.stderr
    score(f"hostile checkpoints, models and configs: {found[0].strip()}")
    assert int(found[1]) == int(found[2]) > 250, done.stdout
    assert int(found[3]) == 0


@pytest.mark.faults
def test_hostile_pictures_are_decided_on_rightly(
    run: Callable[..., Any], story: Any, tmp_path: Path, score: Callable[[str], None]
) -> None:
    """Sound ones are kept, the others dropped for their own reason, and the raw folder is as it was."""
    from importlib.util import find_spec
    from json import loads

    from latentart.data.index import read_index

    raw, art = tmp_path / "raw", tmp_path / "art"
    cases = runpy.run_path(str(PICTURES))["write_hostile_set"](raw)
    assert run(tmp_path, "init", art, "--preset", "demo", "--data", raw).code == 0
    rules = ("data.workers=2", "data.min_bytes=0", "data.min_side=16", "data.max_side=640", "data.max_aspect=4.0")
    done = run(art, "clean-data", *rules)
    assert done.code == 0, done.err
    dropped = {row["source"]: row["reason"] for row in loads((art / "data/report.json").read_bytes())["dropped"]}
    kept = {entry.source for entry in read_index(art / "data/index.jsonl")}

    right = 0
    for case in cases:
        verdict = case.verdict if not case.needs or find_spec(case.needs) else "either"
        is_kept, is_dropped = case.source in kept, dropped.get(case.source) in case.reasons
        right += {"keep": is_kept, "drop": is_dropped, "either": is_kept or is_dropped}[verdict]
    score(f"hostile pictures: {right} of {len(cases)} kept or dropped rightly")
    assert right == len(cases) > 130
