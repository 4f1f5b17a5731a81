"""A visitor who means harm, over real sockets, and a model whose names do."""

from __future__ import annotations

import io
import json
import struct
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from latentart.model.folder import load_model, save_model
from latentart.process.devices import Placement, choose_device
from latentart.studio import answers
from latentart.studio.server import MOST_CONNECTIONS

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


@pytest.fixture
def served(workspace: Path, serve: Callable[[Path], Any]) -> Any:
    """Serve a trained workspace."""
    return serve(workspace)


def rename_styles(folder: Path, names: list[str]) -> None:
    """Give a model's styles other names."""
    model = load_model(folder, Placement(choose_device("cpu"), "fp32"))
    assert model.denoiser is not None
    networks = {"autoencoder": model.autoencoder, "denoiser": model.denoiser}
    save_model(folder, {**model.about, "style_names": names}, networks)


def draw(served: Any, **change: Any) -> list[dict[str, Any]]:
    """Return the events of a drawing."""
    status, told = served.ask("/api/draw", json.dumps(ASKED | change).encode())
    assert status == 200, told
    return [json.loads(part.removeprefix("data: ")) for part in told.decode().strip().split("\n\n")]


def test_who_reads_or_writes_slowly_holds_up_nobody(served: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """One who never reads what is drawn, one who never ends what he sends, hundreds who say nothing."""
    monkeypatch.setattr(answers, "PATIENCE", 0.5)
    body = json.dumps(ASKED | {"window": "deaf", "frames": 2, "seeds": list(range(16))}).encode()
    head = ("POST /api/draw HTTP/1.1", f"Host: {served.host}", f"Content-Length: {len(body)}")
    with served.connect(*head, body=body), served.connect(*head, body=body[:-1]) as slow:
        assert "command" in draw(served)[-1]
        told = b""
        while b"took too long" not in told and (part := slow.recv(10_000)):  # it comes in several pieces
            told += part
        assert b"took too long" in told
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
def test_what_no_browser_sends_is_refused(served: Any, lines: tuple[str, ...], status: int) -> None:
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


def test_what_is_sent_as_a_picture_harms_nobody(served: Any) -> None:
    """A bomb, a larger one, a script that draws."""
    svg = b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>'
    for content in (bomb(60_000), bomb(2**31 - 1), svg):
        status, told = served.ask("/api/uploads", content)
        assert status == 400, told
        assert b"no picture that can be used" in told
    assert served.ask("/api/place")[0] == 200


def test_names_of_any_letters_are_drawn_and_kept(workspace: Path, serve: Callable[[Path], Any]) -> None:
    """A thousand letters, a direction turned round, letters that are no UTF-8: a file of ours has none of them."""
    rename_styles(workspace / "runs/ldm/model", NAMES)
    served = serve(workspace)
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
    assert all(path.is_relative_to(workspace / "samples") for path in (workspace / "samples").rglob("*"))


def test_a_model_that_changes_under_way_is_drawn_with(served: Any) -> None:
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
