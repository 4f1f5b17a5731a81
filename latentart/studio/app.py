"""The studio as a web application: the page's files, the routes of its tabs, and the guard before them all."""

from __future__ import annotations

from pathlib import Path

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import FileResponse, PlainTextResponse, Response
from starlette.routing import Route

from latentart.errors import LatentArtError
from latentart.studio.answers import Json, explain
from latentart.studio.drawing import Desk
from latentart.studio.guard import Guard

PAGE = Path(__file__).with_name("page")
MEDIA_TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}


def build_app(
    title: str, desk: Desk, others: list[Route], hosts: frozenset[str] | None, token: str | None
) -> Starlette:
    """Return the application; ``others`` are the routes of the tabs beside Draw."""
    files = {path.name: path for path in PAGE.iterdir() if path.suffix in MEDIA_TYPES}

    async def show_file(request: Request) -> Response:
        """Send one of the page's own files."""
        path = files.get(request.path_params.get("name", "index.html"))
        if path is None:
            return PlainTextResponse("There is no such file.", 404)
        return FileResponse(path, media_type=MEDIA_TYPES[path.suffix], headers={"cache-control": "no-cache"})

    async def show_place(_request: Request) -> Response:
        """Say what the studio was opened on."""
        return Json({"title": title, "tabs": ["draw", *sorted({one.path.split("/")[2] for one in others})]})

    routes = [Route("/", show_file), Route("/page/{name}", show_file), Route("/api/place", show_place)]
    return Starlette(
        routes=[*routes, *desk.routes(), *others],
        middleware=[Middleware(Guard, hosts=hosts, token=token)],
        exception_handlers={LatentArtError: explain, Exception: explain},
    )
