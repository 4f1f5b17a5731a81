"""The database under the journal of cleaning: its tables, and how it is opened by one process at a time."""

from __future__ import annotations

import errno
import os
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory

from latentart.errors import ResourceError

# names are BLOBs, as they need not be UTF-8; todo: not decided yet; a reason says why a file is dropped by itself, a
# mark what only the whole set can tell; what lies in an archive is known by the stamp with which all of it was listed
VERSION = 1
SCHEMA = f"""
CREATE TABLE IF NOT EXISTS files (
    source BLOB PRIMARY KEY, style BLOB NOT NULL, size INTEGER, mtime_ns INTEGER, todo INTEGER,
    stamp TEXT, reason TEXT, detail BLOB, raw_width INTEGER, raw_height INTEGER, sha256 TEXT, phash TEXT,
    file TEXT, num_bytes INTEGER, width INTEGER, height INTEGER, is_blank INTEGER
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS by_sha256 ON files (sha256, source) WHERE reason = '';
CREATE INDEX IF NOT EXISTS by_todo ON files (source) WHERE todo;
CREATE TABLE IF NOT EXISTS archives (source BLOB PRIMARY KEY, stamp TEXT) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS members (
    source BLOB PRIMARY KEY, archive BLOB, name BLOB, place TEXT, size INTEGER, label BLOB, reason TEXT, detail BLOB
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS by_archive ON members (archive, source);
CREATE TABLE IF NOT EXISTS written (file TEXT PRIMARY KEY) WITHOUT ROWID;
CREATE TEMP TABLE here (source BLOB PRIMARY KEY) WITHOUT ROWID;
CREATE TEMP TABLE marks (source BLOB PRIMARY KEY, mark TEXT, is_dropped INTEGER, twin BLOB) WITHOUT ROWID;
PRAGMA user_version = {VERSION};
"""


@contextmanager
def open_database(path: Path) -> Iterator[sqlite3.Connection]:
    """Open a journal's database, or make it, and keep other processes out; a damaged one is made anew.

    Raises:
        ResourceError: another process has it open, or it cannot be written.
    """
    if not os.access(path.parent, os.W_OK):  # which the database would call an error of the disk
        raise PermissionError(errno.EACCES, "cannot be written", str(path.parent))
    try:
        connection = _connect(path)
    except sqlite3.OperationalError as error:
        if "locked" not in str(error):
            raise ResourceError(f"{str(path)!r}: {error}.") from error
        msg = f"another process is cleaning into {str(path.parent)!r}."
        raise ResourceError(msg, "Wait until it is done, then run the same command again.") from None
    except sqlite3.DatabaseError:  # damaged, or of another version: all in it can be made again
        path.unlink()
        path.with_name(f"{path.name}-wal").unlink(missing_ok=True)
        connection = _connect(path)
    with closing(connection):
        try:
            yield connection
        except sqlite3.DatabaseError as error:
            msg = f"{str(path)!r}: {error}."
            raise ResourceError(msg, "Free some space, or delete that file, and run the same command again.") from error


@contextmanager
def copy_database(path: Path) -> Iterator[sqlite3.Connection]:
    """Open a copy of a journal's database that vanishes when it is closed; an empty one if there is none to read."""
    with TemporaryDirectory() as folder:
        copy = Path(folder) / path.name
        for suffix in ("", "-wal"):  # of a run that was killed, or is still at work, most is in the log
            with suppress(OSError):
                shutil.copyfile(f"{path}{suffix}", f"{copy}{suffix}")
        with open_database(copy) as connection:
            yield connection


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, timeout=0, isolation_level=None)
    try:
        # one process at a time: so the write-ahead log needs no shared memory, which network disks lack
        connection.execute("PRAGMA locking_mode = EXCLUSIVE")
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")
        if connection.execute("PRAGMA user_version").fetchone()[0] not in (0, VERSION):
            raise sqlite3.DatabaseError("of another version")
        connection.executescript(SCHEMA)
    except BaseException:
        connection.close()
        raise
    return connection


def encoded(text: str) -> bytes:
    """Return a name as it is kept: whatever the system takes for one, it comes back the same."""
    return text.encode("utf-8", "surrogatepass")


def decoded(content: bytes) -> str:
    """Return a name that was kept."""
    return content.decode("utf-8", "surrogatepass")
