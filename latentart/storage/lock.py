"""The lock of a folder: one process works in it, and a lock that its holder left behind is told from one that is held.

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

from latentart.errors import ResourceError
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


@contextlib.contextmanager
def hold_lock(folder: Path) -> Iterator[None]:
    """Keep other processes out of a folder.

    Raises:
        ResourceError: another process, here or on another machine, has it, or the folder cannot be written.
    """
    lock = folder / LOCK
    try:
        while not _is_same(taken := _open(lock), lock):  # its former holder has just removed it
            os.close(taken[0])
        descriptor, is_sure = taken
        try:
            _require_free(lock, is_sure=is_sure)
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, json.dumps(asdict(myself())).encode(), 0)
        except BaseException:
            os.close(descriptor)
            raise
    except OSError as error:
        msg = f"{folder} cannot be written: {error.strerror}."
        raise ResourceError(msg, "Check who may use that folder, and whether its disk is full.") from None
    try:
        yield
    finally:
        if sys.platform == "win32":  # where a file that is open cannot be removed
            os.close(descriptor)
        with contextlib.suppress(OSError):
            lock.unlink()
        if sys.platform != "win32":
            os.close(descriptor)


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


def _open(lock: Path) -> tuple[int, bool]:
    """Open the file and lock it as long as it is open; return its descriptor and whether the system could do that."""
    descriptor = os.open(lock, os.O_RDWR | os.O_CREAT, 0o666)
    if sys.platform == "win32":
        return descriptor, False
    import fcntl

    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        holder = _read(lock)
        raise _in_use(lock, f"process {holder.pid}" if holder else "another process") from None
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            os.close(descriptor)
            raise
        return descriptor, False
    return descriptor, True


def _is_same(taken: tuple[int, bool], lock: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(taken[0]), lock.stat())
    except FileNotFoundError:
        return False


def _require_free(lock: Path, *, is_sure: bool) -> None:
    holder = _read(lock)
    if holder is None:
        return
    me = myself()
    is_same_boot = holder.boot is not None and holder.boot == me.boot
    if holder.host not in (None, me.host):
        if is_same_boot and is_sure:  # containers of one machine see each other's file locks under any host name
            return
        who = f"process {holder.pid} on the machine '{holder.host}'"
        raise _in_use(lock, who, "which cannot be asked from here")
    if holder.boot is not None and not is_same_boot:
        return
    if holder.pid == me.pid or not is_alive(holder.pid):
        return
    if holder.started is None or holder.started == process_start(holder.pid):
        raise _in_use(lock, f"process {holder.pid}")


def _read(lock: Path) -> Holder | None:
    """Return who is named in a lock; None where it is empty or nothing of ours."""
    try:
        value = json.loads(lock.read_bytes())
        return Holder(**value) if isinstance(value, dict) else Holder(int(value))
    except (OSError, ValueError, TypeError):
        return None


def _in_use(lock: Path, holder: str, more: str = "") -> ResourceError:
    msg = f"{lock.parent} is in use by {holder}{f', {more}' if more else ''}."
    return ResourceError(msg, f"Wait for it, or delete {lock} if it is gone.")
