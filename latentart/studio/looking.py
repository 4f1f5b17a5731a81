"""The tab Pictures: what clean-data kept, by style, what it flagged and dropped and why, and a map of the set."""

from __future__ import annotations

import asyncio
import io
import logging
from array import array
from bisect import bisect_left
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from latentart.data.cleaning.report import read_rows
from latentart.data.index import IndexEntry, index_fingerprint, iterate_index, read_entry, scan_index
from latentart.data.pictures.decode import decode_image
from latentart.data.pictures.formats import BadImage
from latentart.errors import DataError, LatentArtError
from latentart.studio.answers import Json, aside, shown

if TYPE_CHECKING:
    from PIL import Image

    from latentart.layout import Workspace
    from latentart.scoring.real_pictures import RealPictures

logger = logging.getLogger(__name__)

SIDES = (160, 960)  # of thumbnails and of one that is looked at, in pixels
MOST_LISTED = 5000  # flagged, dropped
MOST_MAPPED = 4000  # pictures
MOST_NEAR = 8
QUALITY = 82
FOR_EVER = {"cache-control": "private, max-age=31536000, immutable"}


@dataclass(frozen=True)
class CleanSet:
    """A clean set as the page asks for it: pictures by style and place; place 3 of style 1 is its fourth.

    Entries are read when they are asked for: what a million pictures need is where each line of the index begins.

    Attributes:
        version: changes with the set, so that a browser may keep what it has seen.
        rows: of each style, the places of its pictures in the index.
        starts: of the index's lines, in bytes. numbers: those of its lines, by source.
    """

    path: Path
    version: str
    styles: list[str]
    rows: list[array[int]]
    starts: array[int]
    numbers: dict[str, int]

    @classmethod
    def read(cls, path: Path) -> CleanSet:
        """Read an index; raises as ``read_index`` does."""
        of_style: dict[str, array[int]] = {}
        starts, numbers = array("Q"), {}
        for row, (start, style, source) in enumerate(scan_index(path)):
            of_style.setdefault(style, array("L")).append(row)
            starts.append(start)
            numbers[source] = row
        styles = sorted(of_style)
        return cls(path, version_of(path), styles, [of_style[style] for style in styles], starts, numbers)

    def find(self, style: int, place: int) -> IndexEntry | None:
        """Return a picture, None where there is none; raises as ``read_index`` does."""
        if style >= len(self.rows) or place >= len(self.rows[style]):
            return None
        return read_entry(self.path, self.starts[self.rows[style][place]])

    def place_of(self, row: int) -> list[int]:
        """Return style and place of a picture of the index."""
        for style, rows in enumerate(self.rows):
            place = bisect_left(rows, row)
            if place < len(rows) and rows[place] == row:
                return [style, place]
        raise IndexError(row)


def version_of(path: Path) -> str:
    """Return what changes with a file."""
    return f"{path.stat().st_mtime_ns:x}"


@dataclass
class Pictures:
    """The clean set of a workspace; it is read when it is first looked at, and again when it has changed."""

    data: Path
    cache: Path
    _set: CleanSet | None = None
    _maps: dict[str, Any] = field(default_factory=dict)
    _banks: dict[str, RealPictures] = field(default_factory=dict)
    _turn: Lock = field(default_factory=Lock)
    _measuring: asyncio.Lock = field(default_factory=asyncio.Lock)  # maps and banks; whoever waits holds no thread

    def routes(self) -> list[Route]:
        """Return the addresses of the tab."""
        place = "{version}/{style:int}/{place:int}"
        return [
            Route("/api/pictures", self.show),
            Route("/api/pictures/map", self.show_map),
            Route(f"/api/pictures/about/{place}", self.show_entry),
            Route(f"/api/pictures/{{side:int}}/{place}", self.show_picture),
        ]

    def read(self) -> CleanSet:
        """Return the clean set as it is now.

        Raises:
            DataError: there is none, or it is damaged.
        """
        path = self.data / "index.jsonl"
        with self._turn:
            if self._set is None or not path.exists() or self._set.version != version_of(path):
                self._set = None
                self._set = CleanSet.read(path)
            return self._set

    async def show(self, _request: Request) -> Response:
        """Say how many pictures each style has, and what was flagged and dropped."""
        return Json(await aside(self._overview))

    async def show_entry(self, request: Request) -> Response:
        """Say what the index has of a picture."""
        entry = await aside(partial(self._entry, request))
        if entry is None:
            return PlainTextResponse("There is no such picture.", 404)
        about = {
            "source": shown(entry.source),
            "style": shown(entry.style),
            "width": entry.width,
            "height": entry.height,
        }
        labels = {shown(name): shown(value) for name, value in entry.labels.items() if value}
        return Json({**about, "labels": labels})

    async def show_picture(self, request: Request) -> Response:
        """Send a picture as a small JPEG."""
        content = await aside(partial(self._picture, request))
        if content is None:
            return PlainTextResponse("That picture cannot be shown.", 404)
        return Response(content, media_type="image/jpeg", headers=FOR_EVER)

    async def show_map(self, _request: Request) -> Response:
        """Say where each of many pictures lies in the plane of the two widest directions of the cached latents."""
        async with self._measuring:
            return Json(await aside(self._map))

    def nearest_to(self, workspace: Workspace, drawn: Callable[[Request], Awaitable[Image.Image]]) -> Route:
        """Return the address that tells which training pictures are nearest to a drawn one, by `evaluate`'s search."""

        async def show(request: Request) -> Response:
            picture = await drawn(request)
            async with self._measuring:
                return Json(await aside(partial(self._nearest, workspace, picture)))

        return Route("/api/pictures/nearest", show, methods=["POST"])

    def _nearest(self, workspace: Workspace, picture: Image.Image) -> dict[str, Any]:
        from latentart.data.datasets import pixels_from
        from latentart.scoring.judging import find_judge
        from latentart.scoring.metrics.memorization import CopyLimits, find_neighbors, rank_nearest, to_thumbnails
        from latentart.scoring.real_pictures import find_real

        found = self.read()
        if found.version not in self._banks:
            self._banks = {found.version: find_real(workspace, find_judge(workspace, quiet=True), quiet=True)}
        real = self._banks[found.version]
        if len(real.searched) < 2:
            raise DataError("There are too few training pictures to compare with.")
        thumbnail = to_thumbnails(pixels_from(picture)[None])
        distances, rows = rank_nearest(real.searched, thumbnail)
        limits = CopyLimits.from_new(find_neighbors(real.searched, real.unseen_thumbnails))
        is_copy = limits is not None and bool(limits.find(find_neighbors(real.searched, thumbnail)))
        near = [
            [*found.place_of(int(real.searched_index[row])), round(float(distance), 3)]
            for row, distance in zip(rows[0][:MOST_NEAR], distances[0], strict=False)
        ]
        return {"version": found.version, "near": near, "is_copy": is_copy}

    def _overview(self) -> dict[str, Any]:
        found = self.read()
        listed = {name: list(_listed(self.data / "report.json", name)) for name in ("flagged", "dropped")}

        def place_of(source: str) -> list[int] | None:
            return found.place_of(found.numbers[source]) if source in found.numbers else None

        def show(item: dict[str, str]) -> dict[str, Any]:
            detail = item["detail"]
            other = detail.removeprefix("looks like ") if detail.startswith("looks like ") else ""
            told = {name: shown(text) for name, text in item.items()}
            return {**told, "place": place_of(item["source"]), "twin": place_of(other)}

        return {
            "version": found.version,
            "styles": [[shown(name), len(own)] for name, own in zip(found.styles, found.rows, strict=True)],
            "has_map": any(self.cache.glob("latents-*/cache.json")),
            **{name: [show(item) for item in items] for name, items in listed.items()},
        }

    def _entry(self, request: Request) -> IndexEntry | None:
        found, asked = self.read(), request.path_params
        return found.find(asked["style"], asked["place"]) if asked["version"] == found.version else None

    def _picture(self, request: Request) -> bytes | None:
        entry, side = self._entry(request), request.path_params["side"]
        if entry is None or side not in SIDES:
            return None
        path = self.data / entry.file
        if not path.resolve().is_relative_to(self.data.resolve()):  # a folder in it may be a link
            return None
        try:
            picture = decode_image(path, max_side=side)
        except BadImage:
            return None
        picture.thumbnail((4 * side, 4 * side))  # a very long one
        content = io.BytesIO()
        picture.save(content, "JPEG", quality=QUALITY)
        return content.getvalue()

    def _map(self) -> dict[str, Any]:
        found = self.read()
        if found.version not in self._maps:
            from latentart.studio.mapping import map_latents

            fingerprint = index_fingerprint(iterate_index(found.path))
            try:
                rows, places = map_latents(self.cache, fingerprint, len(found.starts), MOST_MAPPED)
            except LatentArtError as error:
                logger.info("no map: %s", error)
                rows, places = [], []
            points = [[x, y, *found.place_of(row)] for row, (x, y) in zip(rows, places, strict=True)]
            self._maps = {found.version: {"version": found.version, "points": points}}
        answer: dict[str, Any] = self._maps[found.version]
        return answer


def _listed(report: Path, name: str) -> Iterator[dict[str, str]]:
    """Yield what a report lists, as far as it can be read."""
    try:
        yield from islice(read_rows(report, name), MOST_LISTED)
    except DataError as error:
        logger.info("%s", error)
