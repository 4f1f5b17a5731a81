"""Locks: one process works in a folder or on a file, and a lock that its holder left behind is told from a held one.

The system frees a file lock with the process that held it. Where a file system has no such locks, or another machine
holds it, the process id, its start, the boot and the host name in the file say more than an id that another may have.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import socket
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from latentart.errors import ResourceError
from latentart.storage.json_files import object_in
from latentart.storage.whole import is_alive

LOCK = "lock"
_NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL}  # some network file systems


@dataclass(frozen=True)
class Holder:
    """Who holds a lock; ``started`` is its process's start in clock ticks since the boot, on Linux."""

    pid: int
    started: int | None = None
    boot: str | None = None
    host: str | None = None


class HeldError(Exception):
    """Another process has the lock; ``str`` names it."""


@contextlib.contextmanager
def hold_lock(folder: Path) -> Iterator[None]:
    """Keep other processes out of a folder.

    Raises:
        ResourceError: another process, here or on another machine, has it, or the folder cannot be written.
    """
    lock = folder / LOCK
    with contextlib.ExitStack() as stack:
        try:
            is_sure = take_file_lock(lock, stack)
            _require_free(lock, is_sure=is_sure)
            lock.write_text(json.dumps(asdict(myself())), encoding="ascii")
        except HeldError as error:
            hint = f"Wait for it, or delete {lock} if it is gone."
            raise ResourceError(f"{folder} is in use by {error}.", hint) from None
        except OSError as error:
            msg = f"{folder} cannot be written: {error.strerror}."
            raise ResourceError(msg, "Check who may use that folder, and whether its disk is full.") from None
        stack.callback(remove_file_lock, lock)
        yield


def find_holder(folder: Path) -> str | None:
    """Return who works in a folder, or may on another machine; None for nobody. Nothing is written or waited for."""
    try:
        _require_free(folder / LOCK, is_sure=False)
    except HeldError as error:
        return str(error)
    return None


def take_file_lock(lock: Path, stack: contextlib.ExitStack) -> bool:
    """Take the system's lock of a file until ``stack`` ends; return whether the system has such locks.

    Raises:
        HeldError: another process has it.
        OSError: the file cannot be written.
    """
    if not lock.parent.is_dir():  # filelock would make it
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
    if sys.platform == "win32":  # where a file that is locked can be neither written nor removed
        return False
    try:
        # a moment, for its former holder may just be removing it
        stack.enter_context(FileLock(lock, timeout=0.1, thread_local=False, fallback_to_soft=False))
    except Timeout:
        holder = _read(lock)
        raise HeldError(f"process {holder.pid}" if holder else "another process") from None
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
        return False
    return True


def remove_file_lock(lock: Path) -> None:
    """Remove the file of a lock that this process still holds, so that nobody finds it afterwards."""
    with contextlib.suppress(OSError):
        lock.unlink()


def myself() -> Holder:
    """Return what this process writes into a lock."""
    return Holder(os.getpid(), process_start(os.getpid()), _boot(), socket.gethostname())


def process_start(pid: int) -> int | None:
    """Return when a process began, in clock ticks since the boot; None where the system does not say."""
    try:
        return int(Path(f"/proc/{pid}/stat").read_text(encoding="latin-1").rpartition(")")[2].split()[19])
    except (OSError, ValueError, IndexError):
        return None


def _boot() -> str | None:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return None


def _require_free(lock: Path, *, is_sure: bool) -> None:
    holder = _read(lock)
    if holder is None:
        return
    me = myself()
    is_same_boot = holder.boot is not None and holder.boot == me.boot
    if holder.host not in (None, me.host):
        if is_same_boot and is_sure:  # containers of one machine see each other's file locks under any host name
            return
        raise HeldError(f"process {holder.pid} on the machine '{holder.host}', which cannot be asked from here")
    if holder.boot is not None and not is_same_boot:
        return
    if holder.pid == me.pid or not is_alive(holder.pid):
        return
    if holder.started is None or holder.started == process_start(holder.pid):
        raise HeldError(f"process {holder.pid}")


def _read(lock: Path) -> Holder | None:
    """Return who is named in a lock; None where it is empty or nothing of ours."""
    try:
        content = lock.read_bytes()
        about = object_in(content)
        holder = Holder(int(content)) if about is None else Holder(**about)
    except (OSError, ValueError, TypeError):
        return None
    return holder if type(holder.pid) is int else None
