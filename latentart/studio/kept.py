"""What lies in a workspace's samples, newest first; a browser knows each by an id, and never a path."""

from __future__ import annotations

import contextlib
import os
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from math import inf
from pathlib import Path
from typing import Any

from latentart.errors import UsageError
from latentart.storage.json_files import parse_json
from latentart.studio.answers import id_of, shown

SUFFIXES = {".png": "image/png", ".jpg": "image/jpeg", ".webp": "image/webp", ".gif": "image/gif"}
MOST_AT_ONCE = 60  # of a page
MOST_READ = 1000  # files that a page looks into
MOST_REMEMBERED = 4000  # settings
MOST_LISTED = 200_000  # files


@dataclass(frozen=True)
class Kept:
    """A picture or movie that `sample` or the studio wrote; ``about`` are the settings inside."""

    id: str
    path: Path
    modified_ns: int
    about: dict[str, Any]

    @property
    def media_type(self) -> str:
        """What a browser takes it for."""
        return SUFFIXES[self.path.suffix.lower()]

    def to_json(self, folder: Path) -> dict[str, Any]:
        """Return what the page shows of it."""
        name = shown(self.path.relative_to(folder).as_posix())
        return {"id": self.id, "name": name, "modified": self.modified_ns / 1e9, "about": self.about}


class Gallery:
    """The kept pictures of a folder and of the folders in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._paths: dict[str, Path] = {}

    def page(self, after: str = "") -> tuple[list[Kept], str]:
        """Return the newest that come after a mark, and the mark to go on from, empty at the end.

        What holds no settings of ours is left out. A mark stays good whatever is kept or deleted meanwhile.
        """
        files = sorted((-modified, id_of(path.relative_to(self.folder)), path) for path, modified in self._files())
        self._paths = {name: path for _, name, path in files}
        start = bisect_right(files, _mark(after), key=lambda file: file[:2])
        found: list[Kept] = []
        for age, name, path in files[start : start + MOST_READ]:
            found += filter(None, [self._known(name, path, -age)])
            start += 1
            if len(found) == MOST_AT_ONCE:
                break
        return found, f"{-files[start - 1][0]}-{files[start - 1][1]}" if start < len(files) else ""

    def find(self, name: str) -> Kept:
        """Return the one of an id.

        Raises:
            UsageError: there is none.
        """
        if name not in self._paths:
            self._paths = {id_of(path.relative_to(self.folder)): path for path, _ in self._files()}
        if name not in self._paths:
            raise UsageError("That picture is no longer here.")
        return self.at(self._paths[name])

    def at(self, path: Path) -> Kept:
        """Return the one of a path.

        Raises:
            UsageError: there is none, or a link in its place.
        """
        kept, is_link = None, path.is_symlink() or (path.parent != self.folder and path.parent.is_symlink())
        with contextlib.suppress(OSError):
            if not is_link:
                kept = self._known(id_of(path.relative_to(self.folder)), path, path.stat().st_mtime_ns)
        if kept is None:
            raise UsageError("That picture is no longer here.")
        return kept

    def _known(self, name: str, path: Path, modified_ns: int) -> Kept | None:
        about = _read_about(path, modified_ns)
        return None if about is None else Kept(name, path, modified_ns, about)

    def _files(self) -> Iterator[tuple[Path, int]]:
        """Yield pictures and movies with their times, at most one folder deep; no link is followed."""
        left, folders = MOST_LISTED, [self.folder]
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
                            yield Path(entry.path), entry.stat(follow_symlinks=False).st_mtime_ns
            except OSError:  # it has gone, or is not ours to read
                continue


def _mark(text: str) -> tuple[float, str]:
    """Return where a mark stands in the order of files; what is none stands before all."""
    modified, _, name = text.partition("-")
    return (-int(modified), name) if modified.isascii() and modified.isdecimal() and len(modified) < 30 else (-inf, "")


@lru_cache(MOST_REMEMBERED)
def _read_about(path: Path, _modified_ns: int) -> dict[str, Any] | None:
    from latentart.sampling.settings import read_text  # loads PyTorch

    try:
        about = parse_json(read_text(path) or "null")
    except (OSError, ValueError, RecursionError):
        return None
    return about if isinstance(about, dict) else None
