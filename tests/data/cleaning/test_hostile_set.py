"""Cleaning decides every file of the hostile set rightly, names every file it drops and leaves the folder as it was."""

from __future__ import annotations

import csv
import json
import os
import runpy
import stat
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from PIL import Image

from latentart.data.cleaning.clean import INDEX
from latentart.data.index import IndexEntry, read_index

write_hostile_set = runpy.run_path(str(Path(__file__).with_name("hostile_set.py")))["write_hostile_set"]

GIGABYTE = 1 << 30
CLEAN = """
import json, resource, sys
from pathlib import Path
from latentart.data.cleaning.clean import clean_folder
from latentart.data.cleaning.picture import CleanRules

raw, out = map(Path, sys.argv[1:])
clean_folder(raw, out, CleanRules(min_bytes=0, min_side=16, max_side=640, max_aspect=4.0), workers=2)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"""


class Cleaned(NamedTuple):
    """The set and what became of it; ``peak`` is the memory of the hungriest worker in bytes."""

    cases: list[Any]
    out: Path
    before: dict[str, tuple[Any, ...]]
    after: dict[str, tuple[Any, ...]]
    dropped: dict[str, str]
    kept: dict[str, IndexEntry]
    peak: int


@pytest.fixture(scope="module")
def cleaned(tmp_path_factory: pytest.TempPathFactory) -> Cleaned:
    """Clean the set once, in a process of its own, so that the memory of its workers can be told."""
    folder = tmp_path_factory.mktemp("hostile")
    raw, out = folder / "raw", folder / "out"
    cases = write_hostile_set(raw)
    before = tree(raw)
    process = subprocess.run(
        [sys.executable, "-c", CLEAN, raw, out], capture_output=True, text=True, check=False, timeout=120
    )
    assert process.returncode == 0, process.stderr
    assert not process.stderr
    report = json.loads((out / "report.json").read_bytes())
    return Cleaned(
        cases,
        out,
        before,
        tree(raw),
        {row["source"]: row["reason"] for row in report["dropped"]},
        {entry.source: entry for entry in read_index(out / INDEX)},
        int(process.stdout) * (1 if sys.platform == "darwin" else 1024),
    )


def tree(folder: Path) -> dict[str, tuple[Any, ...]]:
    """Return content or target, mode and time of all that is below a folder."""
    found: dict[str, tuple[Any, ...]] = {}
    for path in folder.rglob("*"):
        info = path.lstat()
        content: object = path.readlink() if path.is_symlink() else None
        if stat.S_ISREG(info.st_mode) and os.access(path, os.R_OK):
            content = path.read_bytes()
        found[str(path)] = (info.st_mode, info.st_mtime_ns, content)
    return found


def verdict_on(case: Any) -> str:
    """Return what is right for a case with the optional decoders that are there."""
    return case.verdict if not case.needs or find_spec(case.needs) else "either"


def test_every_file_is_kept_or_dropped_rightly(cleaned: Cleaned) -> None:
    """Sound files are kept, the others dropped, each for its own reason."""
    wrong = {}
    for case in cleaned.cases:
        reason = cleaned.dropped.get(case.source, "")
        is_right = {
            "keep": not reason,
            "drop": reason in case.reasons,
            "either": not reason or reason in case.reasons,
        }[verdict_on(case)]
        if not is_right or (case.source in cleaned.kept) == bool(reason):
            wrong[case.source] = (case.verdict, case.reasons, reason)

    assert wrong == {}
    assert len(cleaned.cases) == len(cleaned.kept) + len(cleaned.dropped) >= 130


def test_every_kept_picture_shows_the_right_colors_upright(cleaned: Cleaned) -> None:
    """Depth, alpha, turn, profile and mode of a kept picture are undone."""
    wrong = {}
    for case in cleaned.cases:
        entry = cleaned.kept.get(case.source)
        if entry is None:
            continue
        with Image.open(cleaned.out / entry.file) as image:
            width, height = image.size
            places = [(x * width // 4, y * height // 4) for y in (1, 3) for x in (1, 3)]
            colors = np.array([image.getpixel(place) for place in places], dtype=int)
            shape: object = (
                image.mode,
                width * case.size[1] // height,
                dict(image.getexif()),
                image.info.get("icc_profile"),
            )
        if np.abs(colors - np.array(case.corners)).max() > case.within or shape != ("RGB", case.size[0], {}, None):
            wrong[case.source] = (shape, colors.tolist())

    assert wrong == {}


def test_the_report_holds_every_name(cleaned: Cleaned) -> None:
    """JSON and CSV parse, name each file that was dropped, and no cell can run as a formula."""
    text = (cleaned.out / "report.csv").read_bytes().decode("utf-8", "surrogateescape")
    rows = list(csv.reader(text.splitlines(keepends=True)))

    assert {case.source for case in cleaned.cases} == {*cleaned.kept, *cleaned.dropped}
    assert len(rows) == len(cleaned.dropped) + 1
    assert not [row for row in rows for cell in row if cell[:1] in ("=", "+", "-", "@")]


def test_the_raw_folder_is_as_it_was(cleaned: Cleaned) -> None:
    """Neither content nor time nor mode of anything has changed, and nothing was added."""
    assert cleaned.after == cleaned.before


def test_no_worker_takes_more_than_a_gigabyte(cleaned: Cleaned) -> None:
    """Bombs are refused by their claims, before there is memory for them."""
    assert cleaned.peak < GIGABYTE
