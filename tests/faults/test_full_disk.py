"""A disk that is full, and a limit on the size of files: before a command and amid it."""

from __future__ import annotations

import contextlib
import resource
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from latentart.data.index import write_lines
from latentart.data.pictures.grids import save_png
from latentart.errors import ResourceError
from latentart.storage.checkpoints import find_checkpoint, list_checkpoints
from latentart.storage.folders import verify_folder, write_json_atomic
from latentart.training.log import RunLog

Run = Callable[..., Any]
KB = 1024
MB = 1024 * KB
# what each command makes, and the files of it that are the same each time
COMMANDS = {
    "clean-data data.workers=1": ("data", "**/*.*"),
    "train vae --stage l1 vae.run.checkpoint_every=1": ("runs/vae", "**/*.safetensors"),
    "encode": ("cache", "**/*.safetensors"),
    "train ldm ldm.training.run.checkpoint_every=1": ("runs/ldm", "**/*.safetensors"),
    "sample --style Cubism --grid 2x2": ("samples", "*.png"),
}
LATER = {"data": ("runs", "cache", "samples"), "runs/vae": ("runs/ldm", "cache", "samples"), "cache": ("runs/ldm",)}


@contextlib.contextmanager
def full(disk: Path, left: int) -> Iterator[None]:
    """Leave so many bytes of a disk free for a while."""
    filler = disk / "filler"
    with contextlib.suppress(OSError), filler.open("wb") as file:  # closing it flushes, and may fail too
        file.write(bytes(max(0, shutil.disk_usage(disk).free - left)))
    try:
        yield
    finally:
        filler.unlink()


@contextlib.contextmanager
def short_files(size: int) -> Iterator[None]:
    """Let no file become larger for a while."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def made(art: Path, command: str) -> dict[str, bytes]:
    """Return the files that a command makes each time alike."""
    place, pattern = COMMANDS[command]
    own = (path for path in (art / place).glob(pattern) if path.is_file())
    kept = (path for path in own if not path.name.startswith(".") and "report" not in path.name)
    return {str(path.relative_to(art)): path.read_bytes() for path in kept}


def renew(story: Any, art: Path, command: str) -> None:
    """Put a workspace back to before a command."""
    shutil.rmtree(art, ignore_errors=True)
    shutil.copytree(story.folder, art)
    place, _ = COMMANDS[command]
    for name in (place, *LATER.get(place, ())):
        shutil.rmtree(art / name, ignore_errors=True)


class DiskTrial:
    """Runs a command where there is no room, and again where there is."""

    def __init__(self, story: Any, run: Run, art: Path, command: str) -> None:
        self.story, self.run, self.art, self.command = story, run, art, command
        self.refused, self.fitted = 0, 0
        renew(story, art, command)
        assert self.go().code == 0
        self.expected = made(art, command)
        assert self.expected

    def go(self) -> Any:
        """Run the command."""
        return self.run(self.art, *self.command.split())

    def meet(self, limit: contextlib.AbstractContextManager[None]) -> None:
        """Run it within a limit: one line and exit code 5, or all is well; then without: all is as ever."""
        renew(self.story, self.art, self.command)
        with limit:
            met = self.go()
        if met.code == 0:
            self.fitted += 1
        else:
            assert met.error(5), met.err
            self.refused += 1
        for checkpoint in [path for kind in ("vae", "ldm") for path in list_checkpoints(self.art / "runs" / kind)]:
            verify_folder(checkpoint)
        again = self.go()
        assert again.code == 0, (met.err, again.err)
        assert made(self.art, self.command) == self.expected, self.command
        hidden = [path for path in self.art.rglob(".*") if path.name != ".clean.sqlite"]
        assert hidden == [], (self.command, met.err)


def write_png(folder: Path) -> None:
    """Write a picture of noise."""
    from PIL import Image

    save_png(Image.effect_noise((64, 64), 60), folder / "page.png")


WRITERS: dict[str, Callable[[Path], None]] = {
    "page.png": write_png,
    "index.jsonl": lambda folder: write_lines(folder / "index.jsonl", ["line"] * 1000),
    "state.json": lambda folder: write_json_atomic(folder / "state.json", list(range(1000))),
    "metrics.jsonl": lambda folder: RunLog(folder, resume_step=1000).note(""),
}


@pytest.mark.parametrize("name", WRITERS)
def test_a_file_that_cannot_be_written_leaves_the_old_one_and_nothing_else(tmp_path: Path, name: str) -> None:
    """Half a file would take room on a disk that has none."""
    old = "".join(f'{{"step": {step}}}\n' for step in range(200))
    (tmp_path / name).write_text(old)

    with short_files(1000), contextlib.suppress(OSError, ResourceError):
        WRITERS[name](tmp_path)

    assert {path.name for path in tmp_path.iterdir()} - {"log.txt"} == {name}
    assert (tmp_path / name).read_text() == old


@pytest.mark.faults
def test_a_full_disk_is_one_line_and_the_same_command_goes_on(
    story: Any, run: Run, small_disk: Callable[[str], Path], score: Callable[[str], None]
) -> None:
    """Before each command, with nothing or little left."""
    disk, refused, fitted = small_disk("64m"), 0, 0
    for command in COMMANDS:
        trial = DiskTrial(story, run, disk / "art", command)
        for left in (0, 4 * KB, 20 * KB, 100 * KB, 400 * KB):
            trial.meet(full(disk, left))
        refused, fitted = refused + trial.refused, fitted + trial.fitted

    count = 5 * len(COMMANDS)
    score(f"a full disk: {refused} of {count} ended in one line and exit code 5, {fitted} found room; {count} went on")
    assert refused + fitted == count
    assert refused >= count // 2


@pytest.mark.parametrize(
    "sizes",
    [
        pytest.param((30 * KB,), marks=pytest.mark.slow, id="few"),
        pytest.param((0, KB, 10 * KB, 30 * KB), marks=pytest.mark.faults, id="all"),
    ],
)
def test_a_file_size_limit_is_one_line_and_the_same_command_goes_on(
    story: Any, run: Run, tmp_path: Path, score: Callable[[str], None], sizes: tuple[int, ...]
) -> None:
    """As a quota, a FAT disk or `ulimit -f` sets it."""
    refused, fitted = 0, 0
    for command in COMMANDS:
        trial = DiskTrial(story, run, tmp_path / "art", command)
        for size in sizes:
            trial.meet(short_files(size))
        refused, fitted = refused + trial.refused, fitted + trial.fitted

    count = len(sizes) * len(COMMANDS)
    score(
        f"a file size limit: {refused} of {count} ended in one line and exit code 5, {fitted} fitted; {count} went on"
    )
    assert refused + fitted == count
    assert refused >= count // 3


@pytest.mark.parametrize(
    "count", [pytest.param(1, marks=pytest.mark.slow, id="few"), pytest.param(5, marks=pytest.mark.faults, id="all")]
)
def test_a_disk_that_fills_amid_a_training_keeps_the_older_checkpoint(
    story: Any,
    run: Run,
    start: Callable[..., Any],
    small_disk: Callable[[str], Path],
    score: Callable[[str], None],
    count: int,
) -> None:
    """Checkpoint, model, log and preview at once: the third checkpoint that fails ends it, and it goes on after."""
    disk, good = small_disk("64m"), 0
    art = Path(shutil.copytree(story.folder, disk / "art"))
    shutil.rmtree(art / "runs/ldm")
    words = ("ldm.training.steps=100000", "ldm.training.run.checkpoint_every=1", "ldm.training.run.preview_every=2")
    metrics = art / "runs/ldm/metrics.jsonl"
    for _ in range(count):
        before = len(metrics.read_text().splitlines()) if metrics.exists() else 0
        child = start(art, "train", "ldm", *words)
        child.wait_for(lambda: metrics.exists() and len(metrics.read_text().splitlines()) >= before + 3)  # noqa: B023
        with full(disk, 0):
            code = child.wait()
        found = find_checkpoint(art / "runs/ldm")
        again = run(art, "train", "ldm", *words, "--max-steps", "1")
        is_told = code == 5 and "3 checkpoints in a row could not be written" in child.error()
        good += is_told and found is not None and again.out == f"runs/ldm/checkpoints/step-{found.step + 1:08d}\n"
        assert list((art / "runs/ldm").rglob(".*")) == []

    score(
        f"a disk that fills amid train ldm: {good} of {count} ended in one line, with a sound checkpoint, and went on"
    )
    assert good == count
