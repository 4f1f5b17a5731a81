"""Processes that can be killed in a workspace, small disks, and the scores."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

# a process that has loaded everything and forks one for each line: its start takes no seconds
NURSERY = """
import json, os, sys, traceback
import latentart.training.encode, latentart.training.train_ldm, latentart.training.train_vae
from latentart import cli
for line in sys.stdin:
    order = json.loads(line)
    if "wait" in order:
        print(os.waitstatus_to_exitcode(os.waitpid(order["wait"], 0)[1]), flush=True)
        continue
    if "poll" in order:
        found, status = os.waitpid(order["poll"], os.WNOHANG)
        print(os.waitstatus_to_exitcode(status) if found else "runs", flush=True)
        continue
    child = os.fork()
    if child == 0:
        os.setsid()
        os.chdir(order["folder"])
        for stream, name in ((1, "out"), (2, "err")):
            os.dup2(os.open(order["said"] + name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), stream)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.environ.update(order["environment"])
        sys.argv = ["latentart", *order["words"]]
        code = 1
        try:
            cli.main()
            code = 0
        except SystemExit as done:
            code = done.code or 0
        except BaseException:
            traceback.print_exc()
        sys.exit(code)
    print(child, flush=True)
"""


@dataclass
class Nursery:
    """The process that forks others, and what it is asked."""

    process: subprocess.Popen[str]

    def ask(self, **order: Any) -> str:
        """Give an order and return the answer."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(order) + "\n")
        self.process.stdin.flush()
        return self.process.stdout.readline().strip()


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
            self.code = int(self.nursery.ask(wait=self.pid))
        return self.code

    def is_running(self) -> bool:
        """Tell whether it still runs."""
        if self.code is None and (answer := self.nursery.ask(poll=self.pid)) != "runs":
            self.code = int(answer)
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

    def others(self) -> list[int]:
        """Return the processes of its session, apart from itself, that still run."""
        found = []
        for stat in Path("/proc").glob("[0-9]*/stat"):
            try:
                fields = stat.read_text(encoding="latin-1").rpartition(")")[2].split()
            except OSError:
                continue
            if int(fields[3]) == self.pid and int(stat.parent.name) != self.pid and fields[0] != "Z":
                found.append(int(stat.parent.name))
        return found


@pytest.fixture(scope="session")
def nursery() -> Iterator[Nursery]:
    """Start the process that forks others."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "COLUMNS": "80"}
    command, pipe = [sys.executable, "-c", NURSERY], subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, env=environment) as process:
        yield Nursery(process)
        assert process.stdin is not None
        process.stdin.close()


@pytest.fixture
def start(nursery: Nursery, tmp_path: Path) -> Iterator[Callable[..., Child]]:
    """Start `latentart` with the given words in a folder; whatever still runs at the end is killed."""
    started: list[Child] = []

    def start(folder: Path, *words: str, environment: dict[str, str] | None = None) -> Child:
        said = tmp_path / f"said-{len(started)}-"
        order = {"folder": str(folder), "words": words, "said": str(said), "environment": environment or {}}
        started.append(Child(int(nursery.ask(**order)), folder, said, nursery))
        return started[-1]

    yield start
    for child in started:
        left = child.others()
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
