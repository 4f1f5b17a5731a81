"""The port, and the addresses that are shown."""

from __future__ import annotations

import os
import signal
import threading
import urllib.request
from collections.abc import Callable
from pathlib import Path
from queue import Queue
from typing import Any

import pytest
import uvicorn
from starlette.applications import Starlette

from latentart.errors import ResourceError
from latentart.process.signals import ToldToEnd
from latentart.studio import server
from latentart.studio.server import bind
from latentart.studio.studio import address_of, find_place, is_loopback, studio
from latentart.studio.uploads import Uploads


def test_a_busy_port_is_one_line_that_names_a_free_one(run: Callable[..., Any], workspace: Path) -> None:
    """With exit code 5; the one that is named can be bound."""
    with bind("127.0.0.1", 0) as busy:
        port = busy.getsockname()[1]
        error = run(workspace, "studio", "--port", port).error(5)

    assert error.startswith(f"error: port {port} is busy. Port ")
    bind("127.0.0.1", int(error.rpartition("--port ")[2].rstrip("."))).close()


@pytest.mark.parametrize("host", ["192.0.2.1", "no.such.host.invalid"])
def test_a_host_that_is_not_here_is_refused(host: str) -> None:
    """In one line."""
    with pytest.raises(ResourceError, match="no address of this machine"):
        bind(host, 0)


def test_only_this_machine_needs_no_token() -> None:
    """Whatever its name."""
    assert [is_loopback(host) for host in ("127.0.0.1", "::1", "localhost", "0.0.0.0", "::", "box.local")] == (
        [True] * 3 + [False] * 3
    )
    assert address_of("127.0.0.1", 7878, None) == "http://127.0.0.1:7878/"
    assert address_of("::1", 7878, None) == "http://[::1]:7878/"
    assert address_of("box.local", 7878, "abc") == "http://box.local:7878/?token=abc"
    assert "0.0.0.0" not in address_of("0.0.0.0", 7878, "abc")


def test_there_is_no_studio_of_nothing(run: Callable[..., Any], tmp_path: Path) -> None:
    """A folder without a workspace is refused before a port is taken."""
    assert "latentart.json" in run(tmp_path, "studio").error(3)


def test_an_end_without_a_word_leaves_no_upload_behind(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Even where a thread that hangs is not waited for."""
    left: Queue[int] = Queue()
    monkeypatch.setattr("os._exit", left.put)
    monkeypatch.setattr(server, "PATIENCE", 0.01)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    uploads = Uploads()
    assert len(list(tmp_path.iterdir())) == 1
    server.PromptServer(uvicorn.Config(Starlette()), uploads.close).handle_exit(signal.SIGINT, None)

    assert left.get(timeout=30) == 130
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_leaves_no_upload_behind(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, cleaned: Path, number: signal.Signals
) -> None:
    """Nor does a closed terminal."""
    monkeypatch.setattr(server, "PATIENCE", 3600)
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))

    def end(address: str) -> None:
        with urllib.request.urlopen(address) as answer:
            assert answer.status == 200
        assert len(list((tmp_path / "temporary").iterdir())) == 1
        os.kill(os.getpid(), number)

    def greet(address: str) -> None:
        threading.Thread(target=end, args=[address]).start()

    with pytest.raises(ToldToEnd):
        studio(find_place(cleaned, None), "127.0.0.1", 0, "cpu", greet)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    assert list((tmp_path / "temporary").iterdir()) == []
