"""What lies in a workspace's samples, newest first; a browser knows each by an id, and never a path."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from latentart.errors import UsageError
from latentart.sampling.settings import read_text
from latentart.storage.json_files import parse_json
from latentart.studio.answers import id_of, shown

SUFFIXES = {".png": "image/png", ".jpg": "image/jpeg", ".webp": "image/webp", ".gif": "image/gif"}
MOST_SHOWN = 500
MOST_LOOKED_AT = 20_000  # files


@dataclass(frozen=True)
class Kept:
    """A picture or movie that `sample` or the studio wrote; ``about`` are the settings inside."""

    id: str
    path: Path
    modified: float
    about: dict[str, Any]

    @property
    def media_type(self) -> str:
        """What a browser takes it for."""
        return SUFFIXES[self.path.suffix.lower()]

    def to_json(self, folder: Path) -> dict[str, Any]:
        """Return what the page shows of it."""
        name = shown(self.path.relative_to(folder).as_posix())
        return {"id": self.id, "name": name, "modified": self.modified, "about": self.about}


class Gallery:
    """The kept pictures of a folder and of the folders in it; a file is looked into once, until it changes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._seen: dict[tuple[str, int, int], dict[str, Any] | None] = {}
        self._by_id: dict[str, Kept] = {}
        self._turn = threading.Lock()

    def list(self) -> list[Kept]:
        """Return the newest of them; what holds no settings of ours is left out."""
        with self._turn:
            found, seen = [], {}
            for path, stat in sorted(self._files(), key=lambda item: -item[1].st_mtime_ns):
                key = (str(path), stat.st_mtime_ns, stat.st_size)
                seen[key] = about = self._seen[key] if key in self._seen else _read_about(path)
                if about is not None:
                    found.append(Kept(id_of(path.relative_to(self.folder)), path, stat.st_mtime, about))
                if len(found) == MOST_SHOWN:
                    break
            self._seen = seen
            self._by_id = {one.id: one for one in found}
            return found

    def find(self, name: str) -> Kept:
        """Return the one of an id.

        Raises:
            UsageError: there is none.
        """
        if name not in self._by_id:
            self.list()
        if name not in self._by_id:
            raise UsageError("That picture is no longer here.")
        return self._by_id[name]

    def _files(self) -> Iterator[tuple[Path, os.stat_result]]:
        """Yield pictures and movies, at most one folder deep; no link is followed."""
        left, folders = MOST_LOOKED_AT, [self.folder]
        while folders:
            folder = folders.pop()
            try:
                with os.scandir(folder) as entries:
                    for entry in entries:
                        left -= 1
                        if left < 0:
                            return
                        if entry.is_dir(follow_symlinks=False) and folder == self.folder:
                            folders.append(Path(entry.path))
                        elif entry.is_file(follow_symlinks=False) and Path(entry.name).suffix.lower() in SUFFIXES:
                            yield Path(entry.path), entry.stat(follow_symlinks=False)
            except OSError:  # it has gone, or is not ours to read
                continue


def _read_about(path: Path) -> dict[str, Any] | None:
    try:
        about = parse_json(read_text(path) or "null")
    except (OSError, ValueError, RecursionError):
        return None
    return about if isinstance(about, dict) else None
