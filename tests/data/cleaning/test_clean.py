"""Cleaning keeps the sound pictures, names every other file with a reason, and never touches the raw folder."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from latentart.config.data import DataConfig
from latentart.data.cleaning.clean import NothingKeptError, OnProgress, clean_folder
from latentart.data.cleaning.guarded_workers import AHEAD
from latentart.data.cleaning.journal import open_journal
from latentart.data.cleaning.label_table import USUAL_LABELS, LabelChoice
from latentart.data.cleaning.picture import CleanRules, decide_picture
from latentart.data.cleaning.raw_file import RawFile
from latentart.data.cleaning.report import CleanReport
from latentart.data.index import read_index
from latentart.data.synthetic.art import draw_picture
from latentart.errors import ConfigError, DataError, ResourceError

RULES = CleanRules(min_bytes=0, min_side=8, max_side=32, max_aspect=4.0)


def clean(
    raw: Path,
    out: Path,
    labels: LabelChoice = USUAL_LABELS,
    *,
    level: int | None = None,
    workers: int = 0,
    dry_run: bool = False,
    on_progress: OnProgress | None = None,
    **changes: Any,
) -> CleanReport:
    """Clean with the rules of these tests, in this process: that the guarded ones make the same has its own test."""
    rules = replace(RULES, **changes)
    guard: dict[str, Any] = {"workers": workers, "dry_run": dry_run, "on_progress": on_progress}
    return clean_folder(raw, out, rules, labels, level=level, **guard)


def picture_bytes(seed: int, size: tuple[int, int] = (40, 48), file_format: str = "PNG") -> bytes:
    """Return a file of colored noise, different for every seed."""
    width, height = size
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, file_format)
    return buffer.getvalue()


def put(path: Path, content: bytes) -> None:
    """Write a file and its folders."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def tree(folder: Path) -> dict[str, tuple[bytes, int]]:
    """Return the content and time of every file below a folder."""
    return {
        str(path.relative_to(folder)): (path.read_bytes(), path.stat().st_mtime_ns)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.is_symlink()
    }


def pictures(out: Path) -> dict[str, tuple[bytes, int]]:
    """Return the clean pictures below a data folder."""
    return {name: file for name, file in tree(out).items() if "/" in name}


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    """Make a small raw folder: two styles of three pictures, one of them in a deeper folder."""
    folder = tmp_path / "raw"
    for i in range(3):
        put(folder / "Cubism" / f"{i}.png", picture_bytes(i))
    put(folder / "Pop Art" / "3.png", picture_bytes(3))
    put(folder / "Pop Art" / "4.bmp", picture_bytes(4, file_format="BMP"))
    put(folder / "Pop Art" / "deeper" / "5", picture_bytes(5, (96, 64)))
    return folder


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """Name a data folder beside the raw one."""
    return tmp_path / "data"


def test_a_sound_folder_becomes_an_indexed_data_set(raw: Path, out: Path) -> None:
    """Every sound picture is written upright, shrunk and without metadata, under our names, and indexed."""
    before = tree(raw)

    report = clean(raw, out)

    entries = read_index(out / "index.jsonl")
    assert tree(raw) == before
    assert report.kept == len(entries) == 6
    assert [entry.style for entry in entries] == ["Cubism"] * 3 + ["Pop Art"] * 3
    assert {entry.source for entry in entries} == set(before)
    assert sorted(pictures(out)) == sorted(entry.file for entry in entries)
    for entry in entries:
        with Image.open(out / entry.file) as image:
            assert (image.format, image.mode, image.size) == ("JPEG", "RGB", (entry.width, entry.height))
            assert min(image.size) == 32
            assert not image.getexif()
            assert "icc_profile" not in image.info
    for entry in entries:
        assert entry.sha256 == hashlib.sha256((raw / entry.source).read_bytes()).hexdigest()


def test_lossless_pictures_keep_their_pixels(raw: Path, out: Path) -> None:
    """With png and a large enough side nothing but the container changes, and no comment comes along."""
    from PIL import PngImagePlugin

    note = PngImagePlugin.PngInfo()
    note.add_text("Author", "somebody")
    Image.open(raw / "Cubism" / "0.png").save(raw / "Cubism" / "0.png", pnginfo=note)

    clean(raw, out, file_format="png", max_side=512)

    for entry in read_index(out / "index.jsonl"):
        with Image.open(out / entry.file) as ours, Image.open(raw / entry.source) as theirs:
            np.testing.assert_array_equal(np.asarray(ours), np.asarray(theirs))
            assert not ours.info


def test_every_dropped_file_has_a_reason(raw: Path, out: Path) -> None:
    """Each kind of bad file is dropped for its own reason, and all the reports say so."""
    jpeg = picture_bytes(10, file_format="JPEG")
    checksum = bytearray(picture_bytes(11))
    checksum[checksum.index(b"IDAT") + 50] ^= 1
    put(raw / "loose.png", picture_bytes(12))
    put(raw / "Cubism" / "blank.png", b"")
    put(raw / "Cubism" / "checksum.png", bytes(checksum))
    put(raw / "Cubism" / "copy.png", picture_bytes(0))
    put(raw / "Cubism" / "cut.jpg", jpeg[: len(jpeg) // 2])
    put(raw / "Cubism" / "long.png", picture_bytes(13, (20, 200)))
    put(raw / "Cubism" / "noise.png", np.random.default_rng(0).bytes(2000))
    put(raw / "Cubism" / "page.jpg", b"<html>not found</html>")
    put(raw / "Cubism" / "small.png", picture_bytes(14, (7, 20)))
    put(raw / "Cubism" / ".DS_Store", b"\0\0\0\1Bud1")
    put(raw / "Cubism" / "Thumbs.db", bytes(1000))
    put(raw / ".cache" / "hidden.png", picture_bytes(15))
    (raw / "Cubism" / "link.png").symlink_to(raw / "Cubism" / "1.png")
    (raw / "Linked").symlink_to(raw / "Cubism", target_is_directory=True)
    (raw / "Cubism" / "loop").symlink_to(raw, target_is_directory=True)
    os.mkfifo(raw / "Cubism" / "pipe.png")

    report = clean(raw, out)

    expected = {
        ".cache/hidden.png": "hidden",
        "Cubism/.DS_Store": "hidden",
        "Cubism/Thumbs.db": "sidecar",
        "Cubism/blank.png": "empty",
        "Cubism/checksum.png": "damaged",
        "Cubism/copy.png": "duplicate",
        "Cubism/cut.jpg": "truncated",
        "Cubism/link.png": "not_a_regular_file",
        "Cubism/long.png": "extreme_aspect",
        "Cubism/loop": "not_a_regular_file",
        "Cubism/noise.png": "not_a_picture",
        "Cubism/page.jpg": "web_page",
        "Cubism/pipe.png": "not_a_regular_file",
        "Cubism/small.png": "too_small",
        "Linked": "not_a_regular_file",
        "loose.png": "no_style",
    }
    written = json.loads((out / "report.json").read_text())
    with (out / "report.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {item.source: item.reason for item in report.dropped} == expected
    assert {item["source"]: item["reason"] for item in written["dropped"]} == expected
    assert {row["source"]: row["reason"] for row in rows} == expected
    assert written == report.to_json()
    assert written["schema"] == 1
    assert written["styles"]["Cubism"]["kept"] == 3
    assert written["styles"]["Cubism"]["dropped"]["not_a_picture"] == 1
    assert written["reasons"]["not_a_regular_file"] == 4
    assert report.kept == 6
    assert report.num_dropped == len(expected)


def test_a_table_of_many_styles_is_one_warning_and_a_line_for_each(raw: Path, out: Path) -> None:
    """A table may name a class for each of its pictures; those that are not there do not flood people or memory."""
    lines = ["path,style", "Cubism/0.png,Cubism", *(f"gone/{i}.png,other {i}" for i in range(50))]
    put(raw / "labels.csv", "\n".join(lines).encode())

    report = clean(raw, out)
    written = (out / "report.json").read_text()

    (warning,) = [warning for warning in report.warnings if "other 0" in warning]
    assert warning.startswith("50 styles have no sound picture, and will be no classes: 'other 0', 'other 1', ")
    assert "'other 17' and 40 more" in warning
    assert json.loads(written) == report.to_json()
    assert sum('"reason": "missing"' in line for line in written.splitlines()) == 50


@pytest.mark.parametrize(
    "name",
    [b"[red].png", b"a\nb.png", b"na\xff\xfeme.png", b"=1+1.png", "日本 \u202e.png".encode(), b"'\";%s\\.png", b"-rf"],
)
def test_any_name_survives(tmp_path: Path, out: Path, name: bytes) -> None:
    """Markup, newlines, formulas and bytes that are not UTF-8 are right in index and reports, as file and style."""
    text = os.fsdecode(name)
    for style in ("Plain", text):
        put(tmp_path / "raw" / style / text, picture_bytes(len(style)))
        put(tmp_path / "raw" / style / f"bad{text}", b"bad")

    clean(tmp_path / "raw", out)

    entries = read_index(out / "index.jsonl")
    report = json.loads((out / "report.json").read_text(encoding="ascii"))
    with (out / "report.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.reader(file))
    assert {entry.style for entry in entries} == {"Plain", text}
    assert {entry.source for entry in entries} == {f"Plain/{text}", f"{text}/{text}"}
    assert {item["source"] for item in report["dropped"]} == {f"Plain/bad{text}", f"{text}/bad{text}"}
    assert len(rows) == 3
    assert not any(cell.startswith(("=", "-", "+", "@")) for row in rows for cell in row)
    assert all((out / entry.file).is_file() for entry in entries)
    assert len(pictures(out)) == 2


def test_a_path_that_reads_as_markup_survives(raw: Path, out: Path) -> None:
    """Folder and file may spell a closing tag together."""
    put(raw / "[" / "].jpg", picture_bytes(60))

    clean(raw, out)

    assert "[/].jpg" in {entry.source for entry in read_index(out / "index.jsonl")}


def test_workers_change_nothing(raw: Path, tmp_path: Path) -> None:
    """Two worker processes and none make the same data set, byte for byte, and progress ends at the whole."""
    for i in range(12):
        put(raw / "Fauvism" / f"{i}.jpg", picture_bytes(20 + i, file_format="JPEG"))
    progress: list[tuple[int, int]] = []

    one = clean(raw, tmp_path / "one", workers=0)
    two = clean(raw, tmp_path / "two", workers=2, on_progress=lambda *numbers: progress.append(numbers))

    assert one == two
    assert read_index(tmp_path / "one" / "index.jsonl") == read_index(tmp_path / "two" / "index.jsonl")
    first, second = pictures(tmp_path / "one"), pictures(tmp_path / "two")
    assert {name: content for name, (content, _) in first.items()} == {n: content for n, (content, _) in second.items()}
    assert progress == [(done, 18) for done in range(1, 19)]


def test_a_second_run_does_nothing(raw: Path, out: Path) -> None:
    """Unchanged files are neither decoded nor written again, and the report is the same."""
    put(raw / "Cubism" / "bad.png", b"bad")
    first = clean(raw, out)
    before = pictures(out)
    index = (out / "index.jsonl").read_bytes()
    looked: list[int] = []

    second = clean(raw, out, on_progress=lambda done, _: looked.append(done))

    assert second == first
    assert pictures(out) == before
    assert (out / "index.jsonl").read_bytes() == index
    assert looked == []


def test_changed_removed_and_added_files_are_followed(raw: Path, out: Path) -> None:
    """Only what is new is decoded; clean pictures of what is gone are removed; foreign files stay."""
    clean(raw, out)
    put(out / "Cubism" / "mine.txt", b"not ours")
    before = pictures(out)
    (raw / "Cubism" / "0.png").unlink()
    put(raw / "Cubism" / "1.png", picture_bytes(101))
    put(raw / "Cubism" / "9.png", picture_bytes(109))
    (raw / "Pop Art" / "3.png").rename(raw / "Pop Art" / "33.png")
    looked: list[int] = []

    clean(raw, out, on_progress=lambda done, _: looked.append(done))

    entries = read_index(out / "index.jsonl")
    assert {entry.source for entry in entries} == set(tree(raw))
    assert set(pictures(out)) == {entry.file for entry in entries} | {"Cubism/mine.txt"}
    assert len(looked) == 3
    untouched = next(entry.file for entry in entries if entry.source == "Cubism/2.png")
    assert pictures(out)[untouched] == before[untouched]


def test_a_style_that_is_gone_leaves_no_folder(raw: Path, out: Path) -> None:
    """When the last picture of a style is removed its clean folder goes too."""
    clean(raw, out)
    for path in (raw / "Cubism").iterdir():
        path.unlink()
    (raw / "Cubism").rmdir()

    clean(raw, out)

    assert not (out / "Cubism").exists()
    assert {entry.style for entry in read_index(out / "index.jsonl")} == {"Pop Art"}


def test_a_lost_or_cut_clean_picture_is_made_again(raw: Path, out: Path) -> None:
    """Clean pictures that vanished or lost bytes are restored from the raw ones."""
    clean(raw, out)
    before = pictures(out)
    lost, cut = sorted(before)[:2]
    (out / lost).unlink()
    (out / cut).write_bytes(b"cut")

    clean(raw, out)

    assert {name: content for name, (content, _) in pictures(out).items()} == {
        name: content for name, (content, _) in before.items()
    }


def test_other_rules_decide_anew(raw: Path, out: Path) -> None:
    """A changed rule applies to every file, and clean pictures of the old format go."""
    clean(raw, out)

    clean(raw, out, file_format="png", max_side=16)

    entries = read_index(out / "index.jsonl")
    assert {min(entry.width, entry.height) for entry in entries} == {16}
    assert sorted(pictures(out)) == sorted(entry.file for entry in entries)
    assert all(entry.file.endswith(".png") for entry in entries)


class Killed(BaseException):
    """Stands for the end of the process in the middle of a run."""


@pytest.mark.parametrize("stop_after", [1, 4, 6])
def test_an_interrupted_run_goes_on(raw: Path, tmp_path: Path, stop_after: int) -> None:
    """After a stop at any file the rest is done, and the index is that of a run that was left alone."""

    def stop(done: int, total: int) -> None:
        if done == stop_after:
            raise Killed

    clean(raw, tmp_path / "whole")
    out = tmp_path / "data"
    with pytest.raises(Killed):
        clean(raw, out, on_progress=stop)
    looked: list[int] = []

    clean(raw, out, on_progress=lambda done, _: looked.append(done))

    assert looked == list(range(stop_after + 1, 7))
    assert (out / "index.jsonl").read_bytes() == (tmp_path / "whole" / "index.jsonl").read_bytes()
    assert (out / "report.json").read_bytes() == (tmp_path / "whole" / "report.json").read_bytes()
    assert set(pictures(out)) == set(pictures(tmp_path / "whole"))


def test_pictures_of_an_interrupted_run_are_ours(raw: Path, out: Path) -> None:
    """A clean picture that was never in an index goes when its source went in between."""

    def stop(done: int, total: int) -> None:
        if done == 2:
            raise Killed

    with pytest.raises(Killed):
        clean(raw, out, on_progress=stop)
    (raw / "Cubism" / "0.png").unlink()

    clean(raw, out)

    assert sorted(pictures(out)) == sorted(entry.file for entry in read_index(out / "index.jsonl"))


def test_a_journal_cannot_lead_outside(raw: Path, out: Path, tmp_path: Path) -> None:
    """A forged journal makes us remove nothing but our own pictures."""
    put(tmp_path / "precious" / f"{'0' * 24}.jpg", b"mine")
    clean(raw, out)
    with closing(sqlite3.connect(out / ".clean.sqlite", isolation_level=None)) as journal:
        journal.execute("INSERT INTO written VALUES (?)", (f"../precious/{'0' * 24}.jpg",))

    clean(raw, out)

    assert (tmp_path / "precious" / f"{'0' * 24}.jpg").read_bytes() == b"mine"


@pytest.mark.faults
def test_kill_9_leaves_no_workers_and_the_next_run_goes_on(raw: Path, tmp_path: Path) -> None:
    """A killed parent takes its workers with it; the index after another run is that of a run left alone."""
    for i in range(200):
        put(raw / "Fauvism" / f"{i}.png", picture_bytes(1000 + i, (300, 300)))
    out = tmp_path / "data"
    code = "import sys; from pathlib import Path\n"
    code += "from latentart.data.cleaning.clean import NothingKeptError, clean_folder\n"
    code += "from latentart.data.cleaning.picture import CleanRules\n"
    code += f"if __name__ == '__main__': clean_folder(Path(sys.argv[1]), Path(sys.argv[2]), {RULES!r}, workers=2)"
    script = tmp_path / "script.py"
    script.write_text(code)
    process = subprocess.Popen([sys.executable, script, raw, out], env=os.environ | {"PYTHONPATH": str(Path.cwd())})
    while len(list(out.glob("*/*.jpg"))) < 20:
        time.sleep(0.01)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    process.kill()
    process.wait()
    time.sleep(1)

    written = len(list(out.glob("*/*.jpg")))
    looked: list[int] = []
    clean(raw, out, on_progress=lambda done, _: looked.append(done))
    clean(raw, tmp_path / "whole")

    assert not [pid for pid in children if Path(f"/proc/{pid}").exists()]
    assert 20 <= written < 206
    assert len(looked) <= 206 - written + 2 * AHEAD  # what was written but not noted yet
    assert (out / "index.jsonl").read_bytes() == (tmp_path / "whole" / "index.jsonl").read_bytes()
    assert set(pictures(out)) == set(pictures(tmp_path / "whole"))


def test_a_picture_that_takes_too_long_is_dropped_by_name(raw: Path, out: Path) -> None:
    """The others are kept, and a longer limit asks for the late one again."""
    put(raw / "Cubism" / "slow.png", picture_bytes(50, (3000, 3000)))

    report = clean(raw, out, workers=2, time_limit=0.12)
    patient = clean(raw, out, workers=2, time_limit=60.0)

    assert [(item.source, item.reason) for item in report.dropped] == [("Cubism/slow.png", "time_out")]
    assert "0.12 s of processor time" in report.dropped[0].detail
    assert patient.kept == 7


def test_a_picture_of_one_color_with_too_many_pixels_is_a_bomb(raw: Path, out: Path) -> None:
    """The limit is the caller's; raised, it asks for the picture again."""
    Image.new("RGB", (400, 400)).save(raw / "Cubism" / "large.png")

    report = clean(raw, out, max_pixels=400 * 400 - 1)

    assert [(item.source, item.reason) for item in report.dropped] == [("Cubism/large.png", "bomb")]
    assert clean(raw, out, max_pixels=400 * 400).kept == 7


@pytest.mark.parametrize("name", ["index.jsonl", "report.json", "report.csv"])
def test_files_of_the_user_are_not_written_over(raw: Path, out: Path, name: str) -> None:
    """A folder that holds something called like ours, but made by somebody else, is refused as it is."""
    put(out / name, b"my own report")
    before = tree(out)

    with pytest.raises(ConfigError, match=rf"holds '{name}', which clean-data did not write"):
        clean(raw, out)

    assert tree(out) == before


def test_two_runs_at_once_are_refused(raw: Path, out: Path) -> None:
    """The second one says so and changes nothing."""

    def clean_too(done: int, total: int) -> None:
        with pytest.raises(ResourceError, match=r"another process is cleaning into .*data'.* Wait"):
            clean(raw, out)

    assert clean(raw, out, on_progress=clean_too).kept == 6


def test_a_damaged_journal_is_made_anew(raw: Path, out: Path) -> None:
    """All in it can be found again in the raw folder, and pictures in the index are still known for ours."""
    clean(raw, out)
    before = pictures(out)
    (raw / "Cubism" / "0.png").unlink()
    (out / ".clean.sqlite").write_bytes(b"no database at all" * 1000)

    assert clean(raw, out).kept == 5
    assert len(before) - len(pictures(out)) == 1


@pytest.mark.parametrize("loose", [{"min_side": 41}, {"min_bytes": 6000}, {"max_aspect": 1.3}])
def test_a_rule_about_size_needs_no_second_look(raw: Path, out: Path, loose: dict[str, Any]) -> None:
    """Tightened and loosened again, it decides from what is known; only lost clean pictures are made again."""
    first = clean(raw, out)
    looked: list[int] = []

    tight = clean(raw, out, on_progress=lambda done, _: looked.append(done), **loose)

    assert 0 < tight.kept < 6
    assert looked == []
    assert len(pictures(out)) == tight.kept
    assert clean(raw, out, on_progress=lambda done, _: looked.append(done)) == first
    assert len(looked) == 6 - tight.kept


def test_rules_that_shape_pictures_give_them_other_names(raw: Path, out: Path) -> None:
    """So whatever was made from the old ones is known to be stale, and an interrupted run leaves them in use."""
    from latentart.data.index import index_fingerprint

    clean(raw, out)
    before = read_index(out / "index.jsonl")

    def stop(done: int, total: int) -> None:
        raise Killed

    with pytest.raises(Killed):
        clean(raw, out, quality=80, on_progress=stop)

    assert all((out / entry.file).is_file() for entry in before)
    clean(raw, out, quality=80)
    after = read_index(out / "index.jsonl")
    assert index_fingerprint(after) != index_fingerprint(before)
    assert sorted(pictures(out)) == sorted(entry.file for entry in after)


def smooth_picture(seed: int, side: int = 256) -> Image.Image:
    """Return a picture with shapes, as near-duplicates are found by."""
    small = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((side, side), Image.Resampling.BICUBIC)


@pytest.fixture
def alike(raw: Path) -> Path:
    """Add a large picture, a smaller and a worse copy of it, and another picture."""
    (raw / "Cubism" / "z").mkdir()
    smooth_picture(1).save(raw / "Cubism" / "z" / "large.png")
    smooth_picture(1).resize((200, 200)).save(raw / "Cubism" / "a_smaller.jpg", quality=60)
    smooth_picture(1).save(raw / "Pop Art" / "a_worse.jpg", quality=40)
    smooth_picture(2).save(raw / "Cubism" / "other.png")
    return raw


def test_pictures_that_look_the_same_are_flagged(alike: Path, out: Path) -> None:
    """All are kept unless asked otherwise; the report names what each looks like."""
    report = clean(alike, out, max_side=256)

    assert report.kept == 10
    assert {(item.source, item.reason, item.detail) for item in report.flagged} == {
        ("Cubism/a_smaller.jpg", "near_duplicate", "looks like Cubism/z/large.png"),
        ("Pop Art/a_worse.jpg", "near_duplicate", "looks like Cubism/z/large.png"),
    }


@pytest.mark.parametrize("wanted", ["flag", "keep"])
def test_the_index_tells_what_looks_the_same(alike: Path, out: Path, wanted: str) -> None:
    """By the content of the picture that is repeated, flagged or not; other lines are what they always were."""
    clean(alike, out, max_side=256, near_duplicates=wanted)

    entries = {entry.source: entry for entry in read_index(out / "index.jsonl")}
    large = entries["Cubism/z/large.png"].sha256
    assert {source: entry.twin for source, entry in entries.items() if entry.twin} == {
        "Cubism/a_smaller.jpg": large,
        "Pop Art/a_worse.jpg": large,
    }
    assert (out / "index.jsonl").read_bytes().count(b'"twin"') == 2


def test_near_duplicates_can_be_dropped_or_let_alone(alike: Path, out: Path) -> None:
    """The largest is kept; a change of mind needs no look at what is still there."""
    dropped = clean(alike, out, max_side=256, near_duplicates="drop")
    entries = read_index(out / "index.jsonl")
    looked: list[int] = []
    kept = clean(alike, out, max_side=256, near_duplicates="keep", on_progress=lambda done, _: looked.append(done))

    assert dropped.reasons == {"near_duplicate": 2}
    assert "Cubism/z/large.png" in {entry.source for entry in entries}
    assert len(entries) == 8
    assert (kept.kept, kept.num_dropped, kept.flagged) == (10, 0, [])
    assert len(looked) == 2
    assert clean(alike, out, max_side=256, near_duplicates="drop") == dropped
    assert sorted(pictures(out)) == sorted(entry.file for entry in read_index(out / "index.jsonl"))


def test_a_table_gives_styles_and_labels(raw: Path, out: Path) -> None:
    """With labels.csv any column can be the style, and the index holds them all."""
    table = "path,style,genre\nCubism/0.png,Cubism,portrait\nCubism/1.png,Cubism,still life\n"
    put(raw / "labels.csv", f"{table}Pop Art/3.png,../Pop,portrait\nlost.png,Pop,portrait\n".encode())

    by_style = clean(raw, out)
    first = read_index(out / "index.jsonl")
    by_genre = clean(raw, out, LabelChoice(label="genre"))
    second = read_index(out / "index.jsonl")

    assert {entry.source: entry.style for entry in first} == {
        "Cubism/0.png": "Cubism",
        "Cubism/1.png": "Cubism",
        "Pop Art/3.png": "../Pop",
    }
    assert {entry.source: entry.style for entry in second} == {
        "Cubism/0.png": "portrait",
        "Cubism/1.png": "still life",
        "Pop Art/3.png": "portrait",
    }
    assert second[0].labels == {"style": "Cubism", "genre": "portrait"}
    assert by_style.reasons == {"no_style": 3, "missing": 1}
    assert by_genre.reasons == by_style.reasons
    assert sorted(pictures(out)) == sorted(entry.file for entry in second)
    with pytest.raises(ConfigError, match=r"genr.*genre"):
        clean(raw, out, LabelChoice(label="genr"))


def test_spellings_of_one_name_are_one_style(tmp_path: Path, out: Path) -> None:
    """Folders whose names differ only in Unicode's bytes are one class; case and spaces are pointed out."""
    folder = tmp_path / "raw"
    for i, name in enumerate(["Caf\u00e9", "Cafe\u0301", "pop art", "Pop_Art", "日本"]):
        put(folder / name / f"{i}.png", picture_bytes(i))

    report = clean(folder, out)

    assert report.kept == 5
    assert {style: counts["kept"] for style, counts in report.styles.items()} == {
        "Caf\u00e9": 2,
        "pop art": 1,
        "Pop_Art": 1,
        "日本": 1,
    }
    assert [warning for warning in report.warnings if "'Pop_Art' and 'pop art' are styles of their own" in warning]
    assert {"Caf\u00e9", "日本"} <= {entry.file.split("/")[0] for entry in read_index(out / "index.jsonl")}
    assert clean(folder, out).kept == 5


def test_spellings_in_a_table_are_one_label(raw: Path, out: Path) -> None:
    """Values and the names of columns too."""
    rows = ["Cubism/0.png,Caf\u00e9,Bj\u00f6rk", "Cubism/1.png,Cafe\u0301,Bjo\u0308rk"]
    put(raw / "labels.csv", "\n".join(["path,e\u0301cole,artist", *rows]).encode())

    report = clean(raw, out, LabelChoice(label="\u00e9cole"))

    assert list(report.styles) == ["Caf\u00e9"]
    assert {entry.labels["artist"] for entry in read_index(out / "index.jsonl")} == {"Bj\u00f6rk"}


@pytest.mark.parametrize(
    ("files", "told", "level", "styles"),
    [
        (("train/A/1.png", "train/B/2.png", "val/A/3.png"), "'train', 'val' hold only folders", 2, {"A": 2, "B": 1}),
        (("art/A/1.png", "art/B/2.png"), "'art' holds only folders", 2, {"A": 1, "B": 1}),
        (("art/images/A/1.png", "art/images/B/2.png"), "'art' holds only folders", 3, {"A": 1, "B": 1}),
        (("images/images/A/1.png", "resized/2.png"), "'images' holds only folders", 3, {"A": 1}),
        (("a/LICENSE", "a/x.json", "a/B/1.png", "a/C/2.png"), "'a' holds only folders", 2, {"B": 1, "C": 1}),
        (("a/b/C/1.png", "a/d/1.png"), "those in 'a/b' alone", 2, {"b": 1, "d": 1}),
        (
            ("A/1.png", "A/Previews.lrdata/x/2.png", "B.lrdata/3.png", "B/CaptureOne/4.png", "B/5.png"),
            "",
            1,
            {"A": 1, "B": 1},
        ),
        (("A/@eaDir/x/1.png", "@eaDir/A/2.png", "B/3.png", "A/4.png"), "", 1, {"A": 1, "B": 1}),
        (("A/deeper/1.png", "A/2.png", "B/3.png"), "", 1, {"A": 2, "B": 1}),
    ],
)
def test_folders_of_folders_are_told_and_the_level_can_be_set(
    tmp_path: Path, out: Path, files: tuple[str, ...], told: str, level: int, styles: dict[str, int]
) -> None:
    """The wrong level never becomes the classes without a word, and the setting that is offered is right."""
    for i, name in enumerate(files):
        put(tmp_path / "raw" / name, picture_bytes(i) if name.endswith(".png") else b"a text")

    warnings = [text for text in clean(tmp_path / "raw", out).warnings if "only folders" in text]
    report = clean(tmp_path / "raw", out, level=level)

    assert [told in text and f"data.level={level}" in text for text in warnings] == [True] * bool(told)
    assert {style: counts["kept"] for style, counts in report.styles.items()} == styles
    assert not [text for text in report.warnings if "only folders" in text]


def test_splits_that_hold_pictures_are_told(tmp_path: Path, out: Path) -> None:
    """A class called train is seldom one."""
    for i, name in enumerate(("Train/1.png", "val/2.png", "Art/3.png")):
        put(tmp_path / "raw" / name, picture_bytes(i))

    assert "'Train', 'val': parts of a data set" in clean(tmp_path / "raw", out).warnings[0]
    assert not [text for text in clean(tmp_path / "raw", out, level=1).warnings if "parts of" in text]


def test_links_to_folders_are_told_with_the_setting_that_follows_them(tmp_path: Path, out: Path) -> None:
    """A style that is a link is missed, and not without a word; a link that leads round is no style."""
    for i, name in enumerate(("raw/A/1.png", "library/B/2.png", "library/C/3.png")):
        put(tmp_path / name, picture_bytes(i))
    for name, target in (("B", "../library/B"), ("C", "../library/C"), ("round", ".")):
        (tmp_path / "raw" / name).symlink_to(target)

    report = clean(tmp_path / "raw", out)

    assert "'B', 'C' are links and are not followed: data.link_root=../library" in report.warnings[0]
    assert {item.detail for item in report.dropped} == {
        "a link to ../library/B",
        "a link to ../library/C",
        "a link to .",
    }
    assert clean(tmp_path / "raw", out, link_root="../library").kept == 3


def test_a_level_that_is_set_is_not_doubted(raw: Path, out: Path) -> None:
    """Styles that hold folders of artists are what they are where a person says so, in the config too."""
    (raw / "Cubism").rename(raw / "Braque")
    (raw / "Cubism").mkdir()
    (raw / "Braque").rename(raw / "Cubism" / "Braque")

    assert [len(clean(raw, out, level=level).warnings) for level in (None, 1)] == [1, 0]
    assert [DataConfig.model_validate({"level": level}).style_level for level in (None, 1, 2)] == [1, 1, 2]


@pytest.mark.parametrize(
    "written",
    [
        *("{name}.png", "{name}", "/else/Cubism/{name}.png", "{raw}/Cubism/{name}.png", "CUBISM\\{name}.PNG"),
        *("Cubism/{name}.jpeg", "https://example.org/Cubism/{name}%2Epng?size=2#top"),
    ],
)
def test_paths_that_are_not_of_the_raw_folder_are_found_by_name(raw: Path, out: Path, written: str) -> None:
    """Bare names, absolute paths, addresses, another case or ending mean the file that ends so, which is told."""
    names = [written.format(name=name, raw=raw) for name in (0, 1)]
    put(raw / "labels.csv", f"path,style\n{names[0]},One\n{names[1]},Two\nlost/9.png,Two\n".encode())

    report = clean(raw, out)

    assert {entry.source: entry.style for entry in read_index(out / "index.jsonl")} == {
        "Cubism/0.png": "One",
        "Cubism/1.png": "Two",
    }
    assert [item.source for item in report.dropped if item.reason == "missing"] == ["lost/9.png"]
    assert "2 of 3 were found by name" in report.warnings[0]


def test_a_name_that_may_be_several_files_is_refused(raw: Path, out: Path) -> None:
    """Both are named; the folder above tells them apart where it is written."""
    put(raw / "Pop Art" / "0.png", picture_bytes(70))
    put(raw / "labels.csv", b"path,style\n0.png,One\n")
    with pytest.raises(DataError, match=r"may mean '.*/0.png' or '.*/0.png'.*relative"):
        clean(raw, out)
    put(raw / "labels.csv", b"path,style\nx/Pop Art/0,One\n")

    clean(raw, out)

    assert [entry.source for entry in read_index(out / "index.jsonl")] == ["Pop Art/0.png"]


def test_some_paths_of_a_table_are_found_by_their_whole_ends(raw: Path, out: Path) -> None:
    """Bare, absolute and shorter ones beside good ones; a name in another folder, or of a named file, is missing."""
    put(raw / "x" / "y" / "7.png", picture_bytes(7))
    paths = ["1.png", "C:\\art\\Cubism\\2.png", "y/7.png", "lost/3.png", "0.png"]
    put(raw / "labels.csv", ",One\n".join(["path,style\nCubism/0.png", *paths, ""]).encode())

    report = clean(raw, out)

    found = {"Cubism/0.png", "Cubism/1.png", "Cubism/2.png", "x/y/7.png"}
    assert {entry.source for entry in read_index(out / "index.jsonl")} == found
    assert [item.source for item in report.dropped if item.reason == "missing"] == ["0.png", "lost/3.png"]
    assert "not all its paths are relative to the raw folder; 3 of 6 were found by name" in report.warnings[0]


@pytest.mark.parametrize("table", ["../labels.csv", "labels.csv"])
def test_names_beside_the_raw_folder_are_told(raw: Path, out: Path, table: str) -> None:
    """Where none is in it, the folder that they are relative to is named."""
    put(raw / table, b"path,style\nPop Art/deeper/5,One\n")

    with pytest.raises(
        DataError, match=r"No file in .*Cubism' is named in labels.csv: .* found under '.*raw'.*data.raw"
    ):
        clean(raw / "Cubism", out, LabelChoice(f"../{table}"))


def test_a_label_without_a_table_is_a_config_error(raw: Path, out: Path) -> None:
    """Folders know only styles."""
    with pytest.raises(ConfigError, match=r"data.label is 'artist'.*labels.csv"):
        clean(raw, out, LabelChoice(label="artist"))


def test_a_table_that_was_asked_for_must_be_there(raw: Path, out: Path) -> None:
    """A mistyped name is told, and so is what is no regular file."""
    with pytest.raises(ConfigError, match=r"no table of labels at .*none.csv"):
        clean(raw, out, LabelChoice("none.csv"))
    (raw / "labels.csv").symlink_to(raw / "Cubism" / "0.png")
    with pytest.raises(ConfigError, match=r"labels.csv' is a link"):
        clean(raw, out)


def test_few_pixels_leave_workers_memory_enough(raw: Path, out: Path) -> None:
    """A small limit of pixels is about pictures, not about what libraries need to start."""
    assert clean(raw, out, workers=2, max_pixels=96 * 64).kept == 6


def test_the_report_of_nothing_kept_names_every_file(raw: Path, out: Path) -> None:
    """The error carries it, as no data folder is made."""
    with pytest.raises(NothingKeptError) as caught:
        clean(raw, out, min_side=1000)

    assert {item.source for item in caught.value.report.dropped} == set(tree(raw))


def test_the_balance_of_styles_is_reported(raw: Path, out: Path) -> None:
    """The smallest and the largest style are named, and a large difference is a warning with the switch for it."""
    for i in range(27):
        put(raw / "Pop Art" / f"more{i}.png", picture_bytes(200 + i))

    report = clean(raw, out)

    assert report.to_json()["balance"] == {
        "num_styles": 2, "smallest": "Cubism", "fewest": 3, "largest": "Pop Art", "most": 30
    }  # fmt: skip
    assert str(report.balance) == "2 styles with 3 (Cubism) to 30 (Pop Art) pictures each, 1 to 10"
    assert any("data.balance_styles" in warning for warning in report.warnings)


def test_a_dry_run_writes_nothing(raw: Path, out: Path, tmp_path: Path) -> None:
    """The report is that of a real run, but no file or folder appears."""
    put(raw / "Cubism" / "bad.png", b"bad")

    report = clean(raw, out, dry_run=True)

    assert sorted(path.name for path in tmp_path.iterdir()) == ["raw"]
    assert report == clean(raw, out)
    before = tree(out)
    put(raw / "Cubism" / "new.png", picture_bytes(50))
    assert clean(raw, out, dry_run=True).kept == 7
    assert tree(out) == before


def test_a_dry_run_beside_a_run_reads_what_that_has_noted(raw: Path, out: Path) -> None:
    """A journal that another process writes, or left when it was killed, serves a dry run, whose report is the same."""
    reports = []

    def look(done: int, _total: int) -> None:
        if done == 2:
            reports.append(clean(raw, out, dry_run=True))

    report = clean(raw, out, on_progress=look)

    assert reports == [report]


def test_a_time_beyond_the_years_of_a_database_is_a_time(raw: Path, out: Path) -> None:
    """A file of the year 2286, which 63 bits of nanoseconds do not reach, is cleaned like any other."""
    picture = next(path for path in raw.rglob("*") if path.is_file())
    os.utime(picture, ns=(0, 10**19))

    assert clean(raw, out).to_json() == clean(raw, out).to_json()


def test_a_limit_of_pixels_holds_for_pictures_kept_before(raw: Path, out: Path, tmp_path: Path) -> None:
    """A picture is decided anew where the limit goes below it, as in a first run, and not again in the next run."""
    style = next(path for path in raw.iterdir() if path.is_dir())
    put(style / "large.png", picture_bytes(99, (90, 80)))
    put(style / "large.webp", picture_bytes(99, (90, 80), "WEBP"))
    clean(raw, out)
    looked: list[int] = []

    report = clean(raw, out, max_pixels=7199)
    again = clean(raw, out, max_pixels=7199, on_progress=lambda done, _: looked.append(done))

    assert report.reasons == {"too_large": 1}
    assert report == again == clean(raw, tmp_path / "fresh", max_pixels=7199)
    contents = [
        {file: content for file, (content, _) in pictures(place).items()} for place in (out, tmp_path / "fresh")
    ]
    assert contents[0] == contents[1]
    assert not looked


def test_a_file_that_could_not_be_read_is_tried_again(raw: Path, out: Path) -> None:
    """A file unreadable once is decided anew by the next run, though its size and time are the same."""
    rules = replace(RULES, max_pixels=10_000)
    found = RawFile("A/a.png", "A", 10, 10)
    vanished = decide_picture((found, "a"), raw=raw, out=None, rules=rules)
    with open_journal(out) as journal:
        journal.list_files([found], rules)
        journal.note(vanished)
        journal.list_files([found], rules)

        assert vanished.reason == "unreadable"
        assert journal.num_undecided() == 1


@pytest.mark.parametrize("name", ["\ud800/x.jpg", "A/mine.jpg"])
def test_an_index_that_is_not_ours_claims_nothing(raw: Path, out: Path, name: str) -> None:
    """An index that names files we cannot have written is replaced, and they stay."""
    line = {"file": name, "source": "a", "style": "A", "sha256": "0", "width": 1, "height": 1, "labels": {}}
    put(out / "index.jsonl", json.dumps(line).encode() + b"\n")
    put(out / "A" / "mine.jpg", b"mine")

    clean(raw, out)

    assert (out / "A" / "mine.jpg").read_bytes() == b"mine"
    assert name not in {entry.file for entry in read_index(out / "index.jsonl")}


def test_equal_bytes_in_two_styles_are_a_conflict(raw: Path, out: Path) -> None:
    """One copy is kept, the first by name, and the styles that dispute it are listed; removing it frees the other."""
    put(raw / "Pop Art" / "again.png", picture_bytes(1))

    report = clean(raw, out)

    assert [conflict.sources for conflict in report.conflicts] == [("Cubism/1.png", "Pop Art/again.png")]
    assert [(item.source, item.reason) for item in report.dropped] == [("Pop Art/again.png", "duplicate")]
    assert "Cubism/1.png" in report.dropped[0].detail
    assert len(pictures(out)) == 6
    (raw / "Cubism" / "1.png").unlink()
    assert not clean(raw, out).conflicts
    entries = read_index(out / "index.jsonl")
    assert {entry.source for entry in entries} == set(tree(raw))
    assert sorted(pictures(out)) == sorted(entry.file for entry in entries)


def test_a_blank_picture_is_flagged_and_kept(raw: Path, out: Path) -> None:
    """One color all over is a picture, but worth a look."""
    Image.new("RGB", (40, 40), (9, 9, 9)).save(raw / "Cubism" / "blank.png")

    report = clean(raw, out)

    assert [(item.source, item.reason) for item in report.flagged] == [("Cubism/blank.png", "blank")]
    assert report.kept == 7


def test_a_folder_of_pictures_without_folders_is_one_style(tmp_path: Path, out: Path) -> None:
    """Pictures directly in the raw folder belong to a style of its name, and a warning says there is only one."""
    put(tmp_path / "My Drawings" / "a.png", picture_bytes(1))
    put(tmp_path / "My Drawings" / ".hidden" / "b.png", picture_bytes(2))

    report = clean(tmp_path / "My Drawings", out)

    assert [entry.style for entry in read_index(out / "index.jsonl")] == ["My Drawings"]
    assert any("only one style" in warning for warning in report.warnings)


def test_a_style_without_sound_pictures_never_becomes_a_class(raw: Path, out: Path) -> None:
    """Empty styles and styles of broken files are named in a warning and are not in the index."""
    put(raw / "Broken" / "a.png", b"bad")
    (raw / "Empty").mkdir()

    report = clean(raw, out)

    assert {entry.style for entry in read_index(out / "index.jsonl")} == {"Cubism", "Pop Art"}
    assert not (out / "Broken").exists()
    assert [warning for warning in report.warnings if "'Broken'" in warning]
    assert [warning for warning in report.warnings if "'Empty'" in warning]


@pytest.mark.parametrize(
    ("rule", "value", "reason"),
    [("min_bytes", 6_000, "too_few_bytes"), ("min_side", 41, "too_small"), ("max_aspect", 1.3, "extreme_aspect")],
)
def test_more_than_half_dropped_names_the_knob(raw: Path, out: Path, rule: str, value: float, reason: str) -> None:
    """A rule that drops most pictures gets a warning with the name of the setting."""
    for i in range(6):
        put(raw / "Fauvism" / f"{i}.png", picture_bytes(30 + i, (20, 30)))

    report = clean(raw, out, **{rule: value})

    assert report.reasons[reason] >= 6
    assert any(reason in warning and f"data.{rule}" in warning for warning in report.warnings)


def test_files_beside_pictures_set_off_no_warning(raw: Path, out: Path) -> None:
    """Captions, settings and files of the system may be many; what is wrong with pictures is still told."""
    for i in range(20):
        put(raw / "Cubism" / f"{i}.txt", b"a caption")
        put(raw / "Cubism" / f"{i}.json", b"{}")
        put(raw / "Cubism" / f"._{i}.png", bytes(4096))

    report = clean(raw, out)
    for i in range(7):
        put(raw / "Cubism" / f"page {i}.jpg", b"<html>")
    spoiled = clean(raw, out)

    assert report.reasons == {"sidecar": 40, "hidden": 20}
    assert not [warning for warning in report.warnings if "More than half" in warning]
    assert [warning for warning in spoiled.warnings if "More than half" in warning and "web_page (7)" in warning]


def test_what_is_beside_pictures_is_not_why_there_are_none(tmp_path: Path, out: Path) -> None:
    """The reason that is named is that of the files that were meant as pictures."""
    for i in range(5):
        put(tmp_path / "raw" / "Cubism" / f"{i}.txt", b"a caption")
    put(tmp_path / "raw" / "Cubism" / "1.jpg", b"version https://git-lfs.github.com/spec/v1\n")

    with pytest.raises(DataError, match=r"1 dropped as lfs_pointer.*git lfs pull"):
        clean(tmp_path / "raw", out)


def test_nothing_kept_is_an_error_that_leaves_the_index(raw: Path, out: Path) -> None:
    """The commonest reason and its setting are named, and the data set made before stays whole."""
    clean(raw, out)
    before = pictures(out), (out / "index.jsonl").read_bytes(), (out / "report.json").read_bytes()

    with pytest.raises(
        DataError, match=r"No sound picture among 6 files in .*raw': 6 dropped as too_small, first .*\). Lower data\."
    ):
        clean(raw, out, min_side=1000)

    assert before == (pictures(out), (out / "index.jsonl").read_bytes(), (out / "report.json").read_bytes())


def test_nothing_kept_at_first_leaves_no_trace(raw: Path, out: Path) -> None:
    """A first run that keeps nothing leaves no data folder behind."""
    with pytest.raises(DataError, match="No sound picture"):
        clean(raw, out, min_side=1000)

    assert not out.exists()


def make_nothing(raw: Path) -> None:
    """Leave the place empty."""


def make_file(raw: Path) -> None:
    """Put a file where a folder should be."""
    raw.write_bytes(b"file")


def make_empty_folders(raw: Path) -> None:
    """Make styles without files."""
    (raw / "Cubism").mkdir(parents=True)


@pytest.mark.parametrize(
    ("make", "message"),
    [(make_nothing, "does not exist"), (make_file, "not a folder"), (make_empty_folders, "holds no files")],
)
def test_a_raw_folder_without_files_is_an_error(
    tmp_path: Path, out: Path, make: Callable[[Path], None], message: str
) -> None:
    """What is wrong is said and nothing is written."""
    make(tmp_path / "raw")

    with pytest.raises(DataError, match=message):
        clean(tmp_path / "raw", out)

    assert not out.exists()


def test_folders_inside_one_another_are_refused(raw: Path, tmp_path: Path) -> None:
    """The data folder is never the raw folder, above it or below it, also by way of a link."""
    before = tree(tmp_path)
    (tmp_path / "link").symlink_to(raw, target_is_directory=True)

    for place in (raw, raw / "data", raw / "Cubism" / ".." / "data", tmp_path, tmp_path / "link" / "data"):
        with pytest.raises(ConfigError, match="lie in one another"):
            clean(raw, place)

    assert tree(tmp_path) == before


def test_a_data_folder_that_cannot_be_written_is_a_resource_error(raw: Path, tmp_path: Path) -> None:
    """The place is named; the pictures are not called unreadable."""
    put(tmp_path / "data" / "Cubism", b"a file where a folder should be")

    with pytest.raises(ResourceError, match="Cubism"):
        clean(raw, tmp_path / "data")


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is unreadable for root")
def test_files_and_folders_without_permission_are_unreadable(raw: Path, out: Path) -> None:
    """What may not be read is dropped by name; the rest is kept."""
    (raw / "Cubism" / "0.png").chmod(0)
    (raw / "Pop Art" / "deeper").chmod(0)

    report = clean(raw, out)

    (raw / "Pop Art" / "deeper").chmod(0o700)
    assert [(item.source, item.style, item.reason) for item in report.dropped] == [
        ("Cubism/0.png", "Cubism", "unreadable"),
        ("Pop Art/deeper", "Pop Art", "unreadable"),
    ]
    assert report.kept == 4


def test_cleaning_imports_nothing_heavy() -> None:
    """Worker processes start fast: neither torch nor the command line is imported."""
    code = "import sys, latentart.data.cleaning.clean\n"
    code += "print([m for m in ('torch', 'pydantic', 'typer') if m in sys.modules])"

    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert result.stdout.strip() == "[]"


def test_links_into_a_named_folder_bring_their_pictures(tmp_path: Path) -> None:
    """They are cleaned like others, and the report says where links led; a root that is none is refused."""
    raw, library, out = tmp_path / "raw", tmp_path / "library", tmp_path / "out"
    (raw / "A").mkdir(parents=True)
    for i, name in enumerate(("raw/A/own.png", "library/far.png", "library/B/deep.png", "secret.png")):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        draw_picture("Cubism", 0, i, (64, 64)).save(tmp_path / name)
    (raw / "A/far.png").symlink_to(library / "far.png")
    (raw / "A/secret.png").symlink_to(tmp_path / "secret.png")
    (raw / "B").symlink_to(library / "B")
    rules = CleanRules(min_bytes=0, min_side=8, max_side=64, max_aspect=4, link_root="../library")

    report = clean_folder(raw, out, rules, workers=0)

    assert [(one.source, one.reason) for one in report.dropped] == [("A/secret.png", "not_a_regular_file")]
    assert sorted(entry.source for entry in read_index(out / "index.jsonl")) == ["A/far.png", "A/own.png", "B/deep.png"]
    assert any(f"followed into {str(library)!r} and nowhere else" in warning for warning in report.warnings)
    with pytest.raises(ConfigError, match=r"data\.link_root is 'none', but .* is no folder"):
        clean_folder(raw, out, replace(rules, link_root="none"), workers=0)
