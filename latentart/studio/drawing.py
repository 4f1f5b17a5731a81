"""The routes of the tab Draw: what is drawn, kept, walked and sent."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from starlette.requests import Request
from starlette.responses import FileResponse, PlainTextResponse, Response
from starlette.routing import Route

from latentart.errors import DataError, UsageError
from latentart.studio.answers import Json, aside, ask, read_body, stream
from latentart.studio.asked import Asked, AskedWalk, read_asked
from latentart.studio.kept import Gallery
from latentart.studio.painter import Event, Job, Painter
from latentart.studio.uploads import MOST_BYTES, Uploads

if TYPE_CHECKING:
    from PIL import Image

    from latentart.studio.easel import Easel


SENT_AT_ONCE = 4  # uploads that are held and decoded; others wait, without a thread


@dataclass
class Desk:
    """Where drawing happens: the easel is made on first use, as PyTorch takes seconds to load."""

    make_easel: Callable[[], Easel]
    samples: Path
    painter: Painter = field(default_factory=Painter)
    uploads: Uploads = field(default_factory=Uploads)
    _easel: Easel | None = None
    _numbers: itertools.count[int] = field(default_factory=itertools.count)
    _sending: asyncio.Semaphore = field(default_factory=partial(asyncio.Semaphore, SENT_AT_ONCE))

    def __post_init__(self) -> None:
        """Open the folder of kept pictures."""
        self.gallery = Gallery(self.samples)

    def routes(self) -> list[Route]:
        """Return the addresses of the tab."""
        return [
            Route("/api/model", self.show_model),
            Route("/api/draw", self.draw, methods=["POST"]),
            Route("/api/keep", self.keep, methods=["POST"]),
            Route("/api/walk", self.walk, methods=["POST"]),
            Route("/api/uploads", self.upload, methods=["POST"]),
            Route("/api/uploads/{id}", self.show_upload),
            Route("/api/kept", self.list_kept),
            Route("/api/kept/{id}", self.show_kept),
            Route("/api/kept/{id}/origin", self.take_up, methods=["POST"]),
        ]

    def easel(self) -> Easel:
        """Return the easel; on the painter's thread."""
        if self._easel is None:
            self._easel = self.make_easel()
        return self._easel

    def warm_up(self) -> None:
        """Load the model before it is asked for; what is wrong with it is said when it is."""

        def work(_job: Job) -> None:
            self.easel().studio()

        self.painter.ask("warming", work, lambda _: None)

    async def show_model(self, _request: Request) -> Response:
        """Say what the model can draw, or in a sentence why there is none."""
        return Json(await ask(self.painter, self._once("model"), lambda job: self.easel().describe(job)))

    async def draw(self, request: Request) -> Response:
        """Draw; the same window's former wish of the same kind is given up."""
        asked = read_asked(Asked, await read_body(request))
        paths = self.uploads.paths
        return stream(self.painter, f"draw {asked.window}", lambda job: self.easel().draw(asked, paths, job))

    async def keep(self, request: Request) -> Response:
        """Write a picture into the samples."""
        asked = read_asked(Asked, await read_body(request))
        paths = self.uploads.paths

        def work(job: Job) -> None:
            job.tell(self._kept_at(self.easel().keep(asked, paths, job)))

        return Json(await ask(self.painter, self._once("keep"), work))

    async def drawn(self, request: Request) -> Image.Image:
        """Return the picture that a request asks for."""
        asked = read_asked(Asked, await read_body(request))
        paths = self.uploads.paths
        made: list[Image.Image] = []

        def work(job: Job) -> None:
            made.append(self.easel().picture(asked, paths, job))
            job.tell({"done": 1})

        await ask(self.painter, self._once("near"), work)
        return made[0]

    async def walk(self, request: Request) -> Response:
        """Write a movie of the way between two kept pictures into the samples."""
        asked = read_asked(AskedWalk, await read_body(request))

        def work(job: Job) -> None:
            start, end = (self.gallery.find(name).path for name in (asked.start, asked.end))
            path = self.easel().walk(start, end, asked.frames, job)
            job.tell({"kept": self._kept_at(path)})

        return stream(self.painter, f"walk {asked.window}", work)

    async def upload(self, request: Request) -> Response:
        """Take a picture to begin from, or a mask."""
        async with self._sending:
            content = await read_body(request, MOST_BYTES)
            return Json(await aside(lambda: self._take(content)))

    async def show_upload(self, request: Request) -> Response:
        """Send a picture that was sent, as it was cleaned."""
        path = self.uploads.paths.get(request.path_params["id"])
        if path is None:
            return PlainTextResponse("That picture is no longer here.", 404)
        return FileResponse(path, media_type="image/png")

    async def take_up(self, request: Request) -> Response:
        """Take what a kept picture was begun from, and its mask, as if they were sent again."""
        async with self._sending:
            return Json(await aside(partial(self._take_up, request.path_params["id"])))

    async def list_kept(self, request: Request) -> Response:
        """List some kept pictures, newest first, and where to go on."""
        found, mark = await aside(partial(self.gallery.page, request.query_params.get("after", "")))
        return Json({"kept": [one.to_json(self.samples) for one in found], "next": mark})

    async def show_kept(self, request: Request) -> Response:
        """Send a kept picture's file."""
        found = await aside(partial(self.gallery.find, request.path_params["id"]))
        headers = {"cache-control": "private, max-age=31536000, immutable"}
        return FileResponse(found.path, media_type=found.media_type, headers=headers)

    def close(self) -> None:
        """End the painter's thread and delete what was sent."""
        self.painter.close()
        self.uploads.close()

    def _take_up(self, name: str) -> dict[str, Any]:
        from latentart.sampling.settings import read_origin

        origin = read_origin(self.gallery.find(name).path)
        if origin is None:
            raise UsageError("That picture was begun from no other.")
        for path in filter(None, (origin.picture, origin.mask)):
            if path.stat().st_size > MOST_BYTES:
                raise DataError(f"{path.name} is too large to begin from here.", "`sample --from` repeats it.")
        mask = None if origin.mask is None else self._take(origin.mask.read_bytes())
        return {"picture": self._take(origin.picture.read_bytes()), "mask": mask}

    def _take(self, content: bytes) -> dict[str, Any]:
        name, width, height = self.uploads.take(content)
        return {"id": name, "width": width, "height": height}

    def _kept_at(self, path: Path) -> Event:
        return self.gallery.at(path).to_json(self.samples)

    def _once(self, what: str) -> str:
        """Return an owner whose wish nobody replaces."""
        return f"{what} {next(self._numbers)}"
