"""Fetching a file whose size and SHA-256 are known: it goes on where it stopped, and is whole or not there.

What has been received lies in ``<name>.part`` beside the target, which appears by one rename after the whole of it was
hashed. The standard library's urllib honors ``http_proxy``, ``https_proxy`` and ``no_proxy``.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import shutil
import ssl
import time
from collections.abc import Callable, Iterator, Sequence
from http.client import HTTPException, InvalidURL
from pathlib import Path
from typing import Any, TypeAlias
from urllib.error import HTTPError, URLError
from urllib.request import Request, build_opener

from latentart import __version__
from latentart.errors import DownloadError, ResourceError, UsageError
from latentart.storage.checksums import sha256_of
from latentart.storage.lock import HeldError, remove_file_lock, take_file_lock
from latentart.storage.whole import put_in_place

logger = logging.getLogger(__name__)

OnProgress: TypeAlias = Callable[[int], None]
SCHEMES = ("https", "http", "file")
CHUNK = 2**18
GO_ON = "Run the same command again to go on from there; behind a proxy, set https_proxy."
_FOR_GOOD = (ssl.SSLCertVerificationError, FileNotFoundError, PermissionError, IsADirectoryError, InvalidURL)


class _BrokenOffError(Exception):
    """A response that did not come, or not to its end; ``is_passing`` where trying again may help."""

    def __init__(self, reason: str, *, is_passing: bool) -> None:
        super().__init__(reason)
        self.is_passing = is_passing


def part_of(target: Path) -> Path:
    """Return where an unfinished download of ``target`` lies."""
    return target.with_name(f"{target.name}.part")


def bytes_received(target: Path) -> int:
    """Return how many bytes an unfinished download of ``target`` has."""
    part = part_of(target)
    return part.stat().st_size if part.is_file() else 0


def find_fault(path: Path, num_bytes: int, sha256: str) -> str:
    """Return what is wrong with a file, to be read after its name; an empty text where size and SHA-256 are right.

    Raises:
        ResourceError: the file cannot be read.
    """
    with _disk_errors(path):
        if not path.is_file():
            return "is missing"
        if (size := path.stat().st_size) != num_bytes:
            return f"has {size} bytes, expected {num_bytes}: it is cut, or another file"
        return "" if sha256_of(path) == sha256 else "is damaged, or another file: its checksum (SHA-256) does not match"


def fetch_file(
    url: str,
    target: Path,
    *,
    num_bytes: int,
    sha256: str,
    on_progress: OnProgress | None = None,
    pauses: Sequence[float] = (1.0, 2.0, 4.0),
    timeout: float = 30.0,
) -> None:
    """Download ``target``, going on with what an earlier call received; a wrong file in its place is replaced.

    A lost connection is tried again after each of ``pauses`` seconds; ``timeout`` is how long, in seconds, the other
    side may be silent. ``on_progress`` is told the bytes that are there.

    Raises:
        UsageError: the address is of no kind that can be fetched.
        DownloadError: the file cannot be had, broke off, or is another one.
        ResourceError: another process is fetching it, or the disk does not take it.
    """
    if url.partition("://")[0].lower() not in SCHEMES:
        raise UsageError(f"'{url}' is no address to fetch from.", "It begins with https://, http:// or file://.")
    part = part_of(target)
    with _disk_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        with _locked(part):
            if not find_fault(target, num_bytes, sha256):  # another process was quicker
                return
            source = _Source(url, num_bytes, timeout, on_progress)
            is_in_one = source.receive(part, pauses)
            fault = find_fault(part, num_bytes, sha256)
            if fault and not is_in_one:
                logger.warning("%s: its first part was of another file; from the beginning", target.name)
                os.truncate(part, 0)
                source.receive(part, pauses)
                fault = find_fault(part, num_bytes, sha256)
            if fault:
                part.unlink()
                msg = f"{url}: what came {fault}; it was deleted."
                raise DownloadError(msg, f"Try another address, or put the right file at {target} yourself.")
            put_in_place(part, target)


class _Source:
    """An address from which a file of a known size is received."""

    def __init__(self, url: str, num_bytes: int, timeout: float, on_progress: OnProgress | None) -> None:
        self.url, self.num_bytes, self.timeout = url, num_bytes, timeout
        self.on_progress = on_progress or (lambda _: None)

    def receive(self, part: Path, pauses: Sequence[float]) -> bool:
        """Fill ``part`` up and tell whether all of it came in one response."""
        waits = iter(pauses)
        while True:
            try:
                return self._receive_once(part)
            except _BrokenOffError as broken:
                if broken.is_passing and (pause := next(waits, None)) is not None:
                    logger.warning("%s; trying again in %g s", broken, pause)
                    time.sleep(pause)
                    continue
                have = f"; {size} of {self.num_bytes} bytes are here" if (size := part.stat().st_size) else ""
                by_hand = f"Check the address, or fetch the file in another way and put it at {part.with_suffix('')}."
                hint = GO_ON if broken.is_passing else by_hand
                raise DownloadError(f"{self.url}: {broken}{have}.", hint) from None

    def _receive_once(self, part: Path) -> bool:
        have = part.stat().st_size
        if have > self.num_bytes:
            os.truncate(part, 0)
            have = 0
        _require_room(part, self.num_bytes - have)
        if have == self.num_bytes:
            return False
        with self._open(part, have) as response:
            first = self._first_byte(response, part, have)
            with part.open("ab" if first else "wb") as file:
                have = first
                self.on_progress(have)
                while have <= self.num_bytes and (chunk := self._read(response)):
                    file.write(chunk)
                    have += len(chunk)
                    self.on_progress(min(have, self.num_bytes))
        if have < self.num_bytes:
            raise _BrokenOffError("the connection was lost", is_passing=True)
        return first == 0

    def _open(self, part: Path, have: int) -> Any:
        """Ask for the file from byte ``have`` on."""
        # some sites refuse urllib's own name; a part of a compressed stream would be of no use
        headers = {"User-Agent": f"latentart/{__version__}", "Accept-Encoding": "identity"}
        headers |= {"Range": f"bytes={have}-"} if have else {}
        try:
            with _network_errors():
                return build_opener().open(Request(self.url, headers=headers), timeout=self.timeout)  # noqa: S310 - SCHEMES
        except HTTPError as error:
            with error:
                if error.code == 416 and have:  # the file there is shorter than what is here
                    os.truncate(part, 0)
                is_passing = error.code in (408, 416, 425, 429) or error.code >= 500
                raise _BrokenOffError(f"HTTP {error.code} {error.reason}", is_passing=is_passing) from None

    def _first_byte(self, response: Any, part: Path, have: int) -> int:
        """Return which byte a response begins with; one of another size is refused before a byte is given up for it."""
        first, offered = 0, response.headers.get("Content-Length")
        if response.status == 206:
            match = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", response.headers.get("Content-Range", ""))
            first, offered = (int(match[1]), match[2]) if match else (-1, None)
            if first != have:
                os.truncate(part, 0)
                raise _BrokenOffError("the answer is not the part that was asked for", is_passing=have > 0)
        if offered and offered.isdecimal() and int(offered) != self.num_bytes:
            reason = f"there is another file, with {offered} bytes instead of {self.num_bytes}"
            raise _BrokenOffError(reason, is_passing=False)
        return first

    def _read(self, response: Any) -> bytes:
        with _network_errors():
            return response.read(CHUNK)


@contextlib.contextmanager
def _network_errors() -> Iterator[None]:
    """Keep apart what the network says from what the disk says: both are OSErrors."""
    try:
        yield
    except HTTPError:
        raise
    except (OSError, HTTPException, ValueError) as error:  # ValueError: an address that cannot be one
        reason = error.reason if isinstance(error, URLError) else error
        words = getattr(reason, "strerror", None) or str(reason) or type(reason).__name__
        is_passing = isinstance(reason, (OSError, HTTPException)) and not isinstance(reason, _FOR_GOOD)
        raise _BrokenOffError(words, is_passing=is_passing) from None


def _require_room(part: Path, needed: int) -> None:
    free = shutil.disk_usage(part.parent).free
    if free < needed:
        msg = f"{part.parent} has {free / 2**20:.0f} MB free, and {part.stem} needs {needed / 2**20:.0f} MB more."
        raise ResourceError(msg, "Free some space, then run the same command again.")


@contextlib.contextmanager
def _disk_errors(path: Path) -> Iterator[None]:
    """Turn what the operating system says into one line that names the path."""
    try:
        yield
    except OSError as error:
        msg = f"{path}: {error.strerror or error}."
        raise ResourceError(msg, "Make room or mend the rights, then run the same command again to go on.") from error


@contextlib.contextmanager
def _locked(part: Path) -> Iterator[None]:
    """Make ``part`` and keep other processes from it; a part in which nothing was written goes again.

    Raises:
        ResourceError: another process has it.
    """
    lock = part.with_suffix(".lock")
    with contextlib.ExitStack() as stack:
        try:
            take_file_lock(lock, stack)
        except HeldError:
            msg = f"another process is fetching {part.with_suffix('')}."
            raise ResourceError(msg, "Wait until it is done, then run the same command again.") from None
        stack.callback(remove_file_lock, lock)
        part.touch()
        try:
            yield
        finally:
            if part.is_file() and part.stat().st_size == 0:
                part.unlink()
