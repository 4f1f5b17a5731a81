"""Folders that are either whole or not there: checkpoints and model folders, on disk and without pickle.

A folder is written under a temporary name, sealed with a manifest (size and SHA-256 of every file), flushed
to the disk and made visible by one rename. Committed folders are flat: files only, no folders, no links.

Names: ``.tmp-<name>-<pid>`` is being written or deleted by process ``pid``; ``.old-<name>`` is a complete
folder that is about to be replaced.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import shutil
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

from pydantic import Field

from latentart.errors import ModelError, ResourceError
from latentart.storage.checksums import sha256_of
from latentart.storage.json_files import file_errors
from latentart.storage.json_files import read_json as read_json
from latentart.storage.json_files import write_json_atomic as write_json_atomic
from latentart.storage.saved_values import Saved, read_saved
from latentart.storage.whole import named, remove_temporaries, sync_folder, temporary_beside

logger = logging.getLogger(__name__)

FORMAT = 1
MANIFEST = "MANIFEST.json"
LARGE = 2**30  # bytes; holes of more would take minutes to read
CARD = ("README.md", "card.png")  # its owner's to change: neither sealed nor verified, and kept
_LEFT_BY_FILE_BROWSERS = {".DS_Store", "Thumbs.db", "desktop.ini"}


class NewerFormatError(ModelError):
    """A folder that a later version wrote: it is not damaged, and nothing older takes its place."""


def free_path(path: Path, may_be_it: Callable[[Path], bool] = lambda _: False) -> Path:
    """Return ``path``, with a number added as long as something has that name that may not be it.

    A link that leads nowhere has its name too: it is the user's.
    """
    number, candidate = 1, path
    while os.path.lexists(candidate) and not may_be_it(candidate):
        number += 1
        candidate = path.with_stem(f"{path.stem}_{number}")
    return candidate


def commit_folder(final: Path, write: Callable[[Path], None], *, replace: bool = False) -> None:
    """Make the folder ``final`` out of the files ``write(temporary)`` writes: whole and durable, or not at all.

    With ``replace`` an existing folder is moved aside, and deleted once the new one stands; at every instant
    a complete folder is there, under its name or where ``recover_folder`` finds it.

    Raises:
        ResourceError: the disk does not take it, or ``final`` exists and ``replace`` is false.
    """
    temporary = temporary_beside(final)
    with file_errors("write", final):
        if not replace and os.path.lexists(final):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))
        _make_folder(final.parent)
        shutil.rmtree(temporary, ignore_errors=True)  # in a container the killed run had our process id
        temporary.mkdir()
        try:
            write(temporary)
            _seal(temporary)
            for path in (final / name for name in CARD):
                if path.is_file():
                    shutil.copy2(path, temporary)
            _publish(temporary, final, replace=replace)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            recover_folder(final)
            raise


def verify_folder(folder: Path) -> None:
    """Check every byte of a committed folder against its manifest.

    Raises:
        ModelError: a file is missing, extra, changed or not a plain file, or the format is newer than ours;
            the message names the file and says which.
        ResourceError: the folder cannot be read.
    """
    with file_errors("read", folder):
        if not folder.is_dir():
            raise ModelError(f"{folder} is not there or is not a folder.")
        files = _read_manifest(folder)
        present = {entry.name for entry in folder.iterdir() if not _may_lie_beside(entry.name)} - {MANIFEST}
        for name in sorted(files.keys() - present):
            raise ModelError(f"{folder / name} is missing.")
        for name in sorted(present - files.keys()):
            raise ModelError(f"{folder / name} is an extra file that is not in {MANIFEST}.")
        for name, expected in files.items():
            _verify_file(folder / name, expected)


def recover_folder(final: Path) -> None:
    """Put the old folder back if a replacement was cut short between its two renames."""
    old = _old_beside(final)
    with file_errors("restore", final), contextlib.suppress(FileNotFoundError):  # another process was quicker
        if os.path.lexists(old) and not os.path.lexists(final):
            old.rename(final)


def discard_folder(folder: Path) -> None:
    """Delete a folder so that it vanishes at once: nobody ever sees half of it under its name."""
    with file_errors("delete", folder):
        temporary = temporary_beside(folder)
        shutil.rmtree(temporary, ignore_errors=True)
        folder.rename(temporary)
        shutil.rmtree(temporary)


def move_folder(folder: Path, new: Path) -> None:
    """Give a folder another name beside it, for good.

    Raises:
        ResourceError: the disk does not take it.
    """
    with file_errors("rename", folder):
        folder.rename(new)
        sync_folder(new.parent)


def remove_leftovers(parent: Path, *, is_locked: bool = False) -> None:
    """Clean up after killed processes; what a living one writes stays, unless a lock tells that none writes here."""
    with file_errors("clean up", parent):
        for old in list(parent.glob(".old-*")):
            recover_folder(parent / old.name.removeprefix(".old-"))
            if os.path.lexists(old):
                discard_folder(old)
        remove_temporaries(parent, is_locked=is_locked)


def _seal(folder: Path) -> None:
    """Flush every file, write the manifest over them, flush that and the folder."""
    # safetensors makes files that only their owner may read; the folder's own mode follows the user's umask
    mode = stat.S_IMODE(folder.stat().st_mode) & 0o666
    files = {}
    for path in sorted(folder.iterdir()):
        if not stat.S_ISREG(path.lstat().st_mode):
            raise ValueError(f"committed folder: got {path.name}, expected plain files only")
        path.chmod(mode)
        files[path.name] = {"size": path.stat().st_size, "sha256": _digest_and_sync(path)}
    write_json_atomic(folder / MANIFEST, {"format": FORMAT, "files": files})


def _publish(temporary: Path, final: Path, *, replace: bool) -> None:
    old = _old_beside(final)
    while True:
        if replace and os.path.lexists(final):
            if os.path.lexists(old):
                discard_folder(old)
            final.rename(old)
        try:
            temporary.rename(final)
            break
        except OSError as error:
            # between our two renames another process may have put the old folder back: go round again
            if not replace or error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
    sync_folder(final.parent)
    if os.path.lexists(old):
        try:
            discard_folder(old)
        except ResourceError as error:  # the new folder stands: that is what was asked for
            logger.warning("%s", error)


class _File(Saved, extra="forbid"):
    size: int
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


class _Manifest(Saved, extra="forbid"):
    format: Annotated[int, Field(ge=FORMAT, le=FORMAT)]
    files: dict[str, _File]


def _may_lie_beside(name: str) -> bool:
    """Tell of a card, and of what people have not made; macOS puts a ``._name`` beside each file that it copies."""
    return name in _LEFT_BY_FILE_BROWSERS or name in CARD or name.startswith("._")


def _read_manifest(folder: Path) -> dict[str, _File]:
    path = folder / MANIFEST
    if path.is_symlink():
        raise ModelError(f"{path} is not a plain file.")
    manifest = read_json(path)
    version = manifest.get("format") if isinstance(manifest, dict) else None
    if isinstance(version, int) and version > FORMAT:
        raise NewerFormatError(
            f"{path} has format {version}, this latentart reads up to {FORMAT}.", "Update latentart."
        )
    return read_saved(_Manifest, manifest, path).files


def _verify_file(path: Path, expected: _File) -> None:
    status = path.lstat()
    if not stat.S_ISREG(status.st_mode):
        raise ModelError(f"{path} is not a plain file.")
    if status.st_size != expected.size:
        raise ModelError(f"{path} has {status.st_size} bytes, expected {expected.size}.")
    if status.st_size > LARGE and 0 < getattr(status, "st_blocks", 0) * 512 < status.st_size // 16:
        raise ModelError(f"{path} is mostly a hole of {status.st_size} bytes: it is damaged.")
    if sha256_of(path) != expected.sha256:
        raise ModelError(f"{path} is damaged: its checksum (SHA-256) does not match.")


def _digest_and_sync(path: Path) -> str:
    with path.open("rb+") as file:
        digest = sha256_of(file)
        os.fsync(file.fileno())
    return digest


def _make_folder(folder: Path) -> None:
    if not folder.is_dir():
        _make_folder(folder.parent)
        folder.mkdir(exist_ok=True)
        sync_folder(folder.parent)


def _old_beside(final: Path) -> Path:
    final = named(final)
    return final.parent / f".old-{final.name}"
