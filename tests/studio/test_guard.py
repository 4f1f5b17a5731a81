"""Who may speak with the studio."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from latentart.studio.guard import Guard

HERE = "127.0.0.1:7878"
TOKEN = "a-long-token"


@contextmanager
def guarded(token: str | None = None, base: str = f"http://{HERE}") -> Iterator[TestClient]:
    """Open an application of two routes behind a guard."""
    routes = [Route(path, lambda _: PlainTextResponse("in"), methods=["GET", "POST"]) for path in ("/", "/api/draw")]
    hosts = frozenset([HERE, "localhost:7878"]) if token is None else None
    app = Starlette(routes=routes, middleware=[Middleware(Guard, hosts=hosts, token=token)])
    with TestClient(app, base_url=base, follow_redirects=False) as client:
        yield client


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1", "127.0.0.1:80", "localhost:7878.evil.example", ""])
def test_another_host_is_refused(host: str) -> None:
    """A name that was bent to this machine gets nothing (DNS rebinding)."""
    with guarded() as client:
        assert client.get("/", headers={"host": host}).status_code == 421
        assert client.get("/", headers={"host": "LOCALHOST:7878"}).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "http://evil.example"},
        {"origin": "null"},
        {"origin": "http://127.0.0.1:9999"},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
        {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"},
    ],
)
def test_another_page_is_refused(headers: dict[str, str]) -> None:
    """Whatever it sends, by whatever way."""
    with guarded() as client:
        assert client.post("/api/draw", headers=headers).status_code == 403
        assert client.get("/api/draw", headers=headers).status_code == 403


def test_our_own_page_is_let_in() -> None:
    """So is a link that leads to it."""
    own = {"origin": f"http://{HERE}", "sec-fetch-site": "same-origin"}
    link = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"}
    with guarded() as client:
        assert client.post("/api/draw", headers=own).text == "in"
        assert client.get("/", headers=link).text == "in"


def test_every_answer_forbids_what_is_not_ours() -> None:
    """No script but our files, no frame around the page, nothing from elsewhere; refusals too."""
    with guarded() as client:
        for answer in (client.get("/"), client.get("/nowhere"), client.get("/", headers={"host": "x"})):
            policy = answer.headers["content-security-policy"]
            assert "default-src 'none'" in policy
            assert "unsafe" not in policy
            assert answer.headers["x-content-type-options"] == "nosniff"
            assert answer.headers["cache-control"] == "no-store"


def test_a_token_opens_another_host() -> None:
    """Once it is in the address it is a cookie that no script reads; without it there is nothing."""
    with guarded(TOKEN, "http://192.0.2.7:7878") as client:
        assert [client.get(path).status_code for path in ("/", "/api/draw", "/?token=no", "/?token=")] == [401] * 4
        greeting = client.get(f"/?token={TOKEN}")
        assert (greeting.status_code, greeting.headers["location"]) == (303, "/")
        assert "HttpOnly" in greeting.headers["set-cookie"]
        assert client.get("/").text == client.post("/api/draw").text == "in"
        assert client.post("/api/draw", headers={"origin": "http://evil.example"}).status_code == 403


def test_a_wrong_cookie_is_refused() -> None:
    """Of any letters."""
    with guarded(TOKEN, "http://192.0.2.7:7878") as client:
        assert client.get("/", headers={"cookie": b"latentart-studio=\xe9"}).status_code == 401
