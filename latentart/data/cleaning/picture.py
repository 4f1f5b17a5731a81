"""The decision on one raw file: sound and written, or dropped and why.

Worker processes import this module: it stays light.
"""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Iterable, Iterator
from dataclasses import KW_ONLY, dataclass, replace
from functools import cache, partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeAlias

from PIL import Image

from latentart.data.cleaning.guarded_workers import Lost, map_guarded
from latentart.data.cleaning.near_duplicates import perceptual_hash
from latentart.data.cleaning.raw_file import RawFile, open_raw
from latentart.data.pictures.decode import (
    BYTES_PER_PIXEL,
    MAX_PIXELS,
    WHITE,
    Decoded,
    decode_stream,
)
from latentart.data.pictures.formats import BadImage, may_be_picture
from latentart.data.pictures.other_kinds import HEAD, name_other_kind
from latentart.kinds import FileFormat, NearDuplicates
from latentart.storage.checksums import sha256_of
from latentart.storage.whole import whole_file

PARTS = ".clean.part"  # half-written pictures, inside the data folder so that a rename can finish them
EXTENSIONS = {"jpeg": "jpg", "png": "png"}
LEAST_MEMORY = 512 * 1024 * 1024  # libraries want some, however small the pictures are
LONGEST_JPEG_SIDE = 65_500
POLICY = 1  # counts the changes of how pictures are decoded and written
REASONS = 3  # counts the changes of why files are dropped, which give no kept picture another name
JUDGED = ("", "too_few_bytes", "too_small", "extreme_aspect")  # what follows from size and rules alone
LIMITED = ("bomb", "too_large", "time_out")


@dataclass(frozen=True, slots=True, kw_only=True)
class CleanRules:
    """What decides on a picture and shapes the clean one, in bytes, pixels, long side over short side and seconds."""

    min_bytes: int
    min_side: int
    max_side: int
    max_aspect: float
    file_format: FileFormat = "jpeg"
    quality: int = 95
    background: tuple[int, int, int] = WHITE
    max_pixels: int = MAX_PIXELS
    time_limit: float = 60.0
    near_duplicates: NearDuplicates = "flag"
    link_root: str = ""

    def shape(self) -> str:
        """Return 8 hex digits that change with what shapes a clean picture."""
        return _digest(POLICY, self.max_side, self.file_format, self.quality, self.background)[:8]

    def refusal(self, num_bytes: int, width: int = 0, height: int = 0) -> tuple[str, str]:
        """Return (reason, detail) why a sound picture of that size is dropped, else empty strings.

        Unknown are -1 bytes and sides of 0.
        """
        if 0 <= num_bytes < self.min_bytes:
            return "too_few_bytes", f"{num_bytes} bytes"
        short, long = sorted((width, height))
        if not short:
            return "", ""
        if short < self.min_side:
            return "too_small", f"{width} x {height} pixels"
        clean_long = long * min(1.0, self.max_side / short)
        if long > short * self.max_aspect or (self.file_format == "jpeg" and clean_long > LONGEST_JPEG_SIDE):
            return "extreme_aspect", f"{width} x {height} pixels"
        return "", ""


@dataclass(frozen=True, slots=True)
class Decision:
    """What became of a raw file: ``reason`` is empty for a sound picture.

    ``stamp`` holds what it was decided by; ``raw_width`` and ``raw_height`` are those of the picture in the raw file,
    0 where it was not decoded; ``file`` is the clean picture, relative to the data folder, of ``num_bytes`` bytes and
    ``width`` x ``height`` pixels.
    """

    source: str
    stamp: str
    reason: str = ""
    detail: str = ""
    _: KW_ONLY
    raw_width: int = 0
    raw_height: int = 0
    sha256: str = ""
    phash: str = ""
    file: str = ""
    num_bytes: int = 0
    width: int = 0
    height: int = 0
    is_blank: bool = False

    @property
    def raw_pixels(self) -> int:
        """Return the number of pixels in the raw file."""
        return self.raw_width * self.raw_height


Job: TypeAlias = tuple[RawFile, str]  # with the folder its clean picture belongs to


def decide_pictures(
    jobs: Iterable[Job], *, raw: Path, out: Path | None, rules: CleanRules, workers: int
) -> Iterator[Decision]:
    """Yield the decision on each job, as they are made in worker processes; ``workers`` 0 decides here, unguarded.

    Clean pictures are written into ``out``; None writes nothing.

    Raises:
        OSError: a clean picture cannot be written.
        ResourceError: worker processes cannot be started.
    """
    decide = partial(decide_picture, raw=raw, out=out, rules=rules)
    if not workers:
        yield from map(decide, jobs)
        return
    memory_limit = max(LEAST_MEMORY, BYTES_PER_PIXEL * rules.max_pixels)
    outcomes = map_guarded(decide, jobs, workers=workers, time_limit=rules.time_limit, memory_limit=memory_limit)
    for (found, _), outcome in outcomes:
        yield _decision_on_lost(found, outcome, rules) if isinstance(outcome, Lost) else outcome


def decide_picture(job: Job, *, raw: Path, out: Path | None, rules: CleanRules) -> Decision:
    """Decide on one raw file and write its clean picture, or write nothing if ``out`` is None."""
    found, folder = job
    try:
        with open_raw(raw, found, rules.link_root) as file:
            num_bytes = file.seek(0, os.SEEK_END)
            file.seek(0)
            start = file.read(HEAD)
            reason, detail = rules.refusal(num_bytes)
            if not may_be_picture(start):
                reason, detail = name_other_kind(start, found.source, file)
            if reason not in ("", "not_a_picture"):  # what we cannot name, a decoder may know
                return _refused(found, rules, reason, detail)
            file.seek(0)
            decoded = decode_stream(
                file, background=rules.background, max_pixels=rules.max_pixels, max_side=rules.max_side
            )
            reason, detail = rules.refusal(num_bytes, decoded.width, decoded.height)
            if reason:
                stamp = stamp_of(found, rules, reason, decoded.width * decoded.height)
                size: dict[str, Any] = {"raw_width": decoded.width, "raw_height": decoded.height}
                return Decision(found.source, stamp, reason, detail, **size)
            file.seek(0)
            sha256 = sha256_of(file)
    except BadImage as error:
        return _refused(found, rules, error.reason_code, error.detail)
    except OSError as error:
        return _refused(found, rules, "unreadable", error.strerror or str(error))
    try:
        return _accepted(found, folder, decoded, sha256, out, rules)
    except MemoryError:
        return _refused(found, rules, "too_large", "takes more memory than a worker may use")


def stamp_of(found: RawFile, rules: CleanRules, reason: str, raw_pixels: int = 0) -> str:
    """Return what a decision depends on as a string: the file's size and time, decoders, rules that shaped it."""
    # half of the limit is where the first formats are reduced while they are read, which shows in the clean picture
    size = f"{found.size}" if found.size >= 0 else f"over {rules.min_bytes}"  # which was seen when it was read
    return f"{size}-{found.mtime_ns}-{_eyes(rules, reason in LIMITED or 2 * raw_pixels > rules.max_pixels)}"


def judge_again(before: Decision, num_bytes: int, rules: CleanRules) -> Decision | None:
    """Return an earlier decision as other rules would have it, or None if that needs a look at the file."""
    if before.reason not in JUDGED:
        return before
    reason, detail = rules.refusal(num_bytes, before.raw_width, before.raw_height)
    return None if not reason and not before.file else replace(before, reason=reason, detail=detail)


def _accepted(
    found: RawFile, folder: str, decoded: Decoded, sha256: str, out: Path | None, rules: CleanRules
) -> Decision:
    picture = decoded.picture
    # other rules, other names: a data set in use stays as it is until its index is replaced
    name = _digest(sha256, rules.shape())[:24]
    file = f"{folder}/{name}.{EXTENSIONS[rules.file_format]}"
    return Decision(
        found.source,
        stamp_of(found, rules, "", decoded.width * decoded.height),
        raw_width=decoded.width,
        raw_height=decoded.height,
        sha256=sha256,
        phash=perceptual_hash(picture),
        file=file,
        num_bytes=_write_picture(picture, out, file, rules) if out else 0,
        width=picture.width,
        height=picture.height,
        is_blank=all(low == high for low, high in picture.getextrema()),  # type: ignore[misc]  # pairs, as RGB
    )


def _refused(found: RawFile, rules: CleanRules, reason: str, detail: str) -> Decision:
    # a file becomes readable without any change of its size or time: without a stamp it is looked at again
    stamp = "" if reason == "unreadable" else stamp_of(found, rules, reason)
    return Decision(found.source, stamp, reason, detail)


def _decision_on_lost(found: RawFile, lost: Lost, rules: CleanRules) -> Decision:
    if lost.is_late:
        return _refused(found, rules, "time_out", f"not decoded within {rules.time_limit:g} s of processor time")
    if lost.signal_number == 9:  # SIGKILL, which Windows does not name
        killed = _refused(found, rules, "too_large", "its decoder was killed, most likely for want of memory")
    else:
        killed = _refused(found, rules, "damaged", "its decoder broke down")
    return replace(killed, stamp="")  # it may have been another one's hunger: the next run tries again


def _write_picture(image: Image.Image, out: Path, file: str, rules: CleanRules) -> int:
    """Write a picture that appears whole or not at all, and return its size in bytes."""
    target, parts = out / file, out / PARTS
    for folder in (target.parent, parts):
        folder.mkdir(parents=True, exist_ok=True)
    options: dict[str, Any] = {"quality": rules.quality, "subsampling": 0, "optimize": False}
    content = io.BytesIO()  # into a file, Pillow does not see that the last piece was cut for want of room
    image.save(content, rules.file_format, **(options if rules.file_format == "jpeg" else {}))
    with whole_file(target, inside=parts) as temporary:
        return temporary.write_bytes(content.getbuffer())


@cache
def _eyes(rules: CleanRules, is_limited: bool) -> str:
    """Return 12 hex digits over all that decides on a picture beside its file and what ``judge_again`` can do."""
    decoders = [name for name in ("simplejpeg", "pillow_heif") if find_spec(name)]
    limits = (LIMITED, rules.max_pixels, rules.time_limit) if is_limited else ()
    return _digest(rules.shape(), REASONS, decoders, limits)[:12]


def _digest(*parts: object) -> str:
    return hashlib.sha256(repr(parts).encode()).hexdigest()
