"""A call in a process of its own, so that its peak of memory is its own, and it takes everything with it as it ends."""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any, TypeVar

from latentart.errors import LatentArtError, ResourceError

Argument = TypeVar("Argument")
Result = TypeVar("Result")


def call_apart(function: Callable[[Argument], Result], argument: Argument) -> Result:
    """Return what a function of a module returns in a new process.

    Raises:
        LatentArtError: as it was raised there; full memory is a ResourceError, also where the system ended the process.
        RuntimeError: any other error, with its traceback.
    """
    receiving, sending = multiprocessing.Pipe(duplex=False)
    process = _new_process(sending, function, argument)
    process.start()
    sending.close()
    try:
        receiving.recv()  # it has begun
        kind, value = receiving.recv()
    except EOFError:
        process.join()
        if process.exitcode == -signal.SIGKILL:
            raise ResourceError("the system ended the trial, as memory was out.") from None
        msg = f"the trial's process ended with {process.exitcode}"
        raise RuntimeError(msg) from None
    finally:
        receiving.close()
        if sys.exc_info()[0] is not None:
            process.terminate()
        process.join()
    if kind == "error":
        raise value
    return value


def _new_process(sending: Connection, function: Callable[[Any], Any], argument: Any) -> BaseProcess:
    """Return a process yet to be started; where the system can, one process loads torch and others are born with it."""
    arguments = (sending, function, argument)
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn").Process(target=_answer, args=arguments)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["latentart.planning.trial"])
    return context.Process(target=_answer, args=arguments)


def _answer(sending: Connection, function: Callable[[Any], Any], argument: Any) -> None:
    """Send what the function returns or raises; do nothing for one who has left before this process was up."""
    try:
        sending.send(("begun", None))
    except BrokenPipeError:
        return
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # who presses Ctrl-C sees the parent's one line
    logging.disable(logging.CRITICAL)
    try:
        answer = "result", function(argument)
    except LatentArtError as error:
        answer = "error", _as_sent(error)
    except Exception as error:
        from latentart.process.memory import explain_out_of_memory

        explained = explain_out_of_memory(error)
        answer = "error", _as_sent(explained) if explained else RuntimeError(traceback.format_exc())
    with contextlib.suppress(BrokenPipeError):
        sending.send(answer)
    sending.close()


def _as_sent(error: LatentArtError) -> LatentArtError:
    """Return an error that arrives with its message and its hint: pickle makes it anew from its arguments."""
    error.args = (error.message, error.hint)
    return error


def time_start() -> float:
    """Return the seconds that a command needs before it begins: Python, torch, ours."""
    began = time.monotonic()
    subprocess.run([sys.executable, "-c", "import latentart.training.train_ldm"], check=True)
    return time.monotonic() - began
