"""A call in a process of its own, so that its peak of memory is its own, and it takes everything with it as it ends."""

from __future__ import annotations

import logging
import multiprocessing
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.context import BaseContext
from typing import TypeVar

from latentart.errors import ResourceError
from latentart.process.memory import explain_out_of_memory
from latentart.process.scripts import missing_guard

Argument = TypeVar("Argument")
Result = TypeVar("Result")


def call_apart(function: Callable[[Argument], Result], argument: Argument) -> Result:
    """Return what a function of a module returns in a new process, or raise what it raises there.

    Raises:
        ResourceError: memory is full there, also where the system ended the process; or a script lacks its guard.
        RuntimeError: the process ended in another way.
    """
    others = multiprocessing.active_children()
    try:
        with ProcessPoolExecutor(1, mp_context=_context(), initializer=_begin) as pool:
            answer = pool.submit(function, argument)
            (worker,) = (child for child in multiprocessing.active_children() if child not in others)
            try:
                return answer.result()
            except (KeyboardInterrupt, SystemExit):
                worker.kill()  # it works in a folder that goes, and would end its step at first
                raise
    except BrokenProcessPool:
        if worker.exitcode == -signal.SIGKILL:
            raise ResourceError("the system ended the trial, as memory was out.") from None
        if guard := missing_guard():
            raise ResourceError("the trial's process cannot begin.", guard) from None
        msg = f"the trial's process ended with {worker.exitcode}"
        raise RuntimeError(msg) from None
    except (RuntimeError, MemoryError) as error:
        explained = explain_out_of_memory(error)
        if explained is None:
            raise
        raise explained from None


def _context() -> BaseContext:
    """Return a way to start processes that is safe beside torch; where there is one, they are born with it loaded."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["latentart.planning.trial"])
    return context


def _begin() -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # who presses Ctrl-C sees the parent's one line
    logging.disable(logging.CRITICAL)


def time_start() -> float:
    """Return the seconds that a command needs before it begins: Python, torch, ours."""
    began = time.monotonic()
    subprocess.run([sys.executable, "-c", "import latentart.training.train_ldm"], check=True)
    return time.monotonic() - began
