"""The tab Watch: runs as their files tell of them, so that another process or machine may be the one that trains."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from threading import Lock
from typing import Any

from starlette.requests import Request
from starlette.responses import FileResponse, PlainTextResponse, Response
from starlette.routing import Route

from latentart.reporting.report import (
    LOG_LINES,
    PREVIEW,
    describe_facts,
    network_of,
    planned_steps,
    read_object,
    verdict_of,
)
from latentart.scoring.run_history import HELD_OUT_LOSS, LOG, METRICS, TRAINING_LOSS, RunHistory, read_end
from latentart.studio.answers import Json, aside, id_of, shown

MOST_RUNS = 12
MOST_POINTS = 240  # of a curve on the page
ENOUGH = 512  # bytes that no two runs share, as each line has its time
LIVE_SECONDS = 90.0  # since the last number
FILES = (METRICS, "config.json", LOG)


@dataclass
class Watched:
    """A run that is looked at: its numbers are read on from where they ended before."""

    folder: Path
    _history: RunHistory | None = None
    _size: int = 0
    _end: bytes = b""

    def look(self) -> dict[str, Any]:
        """Return what the page shows of it."""
        history, modified = self._read()
        planned = planned_steps(
            read_object(self.folder / "config.json"), read_object(self.folder / "model/model.json"), history
        )
        verdict = verdict_of(history, planned)
        return {
            "id": id_of(Path(self.folder.name)),
            "name": shown(self.folder.name),
            "what": history.what,
            "is_live": time.time() - modified < LIVE_SECONDS,
            "modified": modified,
            "step": history.last_step,
            "planned": planned,
            "done": history.last_step - history.first_step,
            "facts": describe_facts(history, planned),
            "verdict": None if verdict is None else dict(zip(("kind", "evidence", "advice"), verdict, strict=True)),
            "training": self._curve(history, TRAINING_LOSS[history.what]) or self._curve(history, "loss"),
            "held_out": self._curve(history, HELD_OUT_LOSS[history.what]),
            "previews": sorted(self.previews()),
            "log": [shown(line) for line in read_end(self.folder / LOG).splitlines()[-LOG_LINES:]],
        }

    def previews(self) -> dict[int, Path]:
        """Return the pages of previews by their steps."""
        with contextlib.suppress(OSError):
            names = (path for path in (self.folder / "previews").iterdir() if not path.is_symlink())
            return {int(match[1]): path for path in names if (match := PREVIEW.fullmatch(path.name))}
        return {}

    def _read(self) -> tuple[RunHistory, float]:
        """Return the numbers so far, and when the last came; a run that has gone back is read anew."""
        path, modified = self.folder / METRICS, 0.0
        if self._history is None or read_before(path, self._size) != self._end:
            self._history = RunHistory(self.folder, network_of(self.folder))
        with contextlib.suppress(OSError):
            found = path.stat()
            self._size, modified = found.st_size, found.st_mtime
            self._end = read_before(path, self._size)
            self._history.read()
        return self._history, modified

    @staticmethod
    def _curve(history: RunHistory, name: str) -> list[tuple[int, float | None]]:
        return history.traces[name].means(most=MOST_POINTS) if name in history.traces else []


def read_before(path: Path, size: int) -> bytes:
    """Return the last line or so before a place in a file, nothing where there is none."""
    with contextlib.suppress(OSError):
        if path.is_file():  # a named pipe would keep us waiting
            with path.open("rb") as file:
                file.seek(max(0, size - ENOUGH))
                return file.read(min(size, ENOUGH))
    return b""


@dataclass
class Watch:
    """The runs of a workspace, the newest first."""

    runs: Path
    _watched: dict[str, Watched] = field(default_factory=dict)
    _turn: Lock = field(default_factory=Lock)

    def routes(self) -> list[Route]:
        """Return the addresses of the tab."""
        return [Route("/api/watch", self.show), Route("/api/watch/{id}/{step:int}", self.show_preview)]

    async def show(self, _request: Request) -> Response:
        """Say how all runs are doing."""
        return Json({"runs": await aside(self.look)})

    async def show_preview(self, request: Request) -> Response:
        """Send a page of previews."""
        find: Callable[[], Path | None] = partial(self.find, request.path_params["id"], request.path_params["step"])
        path = await aside(find)
        if path is None:
            return PlainTextResponse("There is no such preview.", 404)
        return FileResponse(path, media_type="image/png", headers={"cache-control": "private, max-age=3600"})

    def look(self) -> list[dict[str, Any]]:
        """Return what the page shows of each run."""
        with self._turn:
            self._watched = {id_of(Path(one.name)): self._known(one) for one in self._folders()}
            return [one.look() for one in self._watched.values()]

    def find(self, name: str, step: int) -> Path | None:
        """Return the file of a run's page of previews."""
        if name not in self._watched:
            self.look()
        run = self._watched.get(name)
        return None if run is None else run.previews().get(step)

    def _known(self, folder: Path) -> Watched:
        return self._watched.get(id_of(Path(folder.name))) or Watched(folder)

    def _folders(self) -> list[Path]:
        """Return the folders of the newest runs."""
        found: list[tuple[float, Path]] = []
        with contextlib.suppress(OSError):
            for folder in self.runs.iterdir():
                times = [(folder / name).stat().st_mtime for name in FILES if (folder / name).is_file()]
                found += [(max(times), folder)] if times and not folder.is_symlink() else []
        return [folder for _, folder in sorted(found, reverse=True)[:MOST_RUNS]]
