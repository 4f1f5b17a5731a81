"""Worker processes under limits of time and memory: a job that breaks its worker is lost, and the run goes on.

The limits are the kernel's own (setitimer, setrlimit), so they hold inside a decoder that never comes back to Python.
"""

from __future__ import annotations

import multiprocessing
import signal
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Generic, TypeVar

from latentart.errors import ResourceError
from latentart.process.scripts import missing_guard

Job = TypeVar("Job")
Result = TypeVar("Result")

AHEAD = 3  # jobs a worker holds: enough to hide the hand-over, few enough to stop soon and to end together
TRIES = 2  # a worker may have been killed for another one's hunger
READY = "ready"


@dataclass(frozen=True, slots=True)
class Lost:
    """What a job leaves that took its worker down: ``signal_number`` is 0 where it ended without a signal."""

    signal_number: int

    @property
    def is_late(self) -> bool:
        """Tell whether the worker was ended for its limit of time."""
        return self.signal_number == _late_signal()


@dataclass
class _Worker(Generic[Job]):
    process: BaseProcess
    pipe: Connection
    is_ready: bool = False
    jobs: deque[tuple[int, Job]] = field(default_factory=deque)  # (tries before, job), the first is at work


def map_guarded(
    work: Callable[[Job], Result], jobs: Iterable[Job], *, workers: int, time_limit: float, memory_limit: int
) -> Iterator[tuple[Job, Result | Lost]]:
    """Yield ``(job, work(job))`` as they get done; memory does not grow with the number of jobs.

    Each job may take ``time_limit`` seconds of processor time, so that neither a slow disk nor a busy machine counts,
    and its worker ``memory_limit`` bytes beyond what it started with. What ``work`` raises is raised here.

    Raises:
        ResourceError: worker processes cannot be started.
    """
    source = iter(jobs)
    returned: deque[tuple[int, Job]] = deque()
    staff: list[_Worker[Job]] = []

    def next_job() -> tuple[int, Job] | None:
        if returned:
            return returned.popleft()
        return next(((0, job) for job in source), None)

    def hire(first: tuple[int, Job]) -> None:
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        process = context.Process(target=_serve, args=(theirs, work, time_limit, memory_limit), daemon=True)
        process.start()
        theirs.close()
        staff.append(_Worker(process, ours))
        _hand_out(staff[-1], first)

    def fill(worker: _Worker[Job]) -> None:
        while len(worker.jobs) < AHEAD and (item := next_job()):
            _hand_out(worker, item)

    try:
        while len(staff) < max(1, workers) and (item := next_job()):
            hire(item)
        for worker in staff:
            fill(worker)
        while busy := [worker for worker in staff if worker.jobs]:
            for pipe in wait([worker.pipe for worker in busy]):
                worker = next(worker for worker in busy if worker.pipe is pipe)
                try:
                    answer = worker.pipe.recv()
                except (EOFError, OSError):
                    staff.remove(worker)
                    yield from _bury(worker, returned)
                    if item := next_job():
                        hire(item)
                        fill(staff[-1])
                    continue
                if not worker.is_ready:
                    worker.is_ready = True
                    continue
                if isinstance(answer, Exception):
                    raise answer
                _, job = worker.jobs.popleft()
                fill(worker)
                yield job, answer
    finally:
        for worker in staff:
            worker.pipe.close()
            worker.process.terminate()
        for worker in staff:
            worker.process.join()


def _hand_out(worker: _Worker[Job], item: tuple[int, Job]) -> None:
    worker.jobs.append(item)
    with suppress(OSError):  # it is dead, which its pipe will tell
        worker.pipe.send(item[1])


def _bury(worker: _Worker[Job], returned: deque[tuple[int, Job]]) -> Iterator[tuple[Job, Lost]]:
    """Give a dead worker's jobs back, and yield the one it died of if that is not to be tried again."""
    worker.pipe.close()
    worker.process.join()
    if not worker.is_ready:
        raise ResourceError(
            f"A worker process ended before its first job (exit code {worker.process.exitcode}).",
            missing_guard() or "Lower the number of workers.",
        )
    lost = Lost(max(0, -(worker.process.exitcode or 0)))
    tries, job = worker.jobs.popleft()
    returned.extendleft(reversed(worker.jobs))
    if lost.is_late or tries + 1 >= TRIES:
        yield job, lost
    else:
        returned.appendleft((tries + 1, job))


def _serve(pipe: Connection, work: Callable[[Job], Result], time_limit: float, memory_limit: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to answer
    _limit_memory(memory_limit)
    with suppress(EOFError, OSError):  # the parent is done, or dead
        pipe.send(READY)
        while True:
            job = pipe.recv()
            _limit_time(time_limit)
            try:
                answer: Result | Exception = work(job)
            except Exception as error:  # the parent raises it
                answer = error
            _limit_time(0)
            pipe.send(answer)


def _limit_time(seconds: float) -> None:
    if hasattr(signal, "setitimer"):
        signal.setitimer(signal.ITIMER_PROF, seconds)


def _late_signal() -> int:
    return getattr(signal, "SIGPROF", -1)


def _limit_memory(num_bytes: int) -> None:
    with suppress(ImportError, OSError, ValueError):  # only Linux tells and holds it
        import resource

        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        _, hard = resource.getrlimit(resource.RLIMIT_AS)
        resource.setrlimit(resource.RLIMIT_AS, (used + num_bytes, hard))
