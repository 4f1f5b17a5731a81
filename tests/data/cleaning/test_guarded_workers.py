"""Jobs are done in processes that may die or take too long without taking the run with them."""

from __future__ import annotations

import builtins
import multiprocessing
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from latentart.data.cleaning.guarded_workers import Lost, map_guarded
from latentart.errors import ResourceError

EVALUATE: Callable[[str], Any] = builtins.eval  # a job is an expression: worker processes can import this function
MEBIBYTE = 1024 * 1024


def outcomes(jobs: Sequence[str], *, workers: int = 2, time_limit: float = 20.0) -> dict[str, Any]:
    """Do the jobs and return what became of each."""
    done = map_guarded(EVALUATE, jobs, workers=workers, time_limit=time_limit, memory_limit=256 * MEBIBYTE)
    return dict(done)


@pytest.mark.parametrize("workers", [1, 3])
def test_every_job_is_done_once(workers: int) -> None:
    """However many workers there are, each job has its own result."""
    jobs = [f"{i} * {i}" for i in range(50)]

    assert outcomes(jobs, workers=workers) == {f"{i} * {i}": i * i for i in range(50)}
    assert multiprocessing.active_children() == []


@pytest.mark.parametrize(
    ("deadly", "number"),
    [
        ("__import__('os').abort()", signal.SIGABRT),
        ("__import__('os').kill(__import__('os').getpid(), 9)", signal.SIGKILL),
        ("__import__('os')._exit(3)", 0),
    ],
)
def test_a_job_that_kills_its_worker_is_lost_alone(deadly: str, number: int) -> None:
    """The other jobs of the dead worker are done by its successor."""
    jobs = ["1", "2", deadly, *map(str, range(3, 30))]

    done = outcomes(jobs)

    assert done.pop(deadly) == Lost(number)
    assert done == {str(i): i for i in range(1, 30)}


def test_a_job_that_never_ends_is_late() -> None:
    """Also inside a computation that never comes back to the interpreter."""
    endless = "9 ** 9 ** 9"

    done = outcomes(["1", endless, "2"], workers=1, time_limit=0.5)

    assert done[endless].is_late
    assert (done["1"], done["2"]) == (1, 2)


def test_sleep_is_not_late() -> None:
    """What waits for a disk or for another process uses none of its time."""
    assert outcomes(["__import__('time').sleep(0.4) or 1"], time_limit=0.2).popitem()[1] == 1


def test_a_job_cannot_take_all_memory() -> None:
    """Beyond its limit a worker's allocation fails, and the error is the caller's to answer."""
    with pytest.raises(MemoryError):
        outcomes([f"len(bytearray({512 * MEBIBYTE}))"])

    assert outcomes([f"len(bytearray({128 * MEBIBYTE}))"]).popitem()[1] == 128 * MEBIBYTE


def test_what_a_job_raises_is_raised() -> None:
    """An error in the work is not a death."""
    with pytest.raises(ZeroDivisionError):
        outcomes(["1 / 0"])

    assert multiprocessing.active_children() == []


def test_an_abandoned_run_leaves_no_worker() -> None:
    """Whoever stops listening stops the workers."""
    done = map_guarded(EVALUATE, ["1"] * 100, workers=2, time_limit=9, memory_limit=256 * MEBIBYTE)
    next(done)

    done.close()  # type: ignore[attr-defined]

    assert multiprocessing.active_children() == []


class DeadOnArrival:
    """Work that ends the process which unpacks it, with an exit code that nothing else has."""

    def __reduce__(self) -> tuple[Any, ...]:
        return EVALUATE, ("__import__('os')._exit(77)",)

    def __call__(self, job: str) -> str:
        """Do the job."""
        return job


def test_workers_that_cannot_start_are_a_resource_error() -> None:
    """A worker that dies before it took a job is told, not hired again for ever."""
    with pytest.raises(ResourceError, match=r"before its first job \(exit code 77\)\. Lower the num"):
        list(map_guarded(DeadOnArrival(), ["1"], workers=1, time_limit=9, memory_limit=MEBIBYTE))


UNGUARDED = """
from latentart.data.cleaning.guarded_workers import map_guarded
from latentart.errors import ResourceError
try:
    list(map_guarded(str, [1], workers=1, time_limit=9, memory_limit=2**28))
except ResourceError as error:
    print(error.hint)
"""


def test_a_script_without_its_guard_is_told_so(tmp_path: Path) -> None:
    """Its processes run it anew and end as they would start others: fewer of them would not help."""
    (tmp_path / "script.py").write_text(UNGUARDED)

    done = subprocess.run([sys.executable, tmp_path / "script.py"], capture_output=True, text=True, check=False)

    assert done.stdout.startswith('Put what the script does below `if __name__ == "__main__":`'), done.stderr
    assert (done.returncode, done.stdout.count("\n")) == (0, 1)
