"""The decision on one raw file, and the worker processes that make many: sound and written, or dropped and why.

Worker processes import this module: it stays light.
"""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import partial
from multiprocessing import connection
from pathlib import Path
from typing import Any, Literal, TypeAlias

from PIL import Image

from latentart.data.images import BadImage, decode_stream, open_regular_file, resize_shorter_side
from latentart.data.raw_files import RawFile
from latentart.errors import ResourceError

PARTS = ".part"  # half-written pictures, inside the data folder so that a rename can finish them
EXTENSIONS = {"jpeg": "jpg", "png": "png"}
LONGEST_JPEG_SIDE = 65_500
CHUNK = 8  # files handed to a worker at once: enough to hide the hand-over, few enough to stop soon


@dataclass(frozen=True, slots=True)
class CleanRules:
    """What decides on a picture and shapes the clean one: bytes, pixels, long side over short side, 0...100."""

    min_bytes: int
    min_side: int
    max_side: int
    max_aspect: float
    file_format: Literal["jpeg", "png"]
    quality: int
    background: tuple[int, int, int]

    def fingerprint(self) -> str:
        """Return 12 hex digits that change with any rule."""
        return hashlib.sha256(repr(self).encode()).hexdigest()[:12]


@dataclass(frozen=True, slots=True)
class Decision:
    """What became of a raw file: ``reason`` is empty for a sound picture.

    ``stamp`` holds the size, time and rules it was decided by; ``file`` is the clean picture, relative to the
    data folder, of ``num_bytes`` bytes.
    """

    source: str
    stamp: str
    reason: str = ""
    detail: str = ""
    sha256: str = ""
    file: str = ""
    num_bytes: int = 0
    width: int = 0
    height: int = 0
    is_blank: bool = False


Job: TypeAlias = tuple[RawFile, str]  # with the folder its clean picture belongs to


def stamp_of(found: RawFile, rules: CleanRules) -> str:
    """Return what a decision depends on as a string: size, time of the last change, rules."""
    return f"{found.size}-{found.mtime_ns}-{rules.fingerprint()}"


def decide_picture(job: Job, *, raw: Path, out: Path | None, rules: CleanRules) -> Decision:
    """Decide on one raw file and write its clean picture, or write nothing if ``out`` is None."""
    found, folder = job
    stamp = stamp_of(found, rules)
    try:
        image, sha256 = _sound_picture(raw / found.source, rules)
    except BadImage as error:
        return Decision(found.source, stamp, error.reason_code, error.detail)
    is_blank = all(low == high for low, high in image.getextrema())  # type: ignore[misc]  # pairs, as RGB
    image = resize_shorter_side(image, rules.max_side)
    file = f"{folder}/{sha256[:24]}.{EXTENSIONS[rules.file_format]}"
    num_bytes = _write_picture(image, out, file, rules) if out else 0
    return Decision(
        found.source,
        stamp,
        sha256=sha256,
        file=file,
        num_bytes=num_bytes,
        width=image.width,
        height=image.height,
        is_blank=is_blank,
    )


def decide_pictures(jobs: Sequence[Job], decide: Callable[[Job], Decision], workers: int) -> Iterator[Decision]:
    """Yield the decision on each job in order; memory does not grow with the number of jobs.

    Raises:
        ResourceError: a worker process was killed.
    """
    if workers <= 1 or len(jobs) <= CHUNK:
        yield from map(decide, jobs)
        return
    pool = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), initializer=_start_worker)
    pending: deque[Future[list[Decision]]] = deque()
    try:
        for start in range(0, len(jobs), CHUNK):
            pending.append(pool.submit(_decide_chunk, jobs[start : start + CHUNK], decide))
            if len(pending) > 2 * workers:
                yield from pending.popleft().result()
        while pending:
            yield from pending.popleft().result()
    except BrokenProcessPool as error:
        raise ResourceError(
            "A worker process was killed while it decoded pictures, most likely for want of memory.",
            "Lower the number of workers and run the same command again: it goes on where it stopped.",
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def _decide_chunk(jobs: Sequence[Job], decide: Callable[[Job], Decision]) -> list[Decision]:
    return [decide(job) for job in jobs]


def _start_worker() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to answer
    parent = multiprocessing.parent_process()
    if parent is not None:  # a killed parent cannot tell its workers to end
        threading.Thread(target=partial(_exit_after, parent.sentinel), daemon=True).start()


def _exit_after(sentinel: int) -> None:
    connection.wait([sentinel])
    os._exit(1)


def _sound_picture(path: Path, rules: CleanRules) -> tuple[Image.Image, str]:
    """Return the picture and the SHA-256 of its file.

    Raises:
        BadImage: with the codes of ``decode_stream`` and with too_small and extreme_aspect.
    """
    with open_regular_file(path) as file:
        num_bytes = os.fstat(file.fileno()).st_size
        if num_bytes < rules.min_bytes:
            raise BadImage("too_few_bytes", f"{num_bytes} bytes")
        image = decode_stream(file, background=rules.background)
        short, long = sorted(image.size)
        if short < rules.min_side:
            raise BadImage("too_small", f"{image.width} x {image.height} pixels")
        clean_long = long * min(1.0, rules.max_side / short)
        if long > short * rules.max_aspect or (rules.file_format == "jpeg" and clean_long > LONGEST_JPEG_SIDE):
            raise BadImage("extreme_aspect", f"{image.width} x {image.height} pixels")
        try:
            file.seek(0)
            return image, hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise BadImage("unreadable", error.strerror or str(error)) from error


def _write_picture(image: Image.Image, out: Path, file: str, rules: CleanRules) -> int:
    """Write a picture that appears whole or not at all, and return its size in bytes."""
    target = out / file
    part = out / PARTS / f"{os.getpid()}-{target.name}"
    for folder in (target.parent, part.parent):
        folder.mkdir(parents=True, exist_ok=True)
    options: dict[str, Any] = {"quality": rules.quality, "subsampling": 0, "optimize": False}
    image.save(part, rules.file_format, **(options if rules.file_format == "jpeg" else {}))
    num_bytes = part.stat().st_size
    part.replace(target)
    return num_bytes
