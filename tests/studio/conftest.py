"""A studio behind a real port, in a thread of the tests."""

from __future__ import annotations

import socket
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import uvicorn

from latentart.studio.app import build_app
from latentart.studio.drawing import Desk
from latentart.studio.server import bind, configure
from latentart.studio.studio import find_place, make_easel, other_routes

PATIENCE = 60


class Served:
    """A studio behind a port of this machine."""

    def __init__(self, folder: Path) -> None:
        place, self.listening = find_place(folder, None), bind("127.0.0.1", 0)
        self.host = f"127.0.0.1:{self.listening.getsockname()[1]}"
        self.desk = Desk(lambda: make_easel(place, "cpu"), place.samples)
        app = build_app(place.title, self.desk, other_routes(place, self.desk), frozenset([self.host]), None)
        self.server = uvicorn.Server(configure(app))
        self.thread = threading.Thread(target=self.server.run, args=[[self.listening]], daemon=True)
        self.thread.start()

    def close(self) -> None:
        """End it."""
        self.server.should_exit = self.server.force_exit = True
        self.thread.join(PATIENCE)
        self.desk.close()

    def ask(self, path: str, body: bytes | None = None) -> tuple[int, bytes]:
        """Return status and body of an answer."""
        try:
            with urllib.request.urlopen(f"http://{self.host}{path}", body, timeout=PATIENCE) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            return error.code, error.read()

    def connect(self, *lines: str, body: bytes = b"") -> socket.socket:
        """Open a connection and send the head of a request with what follows it."""
        sent = socket.create_connection(("127.0.0.1", int(self.host.rpartition(":")[2])), timeout=PATIENCE)
        sent.sendall("".join(f"{line}\r\n" for line in lines).encode("latin-1") + b"\r\n" * bool(lines) + body)
        return sent


@pytest.fixture
def serve() -> Iterator[Callable[[Path], Served]]:
    """Serve workspaces and model folders until the test ends."""
    opened: list[Served] = []

    def open_one(folder: Path) -> Served:
        opened.append(Served(folder))
        return opened[-1]

    yield open_one
    for one in opened:
        one.close()
