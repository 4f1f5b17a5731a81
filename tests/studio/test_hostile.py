"""A visitor who means harm, over real sockets, and a model whose names do."""

from __future__ import annotations

import io
import json
import socket
import struct
import threading
import time
import urllib.error
import urllib.request
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from PIL import Image

from latentart.model.folder import load_model, save_model
from latentart.process.devices import Placement, choose_device
from latentart.studio import answers
from latentart.studio.app import build_app
from latentart.studio.drawing import Desk
from latentart.studio.server import MOST_CONNECTIONS, bind, configure
from latentart.studio.studio import find_place, make_easel, other_routes

PATIENCE = 60
NAMES = ["<img src=x onerror=alert(1)>" + "x" * 900, "\u202eevil\x1b[31m\n'; rm -rf \"", "Caf\udce9/../.."]
ASKED: dict[str, Any] = {
    "window": "w",
    "styles": {"Cubism": 1},
    "seeds": [1],
    "steps": 3,
    "sampler": "ddim",
    "guidance": 1.5,
    "eta": 0.0,
}


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
def served(workspace: Path) -> Iterator[Served]:
    """Serve a trained workspace."""
    one = Served(workspace)
    yield one
    one.close()


def draw(served: Served, **change: Any) -> list[dict[str, Any]]:
    """Return the events of a drawing."""
    status, told = served.ask("/api/draw", json.dumps(ASKED | change).encode())
    assert status == 200, told
    return [json.loads(part.removeprefix("data: ")) for part in told.decode().strip().split("\n\n")]


def test_who_reads_or_writes_slowly_holds_up_nobody(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """One who never reads what is drawn, one who never ends what he sends, hundreds who say nothing."""
    monkeypatch.setattr(answers, "PATIENCE", 0.5)
    body = json.dumps(ASKED | {"window": "deaf", "frames": 2, "seeds": list(range(16))}).encode()
    head = ("POST /api/draw HTTP/1.1", f"Host: {served.host}", f"Content-Length: {len(body)}")
    with served.connect(*head, body=body), served.connect(*head, body=body[:-1]) as slow:
        assert "command" in draw(served)[-1]
        assert b"took too long" in slow.recv(10_000)
    silent = [served.connect() for _ in range(MOST_CONNECTIONS)]
    time.sleep(0.2)
    assert served.ask("/api/place")[0] == 503
    for one in silent:
        one.close()
    time.sleep(0.2)
    assert served.ask("/api/place")[0] == 200


@pytest.mark.parametrize(
    ("lines", "status"),
    [
        (("GET /api/place HTTP/1.1", "Host: {here}", "Host: evil.example"), 400),
        (("GET http://evil.example/api/place HTTP/1.1", "Host: evil.example"), 421),
        (("GET /api/place HTTP/1.1",), 400),
        (("GET /page/../../studio.py HTTP/1.1", "Host: {here}"), 404),
        (("GET /page/%2e%2e%2fstudio.py HTTP/1.1", "Host: {here}"), 404),
        (("GET /api/kept/..%2f..%2flatentart.json HTTP/1.1", "Host: {here}"), 404),
        (("GET /api/watch/%00/1 HTTP/1.1", "Host: {here}"), 404),
        (("GET /api/pictures/160/x/9999999999999999999999/0 HTTP/1.1", "Host: {here}"), 404),
        (("TRACE /api/place HTTP/1.1", "Host: {here}"), 405),
        (("\x16\x03\x01 hello",), 400),
    ],
)
def test_what_no_browser_sends_is_refused(served: Served, lines: tuple[str, ...], status: int) -> None:
    """And the studio goes on."""
    with served.connect(*(line.format(here=served.host) for line in lines)) as one:
        assert f" {status} ".encode() in one.recv(10_000).split(b"\r\n")[0]
    assert served.ask("/api/place")[0] == 200


def bomb(side: int) -> bytes:
    """Return a PNG of a few bytes that says it is very large."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    head = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(bytes(99))) + chunk(b"IEND", b"")


def test_what_is_sent_as_a_picture_harms_nobody(served: Served) -> None:
    """A bomb, a larger one, a script that draws."""
    svg = b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>'
    for content in (bomb(60_000), bomb(2**31 - 1), svg):
        status, told = served.ask("/api/uploads", content)
        assert status == 400, told
        assert b"no picture that can be used" in told
    assert served.ask("/api/place")[0] == 200


def test_names_of_any_letters_are_drawn_and_kept(workspace: Path) -> None:
    """A thousand letters, a direction turned round, letters that are no UTF-8: a file of ours has none of them."""
    folder = workspace / "runs/ldm/model"
    model = load_model(folder, Placement(choose_device("cpu"), "fp32"))
    assert model.denoiser is not None
    networks = {"autoencoder": model.autoencoder, "denoiser": model.denoiser}
    save_model(folder, {**model.about, "style_names": NAMES}, networks)
    served = Served(workspace)
    try:
        assert json.loads(served.ask("/api/model")[1])["styles"] == NAMES
        for name in NAMES:
            told = draw(served, styles={name: 1})[-1]
            assert "command" in told, told
            status, kept = served.ask("/api/keep", json.dumps(ASKED | {"styles": {name: 1}}).encode())
            assert status == 200, kept
        kept_ones = json.loads(served.ask("/api/kept")[1])["kept"]
        assert {one["about"].get("style") for one in kept_ones} >= set(NAMES)
        content = served.ask(f"/api/kept/{kept_ones[0]['id']}")[1]
        assert Image.open(io.BytesIO(content)).size == (32, 32)
    finally:
        served.close()
    assert all(path.is_relative_to(workspace / "samples") for path in (workspace / "samples").rglob("*"))


def test_a_model_that_changes_under_way_is_drawn_with(served: Served) -> None:
    """Each picture is of one model, says which, and is kept with that one's hashes."""
    before = draw(served)[-1]
    folder = served.desk.samples.parent / "runs/ldm/model"
    model = load_model(folder, Placement(choose_device("cpu"), "fp32"))
    assert model.denoiser is not None
    next(model.denoiser.parameters()).data.add_(0.1)
    save_model(folder, model.about, {"autoencoder": model.autoencoder, "denoiser": model.denoiser})
    after = draw(served)[-1]
    kept = json.loads(served.ask("/api/keep", json.dumps(ASKED).encode())[1])

    assert before["version"] != after["version"]
    assert kept["about"]["denoiser"].startswith(after["version"])
