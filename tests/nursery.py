"""Real processes that start at once: one has loaded everything, and forks another for each order."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# what an order says: folder, words, the files `out` and `err`, environment, and a program in place of the command
FORKS = """
import json, os, sys, traceback
import latentart.sampling.sample, latentart.training.encode, latentart.training.train_ldm, latentart.training.train_vae
import torchvision  # which they load late, each child anew
from latentart import cli
from latentart.training import ldm_batches
ldm_batches.HELD_OUT_DRAWS = 16  # as in the tests' own process
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
        for stream in (1, 2):
            path = order["out" if stream == 1 else "err"]
            os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), stream)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.environ.update(order["environment"])
        sys.argv = ["latentart", *order["words"]]
        code = 1
        try:
            exec(order["program"])
            code = 0
        except SystemExit as done:
            code = done.code or 0
        except BaseException:
            traceback.print_exc()
        sys.stdout.flush()
        sys.stderr.flush()
        if "RANK" in os.environ:  # torch's threads may wait for the other process
            os._exit(code)
        sys.exit(code)
    print(child, flush=True)
"""


@dataclass(frozen=True)
class Nursery:
    """The process that forks others."""

    process: subprocess.Popen[str]

    def start(
        self,
        folder: Path,
        *words: str,
        said: tuple[str | Path, str | Path] = ("out", "err"),
        environment: dict[str, str] | None = None,
        program: str = "cli.main()",
    ) -> int:
        """Start `latentart` with the words in a folder, or a program in its place; return its process.

        It leads its own session, and speaks into the two files ``said``.
        """
        out, err = map(str, said)
        environment = environment or {}
        order = {"words": words, "out": out, "err": err, "environment": environment, "program": program}
        return int(self._ask(folder=str(folder), **order))

    def wait(self, pid: int) -> int:
        """Wait for the end of a process and return its exit code."""
        return int(self._ask(wait=pid))

    def poll(self, pid: int) -> int | None:
        """Return the exit code of a process that has ended."""
        return None if (answer := self._ask(poll=pid)) == "runs" else int(answer)

    def _ask(self, **order: Any) -> str:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(order) + "\n")
        self.process.stdin.flush()
        return self.process.stdout.readline().strip()


@contextmanager
def open_nursery() -> Iterator[Nursery]:
    """Start the process that forks others, and end it."""
    places = os.pathsep.join(str(Path(place).resolve()) for place in sys.path)
    environment = os.environ | {"OMP_NUM_THREADS": "1", "COLUMNS": "80", "PYTHONPATH": places}
    command, pipe = [sys.executable, "-c", FORKS], subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, env=environment) as process:
        yield Nursery(process)
        assert process.stdin is not None
        process.stdin.close()


def others_of(pid: int) -> list[int]:
    """Return the processes of the session that a process leads, apart from itself, that still run."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text(encoding="latin-1").rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[3]) == pid and int(stat.parent.name) != pid and fields[0] != "Z":
            found.append(int(stat.parent.name))
    return found
