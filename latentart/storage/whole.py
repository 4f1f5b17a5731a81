"""A file that is whole or not there: written beside its place under a temporary name, then renamed.

The name ``.tmp-<name>-<pid>`` says which process writes it: what a killed one left behind can be told from it.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shutil
from collections.abc import Container, Iterator
from pathlib import Path

from latentart.errors import ResourceError

_TEMPORARY = re.compile(r"\.tmp-(.+)-(\d{1,9})")


@contextlib.contextmanager
def whole_file(path: Path, *, is_durable: bool = False, inside: Path | None = None) -> Iterator[Path]:
    """Yield a temporary path; what is written there becomes ``path`` at the end, or goes if an error comes.

    At every instant ``path`` holds the old file or the new; with ``is_durable`` a power cut changes nothing in that.
    ``inside`` is another folder of the same disk for the temporary file.
    """
    temporary = temporary_beside(path if inside is None else inside / path.name)
    try:
        yield temporary
        put_in_place(temporary, path, is_durable=is_durable)
    finally:
        with contextlib.suppress(OSError):  # the error that matters is on its way
            temporary.unlink(missing_ok=True)


def require_place(path: Path, hint: str = "Name another place with --out.", shown: Path | None = None) -> None:
    """Find out whether ``path`` can be written before the work for it begins; nothing is left there.

    ``shown`` stands in its place in an error.

    Raises:
        ResourceError: a folder above it is a file, may not be written or takes no file of that name.
    """
    try:
        os.lstat(path.parent)  # a name that is too long, or below a file
    except FileNotFoundError:
        pass
    except OSError as error:
        raise ResourceError(f"{shown or path} cannot be written: {error.strerror}.", hint) from None
    above = path.absolute().parents or (path,)
    there = next(folder for folder in above if os.path.lexists(folder))  # also a link to nowhere
    probe = temporary_beside(there / named(path).name)
    try:
        probe.write_bytes(b"\0")  # a full disk still takes a name
    except OSError as error:
        raise ResourceError(f"{shown or path} cannot be written: {error.strerror}.", hint) from None
    finally:
        with contextlib.suppress(OSError):
            probe.unlink()


def require_file(path: Path) -> None:
    """Refuse a named pipe, on which whoever opens it waits, or a device, which may never end.

    Raises:
        OSError: so it is, or a folder, or that cannot be told.
    """
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if path.exists() and not path.is_file():
        raise OSError(errno.EINVAL, "it is no plain file", str(path))


def require_folders(*folders: Path) -> None:
    """Find out whether files can be written into folders, which may not be there yet; nothing is left there.

    Raises:
        ResourceError: one is a file, lies below one or may not be written.
    """
    for folder in folders:
        require_place(folder / "file", "Check who may use that folder, and what lies in its place.", shown=folder)


def put_in_place(temporary: Path, path: Path, *, is_durable: bool = True) -> None:
    """Rename a finished file to ``path``, over what is there."""
    if is_durable:
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
    try:
        temporary.replace(path)
    except OSError as error:  # it is named by what is in the way
        raise OSError(error.errno, error.strerror, str(path)) from None
    if is_durable:
        sync_folder(path.parent)


def temporary_beside(path: Path) -> Path:
    """Return the name under which this process writes what will be ``path``."""
    path = named(path)
    return path.parent / f".tmp-{path.name}-{os.getpid()}"


def named(path: Path) -> Path:
    """Return a path that ends in a name, so that another can stand beside it: ``.`` and ``..`` are resolved."""
    return path.resolve() if path.name in ("", "..") else path


def remove_temporaries(parent: Path, *, is_locked: bool = False, names: Container[str] | None = None) -> None:
    """Delete what killed processes were writing in a folder; a living one's stays, unless a lock says none writes here.

    Where others keep files too, ``names`` are those that were to be written.

    Raises:
        OSError: the folder cannot be read or changed.
    """
    for path in list(parent.glob(".tmp-*")):
        match = _TEMPORARY.fullmatch(path.name)
        if match is None or (names is not None and match[1] not in names):
            continue
        if is_locked or not is_alive(int(match[2])):
            shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)


def is_alive(process: int) -> bool:
    """Tell whether a process of that id runs; on Windows, where that cannot be asked, it always does.

    One that has ended and whose parent has not noticed yet does not run.
    """
    if os.name == "nt":  # there os.kill(pid, 0) ends the process
        return True
    if process <= 0:  # to kill(2) groups of processes
        return False
    try:
        os.kill(process, 0)
    except OverflowError:  # no system has so many
        return False
    except OSError as error:
        return error.errno != errno.ESRCH
    try:
        stat = Path(f"/proc/{process}/stat").read_text(encoding="latin-1")
    except OSError:  # another kind of system
        return True
    return stat.rpartition(")")[2].split()[0] not in "ZX"


def sync_folder(folder: Path) -> None:
    """Flush a folder, so that a new name in it outlives a power cut."""
    if os.name == "nt":  # Windows cannot open a folder
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # some network file systems cannot flush a folder
            raise
    finally:
        os.close(descriptor)
