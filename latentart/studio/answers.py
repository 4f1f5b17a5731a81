"""How requests are read and answered: bodies within bounds, what is drawn as a stream of events."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import logging
import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, StreamingResponse

from latentart.errors import DataError, LatentArtError, ResourceError
from latentart.printable import printable
from latentart.studio.painter import Event, Job, Painter

logger = logging.getLogger(__name__)

MOST_WORDS = 64 * 2**10  # bytes of a body of JSON
PATIENCE = 60.0  # seconds that a body may take to arrive


class Json(JSONResponse):
    """An answer whose names may be of any letters, also those that are no UTF-8."""

    def render(self, content: Any) -> bytes:
        """Return ASCII."""
        return json.dumps(content, allow_nan=False, separators=(",", ":")).encode("ascii")


async def read_body(request: Request, most: int = MOST_WORDS) -> bytes:
    """Return a request's body.

    Raises:
        DataError: it has more than ``most`` bytes, of which no more are read, or does not end.
    """
    parts, size = [], 0
    try:
        async with asyncio.timeout(PATIENCE):
            async for part in request.stream():
                size += len(part)
                if size > most:
                    raise DataError(f"That is more than {most / 2**20:.3g} MiB, the most that is taken.")
                parts.append(part)
    except TimeoutError:
        raise DataError("That took too long to arrive.") from None
    return b"".join(parts)


class Listener:
    """Carries what the painter's thread tells over to the event loop."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._queue: asyncio.Queue[Event | None] = asyncio.Queue()

    def tell(self, event: Event | None) -> None:
        """Take an event, on any thread; None is the end."""
        with contextlib.suppress(RuntimeError):  # the loop has ended
            self._loop.call_soon_threadsafe(self._queue.put_nowait, event)

    async def events(self) -> AsyncIterator[Event]:
        """Yield the events up to the end."""
        while (event := await self._queue.get()) is not None:
            yield event


def stream(painter: Painter, owner: str, work: Callable[[Job], None]) -> StreamingResponse:
    """Answer with server-sent events; who goes away is no longer worked for."""
    listener = Listener()
    job = painter.ask(owner, work, listener.tell)

    async def lines() -> AsyncIterator[str]:
        try:
            async for event in listener.events():
                yield f"data: {json.dumps(event)}\n\n"
        finally:
            job.drop()

    return StreamingResponse(lines(), media_type="text/event-stream")


async def ask(painter: Painter, owner: str, work: Callable[[Job], None]) -> Event:
    """Return the last event of a job.

    Raises:
        ResourceError: it says that it could not be done, or was replaced.
    """
    listener, last = Listener(), Event()
    painter.ask(owner, work, listener.tell)
    async for event in listener.events():
        last = event
    if "error" in last or not last:
        raise ResourceError(last.get("error", "Another wish has taken its place."))
    return last


async def aside(work: Callable[[], Any]) -> Any:
    """Return what a function returns that waits for a disk, without holding up others."""
    return await run_in_threadpool(work)


async def explain(_request: Request, error: Exception) -> Json:
    """Answer a known error with its sentence; one of ours goes to the log."""
    if isinstance(error, LatentArtError):
        return Json({"error": printable(f"{error.message} {error.hint}".strip())}, 400)
    logger.error("a request failed", exc_info=error)
    return Json({"error": "This could not be answered; the terminal says why."}, 500)


def id_of(path: Path) -> str:
    """Return 16 hex digits that stand for a path in the browser."""
    return hashlib.sha256(os.fsencode(path)).hexdigest()[:16]


def shown(text: str) -> str:
    """Return a text that JSON can hold, whatever its letters are."""
    return text.encode("utf-8", "backslashreplace").decode()
