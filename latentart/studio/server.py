"""The server: a port that is free or named as busy, and an end that comes at once."""

from __future__ import annotations

import errno
import logging
import os
import signal
import socket
import threading
from collections.abc import Callable
from types import FrameType

import uvicorn
from starlette.applications import Starlette

from latentart.errors import ResourceError

TRIED = 100  # ports after a busy one
MOST_CONNECTIONS = 256  # a browser opens six
PATIENCE = 2.0  # seconds that the end may take


def bind(host: str, port: int) -> socket.socket:
    """Return a socket that listens at a port; 0 takes any free one.

    Raises:
        ResourceError: the port is busy or not ours to use, or the host is no address of this machine.
    """
    try:
        return _bind(host, port)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            free = next((one for one in range(port + 1, min(65536, port + TRIED)) if _is_free(host, one)), 0)
            raise ResourceError(f"port {port} is busy.", f"Port {free} is free: add --port {free}.") from None
        if error.errno in (errno.EACCES, errno.EPERM):
            raise ResourceError(f"port {port} is not yours to use.", "Ports from 1024 on are: add --port.") from None
        msg = f"{host} is no address of this machine."
        raise ResourceError(msg, "Leave out --host, or give 0.0.0.0 for all of them.") from None


def _bind(host: str, port: int) -> socket.socket:
    family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    listening = socket.socket(family, kind, protocol)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        listening.listen(128)
    except OSError:
        listening.close()
        raise
    return listening


def _is_free(host: str, port: int) -> bool:
    try:
        _bind(host, port).close()
    except OSError:
        return False
    return True


class PromptServer(uvicorn.Server):
    """A server that a signal ends at once: nobody's picture or stream is waited for, nor a thread that hangs."""

    def __init__(self, config: uvicorn.Config, tidy: Callable[[], None]) -> None:
        super().__init__(config)
        self._tidy = tidy

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Stop serving; leave without a word where that takes too long."""
        self.force_exit = True
        super().handle_exit(sig, frame)
        last_resort = threading.Timer(PATIENCE, self._leave, [128 + sig])
        last_resort.daemon = True
        last_resort.start()

    def _leave(self, code: int) -> None:
        try:
            self._tidy()
        finally:
            os._exit(code)


def configure(app: Starlette) -> uvicorn.Config:
    """Return how the application is served."""
    return uvicorn.Config(
        app,
        log_config=None,
        log_level="critical",
        lifespan="off",
        ws="none",
        timeout_graceful_shutdown=0,
        limit_concurrency=MOST_CONNECTIONS,
    )


def serve(app: Starlette, listening: socket.socket, tidy: Callable[[], None]) -> None:
    """Serve until a signal comes, which ends it at once and is then handed on.

    ``tidy`` is called where the end takes so long that the process leaves without a word.
    """
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)  # what is cut off at the end needs no words
    server = PromptServer(configure(app), tidy)
    closed = getattr(signal, "SIGHUP", None)
    if closed is not None and signal.getsignal(closed) is not signal.SIG_IGN:  # a closed terminal, unless under nohup
        signal.signal(closed, lambda _, frame: server.handle_exit(signal.SIGTERM, frame))
    server.run(sockets=[listening])
