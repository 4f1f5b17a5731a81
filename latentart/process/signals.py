"""Polite signals: a flag is set, the loop finishes its step, then saves and ends, or saves and goes on."""

from __future__ import annotations

import contextlib
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType, TracebackType
from typing import Self

_STOPPING = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
ENDING = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
_SAVING = [getattr(signal, name) for name in ("SIGUSR1",) if hasattr(signal, name)]  # not on Windows


class StopSignal:
    """While entered, remembers the first stopping signal in ``received``; a second one acts as it would without us.

    SIGUSR1 asks for a checkpoint: ``take_request`` tells. A stopping signal that the process ignores stays ignored:
    under nohup a closed terminal does not end a run. A second one within ``patience`` seconds counts as the first:
    `torchrun` hands on to its processes what a scheduler has sent to all of them.
    """

    def __init__(self, patience: float = 0.0) -> None:
        self.received: int | None = None
        self._patience, self._since = patience, 0.0
        self._is_asked = False
        self._former: dict[int, object] = {}

    def __enter__(self) -> Self:
        """Take over the signals; only the main thread may."""
        if threading.current_thread() is threading.main_thread():
            heeded = [number for number in _STOPPING if signal.getsignal(number) is not signal.SIG_IGN]
            self._former = {number: signal.signal(number, self._remember) for number in heeded}
            self._former |= {number: signal.signal(number, self._note_request) for number in _SAVING}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Give the signals back."""
        self._restore([*self._former])

    def take_request(self) -> bool:
        """Tell whether a checkpoint was asked for since the last time."""
        asked, self._is_asked = self._is_asked, False
        return asked

    def _remember(self, number: int, frame: FrameType | None) -> None:
        del frame
        is_first, now = self.received is None, time.monotonic()
        if is_first:
            self.received, self._since = number, now
        if not self._patience or now - self._since >= self._patience:
            self._restore([known for known in self._former if known not in _SAVING])
            if not is_first:
                signal.raise_signal(number)

    def _note_request(self, number: int, frame: FrameType | None) -> None:
        del number, frame
        self._is_asked = True

    def _restore(self, numbers: list[int]) -> None:
        for number in numbers:
            signal.signal(number, self._former.pop(number))  # type: ignore[arg-type]


class ToldToEnd(BaseException):
    """A signal asks one of many processes to end while no loop heeds it: also `torchrun`'s, once another has ended."""

    def __init__(self, number: int) -> None:
        super().__init__(f"signal {number}")
        self.number = number
        self.exit_code = 128 + number


@contextlib.contextmanager
def raising_when_told() -> Iterator[None]:
    """Raise ``ToldToEnd`` where a signal would end the process without a word."""
    is_main = threading.current_thread() is threading.main_thread()
    heeded = [number for number in ENDING if is_main and signal.getsignal(number) is signal.SIG_DFL]
    for number in heeded:
        signal.signal(number, _raise)
    try:
        yield
    finally:
        for number in heeded:
            if signal.getsignal(number) is _raise:
                signal.signal(number, signal.SIG_DFL)


def _raise(number: int, frame: FrameType | None) -> None:
    del frame
    raise ToldToEnd(number)


def end_as_it_is() -> None:
    """Let no signal but Ctrl-C cut this process's end short: `torchrun` sends one as soon as another is gone."""
    if threading.current_thread() is threading.main_thread():
        for number in ENDING:
            signal.signal(number, signal.SIG_IGN)


@contextlib.contextmanager
def noticing_at_once(notice: Callable[[int], None]) -> Iterator[None]:
    """Call ``notice`` in a thread for each signal that Python handles, also while a call holds the main thread up."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    reader, writer = socket.socketpair()
    writer.setblocking(False)
    former = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)

    def listen() -> None:
        with reader:
            while heard := reader.recv(1):
                notice(heard[0])

    threading.Thread(target=listen, name="signals", daemon=True).start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(former)
        writer.close()


@contextlib.contextmanager
def without_harm_from_requests() -> Iterator[None]:
    """Let SIGUSR1 pass while no loop runs that could save: its default is to end the process."""
    is_main = threading.current_thread() is threading.main_thread()
    former = {number: signal.signal(number, signal.SIG_IGN) for number in _SAVING if is_main}
    try:
        yield
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)


def leave_requests_to_main() -> None:
    """Block SIGUSR1 in this thread: processes that it starts inherit that, and one sent to all ends none of them."""
    if _SAVING and hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_BLOCK, _SAVING)
