"""A polite stop: a signal sets a flag, the loop finishes its step, saves and ends."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import Self

_STOPPING = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]


class StopSignal:
    """While entered, remembers the first stopping signal in ``received``; a second one acts as it would without us.

    A signal that the process ignores stays ignored: under nohup a closed terminal does not end a run.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self._former: dict[int, object] = {}

    def __enter__(self) -> Self:
        """Take over the signals; only the main thread may."""
        if threading.current_thread() is threading.main_thread():
            heeded = [number for number in _STOPPING if signal.getsignal(number) is not signal.SIG_IGN]
            self._former = {number: signal.signal(number, self._remember) for number in heeded}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Give the signals back."""
        self._restore()

    def _remember(self, number: int, frame: FrameType | None) -> None:
        del frame
        self.received = number
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._former.items():
            signal.signal(number, handler)  # type: ignore[arg-type]
        self._former = {}
