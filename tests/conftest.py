"""What holds for all tests: threads, hypothesis, a tiny workspace trained once, a way to run the command line."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import os
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import typer.main
from hypothesis import HealthCheck, settings
from nursery import Nursery, open_nursery

from latentart import cli
from latentart.data.synthetic.art import draw_picture

# the tests run side by side, a core for each: before anything imports torch
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")

# no test depends on how busy the machine is
settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")

STYLES = ("Cubism", "High_Renaissance", "Minimalism")
PICTURES = 5
SMALL: dict[str, Any] = {"resolution": 32, "batch_size": 4, "weights": {"adversarial": 0.1}}
STAGES = [
    {**SMALL, "name": "l1", "steps": 3, "discriminator_start": 2},
    {**SMALL, "name": "adversarial", "steps": 3, "tanh": True},
    {**SMALL, "name": "lpips", "steps": 2, "tanh": True, "weights": {"adversarial": 0.1, "perceptual": 0.1}},
    {**SMALL, "name": "hires", "epochs": 0.5, "tanh": True, "resolution": 64},
]
TINY = (
    "data.max_side=32",
    "vae.run.precision=fp32",
    "vae.model.widths=[8,8,16]",
    'vae.model.attention=["none","none","linear"]',
    "vae.model.middle_attention=linear",
    "vae.model.patch_size=1",
    "vae.model.groups=4",
    "vae.model.head_channels=8",
    "vae.discriminator.base_channels=8",
    "vae.run.log_every=1",
    f"vae.stages={json.dumps(STAGES)}",
    "ldm.model.widths=[8,16]",
    'ldm.model.attention=["none","linear"]',
    "ldm.model.blocks_per_stage=2",
    "ldm.model.groups=4",
    "ldm.model.head_channels=8",
    "ldm.model.embedding_channels=16",
    "ldm.training.resolution=32",
    "ldm.training.batch_size=4",
    "ldm.training.steps=3",
    # a run that is made longer goes on as it was
    'ldm.training.optimizer.schedule={"kind":"constant","warmup_steps":0}',
    "ldm.training.run.log_every=1",
    "ldm.training.run.precision=fp32",
    "sample.steps=3",
    "sample.guidance=1.5",
    "sample.precision=fp32",
)


@dataclass(frozen=True)
class Outcome:
    """What a command left: its exit code and what it wrote."""

    code: int
    out: str
    err: str

    def error(self, code: int) -> str:
        """Return the one line of a known error, after looking at its form."""
        assert (self.code, self.out) == (code, ""), self.err
        lines = self.err.splitlines()
        assert [line for line in lines if line.startswith("error: ")] == (lines[-1:] if code < 128 else [])
        return lines[-1]


class Stopper(io.StringIO):
    """A screen that asks its own process to stop, as a scheduler does, when a text appears on it."""

    def __init__(self, stop_at: str) -> None:
        super().__init__()
        self.stop_at, self.is_done = stop_at, False

    def write(self, text: str) -> int:
        """Take what is written."""
        written = super().write(text)
        if not self.is_done and self.stop_at in self.getvalue():
            self.is_done = True
            os.kill(os.getpid(), signal.SIGTERM)
        return written


def run_in(folder: Path, *words: str | Path, stop_at: str = "") -> Outcome:
    """Run `latentart` with the given words in a folder, in this process; stop it when ``stop_at`` is on the screen."""
    out, err = io.StringIO(), Stopper(stop_at) if stop_at else io.StringIO()
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    with pytest.MonkeyPatch.context() as patch, contextlib.chdir(folder):
        patch.setattr(sys, "argv", ["latentart", *map(str, words)])
        patch.setattr(sys, "excepthook", sys.excepthook)
        patch.delenv("FORCE_COLOR", raising=False)
        patch.setenv("COLUMNS", "80")
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), pytest.raises(SystemExit) as ended:
            cli.main()
    root.handlers[:] = handlers
    root.setLevel(level)
    return Outcome(ended.value.code if isinstance(ended.value.code, int) else 0, out.getvalue(), err.getvalue())


def draw_raw(folder: Path, styles: tuple[str, ...] = STYLES, count: int = PICTURES) -> Path:
    """Draw a raw folder of 32-px pictures and return it."""
    for style in styles:
        (folder / style).mkdir(parents=True)
        for index in range(count):
            draw_picture(style, 0, index, (32, 32)).save(folder / style / f"{index}.png")
    return folder


@dataclass(frozen=True)
class Story:
    """The whole path, done once: the workspace and what each command wrote. Others read it or copy it."""

    folder: Path
    raw: Path
    outcomes: dict[str, Outcome]


PATH = (
    "clean-data data.workers=1",
    "train vae",
    "encode",
    "train ldm",
    "sample --style High_Renaissance --eta 0.8 --grid 4x4",
)


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    """Run the tiny networks on one thread: more would only wait for each other."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session", autouse=True)
def small_overheads() -> Iterator[None]:
    """Take 16 draws for a held-out loss: 256 in batches of 4 outlast the training; build typer's commands once."""
    from latentart.training import ldm_batches

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ldm_batches, "HELD_OUT_DRAWS", 16)
        patch.setattr(typer.main, "get_command", cache(typer.main.get_command))
        yield


@pytest.fixture(scope="session")
def story(tmp_path_factory: pytest.TempPathFactory, one_thread: None, small_overheads: None) -> Story:
    """Walk the whole path in a new workspace."""
    home = tmp_path_factory.mktemp("story")
    raw = draw_raw(home / "pictures")
    outcomes = {"init": run_in(home, "init", "art", "--preset", "demo", "--data", "pictures", *TINY)}
    for command in PATH:
        outcomes[command] = run_in(home / "art", *command.split())
        assert outcomes[command].code == 0, outcomes[command].err
    return Story(home / "art", raw, outcomes)


@pytest.fixture
def workspace(story: Story, tmp_path: Path) -> Path:
    """Return a copy of the trained workspace, to be changed at will."""
    return Path(shutil.copytree(story.folder, tmp_path / "art", copy_function=shutil.copy2))


@pytest.fixture
def cleaned(workspace: Path) -> Path:
    """Return a workspace with clean pictures and nothing trained."""
    for name in ("runs", "cache", "samples"):
        shutil.rmtree(workspace / name)
    return workspace


@pytest.fixture
def run() -> Callable[..., Outcome]:
    """Run `latentart`: folder, words, and ``stop_at``."""
    return run_in


@pytest.fixture(scope="session")
def run_once() -> Callable[..., Outcome]:
    """Run `latentart` for what many tests look at."""
    return run_in


@pytest.fixture(scope="session")
def nursery() -> Iterator[Nursery]:
    """Start the process that forks others."""
    with open_nursery() as process:
        yield process


@pytest.fixture
def pictures() -> Callable[..., Path]:
    """Draw a raw folder: folder, styles, pictures of each."""
    return draw_raw


@pytest.fixture
def snapshot() -> Callable[[Path], dict[str, tuple[bytes, int]]]:
    """Return the content and the time of every file below a folder."""

    def take(folder: Path) -> dict[str, tuple[bytes, int]]:
        found = (path for path in folder.rglob("*") if path.is_file())
        return {str(path.relative_to(folder)): (path.read_bytes(), path.stat().st_mtime_ns) for path in found}

    return take


@pytest.fixture
def init_tiny(tmp_path: Path) -> Callable[..., Path]:
    """Make a workspace in ``tmp_path`` for a raw folder, with networks as small as they go."""

    def init(raw: Path, *settings: str) -> Path:
        done = run_in(tmp_path, "init", "new", "--preset", "demo", "--data", raw, *TINY, *settings)
        assert done.code == 0, done.err
        return tmp_path / "new"

    return init
