"""Processes that can be killed in a workspace, small disks, and the scores."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from nursery import Nursery, others_of


@dataclass
class Child:
    """A process that runs `latentart` in a folder, and leads its own session; it speaks into files in ``said``."""

    pid: int
    folder: Path
    said: Path
    nursery: Nursery
    code: int | None = None

    def wait(self) -> int:
        """Wait for its end and return its exit code."""
        if self.code is None:
            self.code = self.nursery.wait(self.pid)
        return self.code

    def is_running(self) -> bool:
        """Tell whether it still runs."""
        if self.code is None:
            self.code = self.nursery.poll(self.pid)
        return self.code is None

    def kill(self) -> bool:
        """Kill it as `kill -9` does; tell whether that came before its end."""
        if self.code is None:
            os.kill(self.pid, signal.SIGKILL)
        return self.wait() == -signal.SIGKILL

    def err(self) -> str:
        """Return what it has written to stderr."""
        return self.said.with_name(self.said.name + "err").read_text()

    def error(self) -> str:
        """Return the one line of a known error, after looking at its form."""
        lines = self.err().splitlines()
        assert [line for line in lines if line.startswith("error: ")] == lines[-1:], self.err()
        assert "Traceback" not in self.err(), self.err()
        return lines[-1]

    def wait_for(self, is_reached: Callable[[], object], pause: float = 0.005) -> bool:
        """Wait until something is so, at most until its end; tell whether it is."""
        until = time.monotonic() + 120
        while not (reached := is_reached()):
            if not self.is_running():
                return bool(is_reached())
            assert time.monotonic() < until, self.err()
            time.sleep(pause)
        return bool(reached)


@pytest.fixture
def start(nursery: Nursery, tmp_path: Path) -> Iterator[Callable[..., Child]]:
    """Start `latentart` with the given words in a folder; whatever still runs at the end is killed."""
    started: list[Child] = []

    def start(folder: Path, *words: str, environment: dict[str, str] | None = None) -> Child:
        said = tmp_path / f"said-{len(started)}-"
        files = (f"{said}out", f"{said}err")
        started.append(Child(nursery.start(folder, *words, said=files, environment=environment), folder, said, nursery))
        return started[-1]

    yield start
    for child in started:
        left = others_of(child.pid)
        if child.code is None and child.is_running():
            left.append(child.pid)
        for process in left:
            os.kill(process, signal.SIGKILL)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """Mount a disk of its own in memory, of the size asked for; skips where that is not permitted."""
    place = tmp_path / "disk"
    mounted = []

    def mount(size: str) -> Path:
        place.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "none", str(place)]
        if shutil.which("mount") is None or subprocess.run(command, capture_output=True, check=False).returncode:
            pytest.skip("a disk in memory cannot be mounted here")
        mounted.append(place)
        return place

    yield mount
    for path in mounted:
        subprocess.run(["umount", "-l", str(path)], check=True)


@pytest.fixture(scope="session")
def score() -> Callable[[str], None]:
    """Write a line of the scores; `pytest -s` shows it."""

    def write(line: str) -> None:
        sys.stdout.write(f"\n{line}\n")

    return write
