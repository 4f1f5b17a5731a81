"""A worker that loads, or one of the processes of a training, killed by `kill -9`."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from nursery import others_of

from latentart.storage.checkpoints import find_checkpoint

ENDLESS = (
    "ldm.training.run.verdict=false",
    "ldm.training.steps=100000",
    "ldm.training.run.checkpoint_every=2",
)


def steps_logged(art: Path) -> int:
    """Return how many steps are in the log."""
    path = art / "runs/ldm/metrics.jsonl"
    return path.read_text().count('"loss"') if path.exists() else 0


@pytest.fixture
def untrained(workspace: Path) -> Path:
    """Return a workspace with an autoencoder, a latent cache and no denoiser."""
    shutil.rmtree(workspace / "runs/ldm")
    return workspace


def goes_on(run: Callable[..., Any], art: Path) -> bool:
    """Tell whether one process goes on from the newest checkpoint, which is sound."""
    found = find_checkpoint(art / "runs/ldm")
    again = run(art, "train", "ldm", *ENDLESS, "--max-steps", "1")
    return again.out == f"runs/ldm/checkpoints/step-{(found.step if found else 0) + 1:08d}\n"


@pytest.mark.faults
def test_a_killed_worker_ends_the_run_in_one_line(
    run: Callable[..., Any], start: Callable[..., Any], untrained: Path, score: Callable[[str], None]
) -> None:
    """Either of two: exit code 5, none of the other processes is left, and the run goes on."""
    count, good, chance = 3, 0, random.Random(0)
    for _ in range(count):
        before = steps_logged(untrained)
        child = start(untrained, "train", "ldm", *ENDLESS, "data.workers=2")
        child.wait_for(lambda: steps_logged(untrained) >= before + 2)  # noqa: B023
        workers = [pid for pid in others_of(child.pid) if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()]
        assert len(workers) == 2
        os.kill(chance.choice(workers), signal.SIGKILL)
        is_told = child.wait() == 5 and "a process that loads data was ended from outside" in child.error()
        until = time.monotonic() + 3
        while (left := others_of(child.pid)) and time.monotonic() < until:
            time.sleep(0.05)
        good += is_told and not left and goes_on(run, untrained)

    score(f"a loader worker killed: {good} of {count} ended in one line and exit code 5, and went on")
    assert good == count


@pytest.fixture
def torchrun(untrained: Path, tmp_path: Path) -> Iterator[Callable[[], subprocess.Popen[bytes]]]:
    """Start the real launcher with two processes that train, beside one that keeps a core busy."""
    path = os.pathsep.join(str(Path(part).resolve()) for part in sys.path)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": path}
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = [*launcher, "-m", "latentart", "train", "ldm", "--device", "cpu", *ENDLESS]
    started = [subprocess.Popen([sys.executable, "-c", "while True: pass"])]

    def launch() -> subprocess.Popen[bytes]:
        with (tmp_path / "err").open("wb") as said:
            started.append(subprocess.Popen(command, cwd=untrained, env=environment, stderr=said))
        return started[-1]

    yield launch
    for process in started:
        process.terminate()  # a launcher takes its processes with it
        process.wait()


def rank_of(launcher: int, rank: int) -> int:
    """Return the process that a launcher has started as one of the ranks."""
    for child in Path(f"/proc/{launcher}/task/{launcher}/children").read_text().split():
        if f"RANK={rank}".encode() in Path(f"/proc/{child}/environ").read_bytes().split(b"\0"):
            return int(child)
    raise AssertionError(f"rank {rank} does not run")


def lines_of(said: Path) -> list[str]:
    """Return the lines that name an error or a stop, as the processes write them."""
    return [line for line in said.read_text().splitlines() if line.startswith(("error: ", "stopped by a signal"))]


@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize(
    "count", [pytest.param(1, marks=pytest.mark.slow, id="few"), pytest.param(10, marks=pytest.mark.faults, id="all")]
)
def test_a_killed_rank_is_named_in_one_line_and_the_run_goes_on(
    run: Callable[..., Any],
    torchrun: Callable[[], subprocess.Popen[bytes]],
    untrained: Path,
    tmp_path: Path,
    score: Callable[[str], None],
    rank: int,
    count: int,
) -> None:
    """Before `torchrun` takes the other away; one process alone goes on from what is saved."""
    told = went_on = 0
    for _ in range(count):
        before, launcher = steps_logged(untrained), torchrun()
        while steps_logged(untrained) < before + 2:
            assert launcher.poll() is None, (tmp_path / "err").read_text()
            time.sleep(0.02)
        os.kill(rank_of(launcher.pid, rank), signal.SIGKILL)
        assert launcher.wait() == 1
        lines = lines_of(tmp_path / "err")
        told += len(lines) == 1 and f"another process of this run has ended: rank {rank} of 2. " in lines[0]
        went_on += goes_on(run, untrained)

    score(f"rank {rank} of two killed under torchrun: {told} of {count} told in one line, {went_on} went on")
    assert (told, went_on) == (count, count)


@pytest.mark.slow
def test_torchrun_ends_as_its_processes_do(
    torchrun: Callable[[], subprocess.Popen[bytes]], untrained: Path, tmp_path: Path
) -> None:
    """SIGTERM to it is handed on, the step is saved, one line says so, the run is free."""
    launcher = torchrun()
    while steps_logged(untrained) < 2:
        assert launcher.poll() is None, (tmp_path / "err").read_text()
        time.sleep(0.02)
    launcher.terminate()
    launcher.wait()

    found = find_checkpoint(untrained / "runs/ldm")
    assert found is not None
    line = f"stopped by a signal; step {found.step} is saved in runs/ldm. Run the same command again to go on."
    assert lines_of(tmp_path / "err") == [line]
    assert not (untrained / "runs/ldm/lock").exists()
