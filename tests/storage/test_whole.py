"""Whole files: what is there after an error, on a full disk, and after a kill, for every writer of the package."""

from __future__ import annotations

import contextlib
import os
import re
import resource
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from PIL import Image

from latentart.config.base import read_json_object
from latentart.core.ema import Ema
from latentart.data.cleaning.picture import CleanRules, decide_pictures
from latentart.data.cleaning.raw_file import RawFile
from latentart.data.index import read_index, write_lines
from latentart.data.latent_cache import CacheLayout, write_shards
from latentart.data.pictures.grids import save_png
from latentart.data.pictures.movies import save_movie
from latentart.data.synthetic.art import write_raw_folder
from latentart.errors import LatentArtError, ResourceError
from latentart.model.averages import save_average
from latentart.reporting.report import report
from latentart.sampling.settings import read_drawing
from latentart.scoring.evaluate_ldm import EVALUATIONS, require_place_for_evaluation
from latentart.storage.folders import commit_folder
from latentart.storage.json_files import write_json_atomic
from latentart.storage.whole import is_alive, remove_temporaries, whole_file
from latentart.training.log import RunLog

NOISE = Image.effect_noise((64, 64), 60).convert("RGB")
SHAPE = (1, 8, 4, 4)


@contextlib.contextmanager
def short_files(size: int) -> Iterator[None]:
    """Let no file become larger for a while: the system itself refuses, as it does when a disk is full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def write_shard(folder: Path) -> None:
    """Write one shard of a latent cache."""
    batch = (torch.zeros(4, *SHAPE), torch.zeros(4), torch.arange(4))
    write_shards(folder, CacheLayout.plan(4, SHAPE, "fp16"), [0], iter([batch]), on_progress=lambda _: None)


def write_clean_picture(folder: Path) -> None:
    """Clean one sound picture."""
    raw = folder.with_name("raw")
    rules = CleanRules(min_bytes=0, min_side=16, max_side=512, max_aspect=4.0)
    source = RawFile("Cubism/a.png", "Cubism", (raw / "Cubism/a.png").stat().st_size, 1)
    list(decide_pictures([(source, "Cubism")], raw=raw, out=folder, rules=rules, workers=0))


WRITERS: dict[str, Callable[[Path], None]] = {
    "a grid": lambda folder: save_png(NOISE, folder / "page.png"),
    "a GIF": lambda folder: save_movie([NOISE, NOISE.rotate(90)], folder / "movie.gif", "{}"),
    "a WebP": lambda folder: save_movie([NOISE, NOISE.rotate(90)], folder / "movie.webp", "{}"),
    "an index": lambda folder: write_lines(folder / "index.jsonl", ["line"] * 1000),
    "JSON": lambda folder: write_json_atomic(folder / "state.json", list(range(1000))),
    "a folder": lambda folder: commit_folder(folder / "model", lambda f: None or (f / "a").write_bytes(bytes(9999))),
    "a shard": write_shard,
    "an average": lambda folder: save_average(folder, 1, Ema(torch.nn.Linear(64, 64))),
    "a clean picture": write_clean_picture,
    "a raw folder": lambda folder: None or write_raw_folder(folder, seed=0, pictures_per_style=1, size=64),
}


@pytest.mark.parametrize("name", WRITERS)
def test_a_full_disk_leaves_no_half_of_a_file_behind(tmp_path: Path, name: str) -> None:
    """Neither under its name nor under another: it would take room where there is none."""
    folder = tmp_path / "folder"
    folder.mkdir()
    (tmp_path / "raw/Cubism").mkdir(parents=True)
    NOISE.save(tmp_path / "raw/Cubism/a.png")

    with short_files(200), pytest.raises((OSError, ResourceError)):
        WRITERS[name](folder)

    assert [path for path in folder.rglob("*") if path.is_file()] == []


@pytest.mark.parametrize("name", ["metrics.jsonl", "report.html"])
def test_a_full_disk_leaves_the_older_log_and_report_as_they_are(tmp_path: Path, name: str) -> None:
    """The new ones replace them whole or not at all."""
    (tmp_path / "metrics.jsonl").write_text("".join(f'{{"step": {step}, "loss": 1.0}}\n' for step in range(200)))
    (tmp_path / "log.txt").write_text("")
    report(tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    with short_files(1000), contextlib.suppress(ResourceError):
        RunLog(tmp_path, resume_step=1000) if name == "metrics.jsonl" else report(tmp_path)

    after = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert after.keys() == before.keys()
    assert after[name] == before[name]


def test_what_is_in_the_way_is_named(tmp_path: Path) -> None:
    """And not the temporary file, which nobody knows and which is gone."""
    (tmp_path / "a.txt").mkdir()

    with pytest.raises(IsADirectoryError) as caught, whole_file(tmp_path / "a.txt") as temporary:
        temporary.write_text("new")

    assert (caught.value.filename, caught.value.filename2) == (str(tmp_path / "a.txt"), None)


@pytest.mark.parametrize("error", [KeyboardInterrupt(), ValueError("bug"), OSError("full")])
def test_an_error_leaves_the_old_file_and_no_other(tmp_path: Path, error: BaseException) -> None:
    """It comes through as it is."""
    (tmp_path / "a.txt").write_text("old")

    def write() -> None:
        with whole_file(tmp_path / "a.txt") as temporary:
            temporary.write_text("ne")
            raise error

    with pytest.raises(type(error)):
        write()

    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"a.txt": "old"}


def test_only_what_dead_processes_were_writing_goes(tmp_path: Path) -> None:
    """What a living one writes stays, unless a lock tells that none does; the user's own files stay always."""
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    for name in (f".tmp-a.txt-{dead.pid}", f".tmp-b.txt-{os.getpid()}", ".tmp-mine", "a.txt"):
        (tmp_path / name).write_text("")

    remove_temporaries(tmp_path)
    after = {path.name for path in tmp_path.iterdir()}
    remove_temporaries(tmp_path, is_locked=True)

    assert after == {f".tmp-b.txt-{os.getpid()}", ".tmp-mine", "a.txt"}
    assert {path.name for path in tmp_path.iterdir()} == {".tmp-mine", "a.txt"}


def test_a_process_whose_end_nobody_has_noticed_does_not_run() -> None:
    """Until its parent asks, the system keeps its id: its lock would be held for ever."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        runs = is_alive(process.pid)
        process.kill()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)

        assert (runs, is_alive(process.pid)) == (True, False)


@pytest.fixture
def pipe(tmp_path: Path) -> Iterator[Path]:
    """Return a named pipe; who waits on it is called after five seconds."""

    def call(*_: object) -> None:
        raise TimeoutError("it waits for ever")

    before = signal.signal(signal.SIGALRM, call)
    signal.alarm(5)
    os.mkfifo(tmp_path / "pipe")
    yield tmp_path / "pipe"
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def read_drawn(path: Path) -> object:
    """Read what a picture was drawn from."""
    return read_drawing(path, None, None)  # type: ignore[arg-type]  # no model is asked


@pytest.mark.parametrize("read", [read_json_object, read_index, read_drawn])
def test_nobody_waits_on_a_pipe(pipe: Path, read: Callable[[Path], object]) -> None:
    """In the place of a file of the workspace it is refused in one line that names it."""
    with pytest.raises(LatentArtError, match=re.escape(f"{pipe}") + ".* no plain file"):
        read(pipe)


def test_a_run_does_not_wait_to_write_into_a_pipe(pipe: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Its log is one warning, in no system's words; an evaluation is refused before its work."""
    for name in ("metrics.jsonl", "log.txt", EVALUATIONS):
        os.mkfifo(tmp_path / name)

    log = RunLog(tmp_path)
    log.metrics(1, loss=1.0)
    log.note("said")

    (record,) = caplog.records
    assert "goes on without it: it is no plain file" in record.getMessage()
    with pytest.raises(ResourceError, match="no plain file"):
        require_place_for_evaluation(tmp_path)
