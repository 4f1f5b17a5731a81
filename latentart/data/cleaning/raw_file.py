"""One raw file, or a member of an archive: where its bytes lie, and how they are opened; nothing leads elsewhere."""

from __future__ import annotations

from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path

from latentart.data.cleaning.archives.archive import open_member
from latentart.data.pictures.decode import open_regular_file
from latentart.data.pictures.formats import BadImage

OUTSIDE = "a link out of data.link_root"


@dataclass(frozen=True, slots=True)
class RawFile:
    """A file of the raw folder, or a member of an archive in it.

    ``source`` is relative to the folder, with ``/``; ``style`` is empty for loose files. ``reason`` says why
    it is dropped without being opened. A member's bytes lie in ``archive``, relative to the folder, at ``place``;
    its ``size`` is -1 where only reading tells.
    """

    source: str
    style: str
    size: int = 0
    mtime_ns: int = 0
    reason: str = ""
    detail: str = ""
    archive: str = ""
    place: str = ""


def follow(link: Path, raw: Path, link_root: str) -> Path | None:
    """Return where a link leads to, if ``link_root``, relative to ``raw``, is named and holds it; a loop leads nowhere.

    To a folder that lies in the raw folder, or the other way round, no link leads: it would be walked twice.
    """
    if not link_root:
        return None
    try:
        real, whole = link.resolve(strict=True), raw.resolve()
    except (OSError, RuntimeError):
        return None
    is_twice = real.is_dir() and (real.is_relative_to(whole) or whole.is_relative_to(real))
    return real if real.is_relative_to(root_of_links(raw, link_root)) and not is_twice else None


def root_of_links(raw: Path, link_root: str) -> Path:
    """Return the full path of the folder that links may lead into."""
    return (raw / Path(link_root).expanduser()).resolve()


def real_file(raw: Path, source: str, link_root: str) -> Path:
    """Return the path of a raw file that lies beyond no link but such as are followed.

    Raises:
        BadImage: it lies elsewhere by now.
    """
    path = raw / source
    if not link_root:
        return path
    real = path.resolve()
    if not any(real.is_relative_to(folder) for folder in (raw.resolve(), root_of_links(raw, link_root))):
        raise BadImage("not_a_regular_file", OUTSIDE)
    return real


def open_raw(raw: Path, found: RawFile, link_root: str) -> BufferedReader:
    """Open a raw file, or a member of an archive as if it were a file.

    Raises:
        BadImage: it is no regular file, or damaged as a member.
    """
    file = open_regular_file(real_file(raw, found.archive or found.source, link_root))
    try:
        return open_member(file, found.place) if found.archive else file
    except BaseException:
        file.close()
        raise
