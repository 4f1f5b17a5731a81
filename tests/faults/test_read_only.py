"""A workspace that may be read but not written."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Run = Callable[..., Any]
WRITING = (
    "clean-data data.workers=1 data.min_side=17",
    "train vae vae.stages.hires.epochs=2",
    "encode data.flip=true",
    "train ldm ldm.training.steps=5",
    "sample --style Cubism --grid 1x2",
    "reconstruct {} --out pair.png",
    "report",
    "init new --preset demo",
)
READING = ("info runs/ldm/model", "config show", "config validate", "sample --style Cubism --grid 1x1 --out {}/one.png")


@pytest.fixture
def read_only(story: Any, small_disk: Callable[[str], Path]) -> Path:
    """Return a trained workspace on a disk that is mounted for reading alone, as root may write any other."""
    disk = small_disk("64m")
    shutil.copytree(story.folder, disk / "art")
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    return disk / "art"


def test_what_cannot_be_written_is_one_line_and_what_reads_works(
    run: Run, read_only: Path, tmp_path: Path, snapshot: Run, score: Callable[[str], None]
) -> None:
    """Each command that writes ends with exit code 5 and says where; those that read, and write elsewhere, do."""
    before = snapshot(read_only)
    picture = next(read_only.glob("data/*/*.*"))
    refused = [run(read_only, *command.format(picture).split()) for command in WRITING]
    done = [run(read_only, *command.format(tmp_path).split()) for command in READING]

    one_line = [outcome.code == 5 and bool(outcome.error(5)) for outcome in refused]
    score(
        f"a folder that is read-only: {sum(one_line)} of {len(WRITING)} commands that write ended in one line,"
        f" {sum(outcome.code == 0 for outcome in done)} of {len(READING)} that read went well"
    )
    assert dict(zip(WRITING, one_line, strict=True)) == dict.fromkeys(WRITING, True), [one.err for one in refused]
    assert [outcome.code for outcome in done] == [0] * len(READING), [one.err for one in done]
    assert snapshot(read_only) == before
