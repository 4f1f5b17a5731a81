"""The journal of cleaning, ``.clean.sqlite`` in the data folder: every raw file, and what was decided on it, at once.

It is what lets a run that was killed go on, lets a later run decide only what is new or changed, and keeps memory flat
for any number of files. It holds nothing that cannot be made again from the raw folder.
"""

from __future__ import annotations

import os
import re
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import fields
from functools import partial
from operator import attrgetter
from pathlib import Path
from typing import Any

from latentart.data.cleaning.database import copy_database, decoded, encoded, open_database
from latentart.data.cleaning.known_archives import KnownArchives
from latentart.data.cleaning.near_duplicates import first_of_kind
from latentart.data.cleaning.picture import JUDGED, CleanRules, Decision, judge_again, stamp_of
from latentart.data.cleaning.raw_file import RawFile
from latentart.data.cleaning.raw_members import Archives
from latentart.data.cleaning.report import Conflict, Dropped
from latentart.data.index import IndexEntry, iterate_index
from latentart.errors import ConfigError, DataError
from latentart.kinds import NearDuplicates

JOURNAL = ".clean.sqlite"
OUR_PICTURE = re.compile(r"[^./\\-][^/\\\0]*/[0-9a-f]{24}\.(jpg|png)")
PAGE = 1000


MARKED = "SELECT source, style, mark, detail, twin FROM files JOIN marks USING (source) WHERE mark <> ''"
FLAT = "CAST('all one color' AS BLOB)"
KEPT = "reason = '' AND source NOT IN (SELECT source FROM marks WHERE is_dropped)"
DECIDED = tuple(item.name for item in fields(Decision))
COLUMNS = ", ".join(DECIDED)
VALUES, TEXTS = attrgetter(*DECIDED), {DECIDED.index("source"), DECIDED.index("detail")}


@contextmanager
def open_journal(out: Path) -> Iterator[Journal]:
    """Open the journal of a data folder, or begin one, and keep other processes out.

    Raises:
        ResourceError: another process cleans into this folder.
    """
    out.mkdir(parents=True, exist_ok=True)
    path = out / JOURNAL
    try:
        with open_database(path) as connection:
            journal = Journal(connection)
            journal.own(out / "index.jsonl")
            yield journal
    except (ConfigError, DataError):
        if list(out.iterdir()) == [path]:  # nothing was made and nothing was there before: leave no trace
            path.unlink()
            out.rmdir()
        raise


@contextmanager
def copy_journal(out: Path) -> Iterator[Journal]:
    """Open a copy of a data folder's journal that vanishes when it is closed; nothing is written to the folder."""
    with copy_database(out / JOURNAL) as connection:
        yield Journal(connection)


class Journal:
    """The raw files and what became of each, on disk."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._db, self._archives = connection, KnownArchives(connection)

    def own(self, index: Path) -> None:
        """Take the pictures of an index that was there before for ours, where the journal has been lost."""
        if not self._one("SELECT EXISTS (SELECT 1 FROM written)"):
            with suppress(DataError):  # there is no index yet, or a damaged one
                files = (entry.file for entry in iterate_index(index))
                ours = ((file,) for file in files if OUR_PICTURE.fullmatch(file))
                self._db.executemany("INSERT OR IGNORE INTO written VALUES (?)", ours)

    def list_files(self, files: Iterable[RawFile], rules: CleanRules) -> None:
        """Take the present list of raw files; what was decided before and has not changed stays decided."""
        with self._transaction():
            self._db.execute("DELETE FROM here")
            for found in files:
                self._db.execute("INSERT OR IGNORE INTO here VALUES (?)", (encoded(found.source),))
                if not self._is_settled(found, rules):
                    decision = self._known(found, rules)
                    self._put(found, decision or Decision(found.source, ""), todo=decision is None)
            self._db.execute("DELETE FROM files WHERE source NOT IN (SELECT source FROM here)")
            self._db.execute("DELETE FROM here")
            self._archives.forget_others()

    def archives(self, label: str) -> Archives:
        """Return how archives are read whose unchanged ones are known; ``label`` names the field of their styles."""
        return Archives(label, partial(self._archives.members_of, label=label))

    def has_archives(self) -> bool:
        """Tell whether some of the raw files lie in archives."""
        return bool(self._one("SELECT EXISTS (SELECT 1 FROM members)"))

    def hollow_archives(self) -> list[str]:
        """Return the archives whose files all lie in folders of one and the same folder."""
        return self._archives.hollow()

    def styles(self) -> set[str]:
        """Return the styles that raw files have."""
        return {decoded(style) for (style,) in self._db.execute("SELECT DISTINCT style FROM files WHERE length(style)")}

    def num_files(self) -> int:
        """Return how many raw files there are."""
        return self._one("SELECT COUNT(*) FROM files")

    def num_undecided(self) -> int:
        """Return how many of them are not decided yet."""
        return self._one("SELECT COUNT(*) FROM files WHERE todo")

    def undecided(self) -> Iterator[RawFile]:
        """Yield the raw files to decide on, in the order of names; they may be noted meanwhile."""
        last = b""
        while rows := self._db.execute(
            "SELECT source, style, files.size, mtime_ns, archive, place FROM files LEFT JOIN members USING (source) "
            "WHERE todo AND source > ? ORDER BY source LIMIT ?",
            (last, PAGE),
        ).fetchall():
            for source, style, size, mtime_ns, archive, place in rows:
                lies = {"archive": decoded(archive), "place": place} if archive else {}
                yield RawFile(decoded(source), decoded(style), size, mtime_ns, **lies)
            last = rows[-1][0]

    def note(self, decision: Decision) -> None:
        """Note a decision where it survives the death of this process."""
        with self._transaction():
            columns = ", ".join(f"{name} = ?" for name in DECIDED)
            self._db.execute(
                f"UPDATE files SET {columns}, todo = 0 WHERE source = ?",
                (*_row(decision), encoded(decision.source)),
            )
            if decision.num_bytes:
                self._db.execute("INSERT OR IGNORE INTO written VALUES (?)", (decision.file,))

    def settle(self, near_duplicates: NearDuplicates) -> None:
        """Settle which copies go: of equal files the first is kept, of those that look the same the largest."""
        with self._transaction():
            self._db.execute("DELETE FROM marks")
            twins = "SELECT source, MIN(source) OVER (PARTITION BY sha256) AS twin FROM files WHERE reason = ''"
            self._db.execute(
                f"INSERT INTO marks SELECT source, 'duplicate', 1, twin FROM ({twins}) WHERE twin <> source"
            )
            self._mark_near_duplicates(near_duplicates)

    def _mark_near_duplicates(self, near_duplicates: NearDuplicates) -> None:
        """Note what looks like what; where these are wanted, an empty mark is no remark, but the index tells them."""
        order = f"WHERE {KEPT} ORDER BY raw_width * raw_height DESC, source"
        mark, is_dropped = "" if near_duplicates == "keep" else "near_duplicate", near_duplicates == "drop"
        repeats = first_of_kind([phash for (phash,) in self._db.execute(f"SELECT phash FROM files {order}")])
        wanted = set(repeats) | set(repeats.values())
        names = self._db.execute(f"SELECT source FROM files {order}")
        sources = {place: source for place, (source,) in enumerate(names) if place in wanted}
        self._db.executemany(
            "INSERT INTO marks VALUES (?, ?, ?, ?)",
            [(sources[place], mark, is_dropped, sources[first]) for place, first in repeats.items()],
        )

    def forget_unwritten(self, out: Path, folders: dict[str, str]) -> None:
        """Ask for the kept pictures anew that are not in the data folder, or in another style's folder of it."""
        lost = []
        rows = self._db.execute(f"SELECT source, style, file, num_bytes FROM files WHERE {KEPT}")
        for source, style, file, num_bytes in rows:
            with suppress(OSError):
                is_in_place = file.startswith(f"{folders[decoded(style)]}/")
                if is_in_place and os.stat(f"{out}/{file}").st_size == num_bytes:  # noqa: PTH116 - a million times
                    continue
            lost.append((source,))
        with self._transaction():
            self._db.executemany("UPDATE files SET todo = 1 WHERE source = ?", lost)

    def entries(self) -> Iterator[IndexEntry]:
        """Yield the index of what is kept, without labels, in the order of styles and files."""
        like = "(SELECT sha256 FROM files AS other JOIN marks ON other.source = twin WHERE marks.source = files.source)"
        for source, style, *rest in self._db.execute(
            f"SELECT source, style, file, sha256, width, height, {like} FROM files WHERE {KEPT} ORDER BY style, file"
        ):
            file, sha256, width, height, twin = rest
            yield IndexEntry(file, decoded(source), decoded(style), sha256, width, height, twin=twin or "")

    def kept(self) -> dict[str, int]:
        """Return the number of pictures kept of each style that has any."""
        counts = self._db.execute(f"SELECT style, COUNT(*) FROM files WHERE {KEPT} GROUP BY style")
        return {decoded(style): count for style, count in counts}

    def dropped(self) -> list[Dropped]:
        """Return every file that is dropped."""
        alone = "SELECT source, style, reason, detail, NULL FROM files WHERE reason <> ''"
        return self._dropped(f"{alone} UNION ALL {MARKED} AND is_dropped ORDER BY 1")

    def flagged(self) -> list[Dropped]:
        """Return every file that is kept with a remark."""
        flat = f"SELECT source, style, 'blank', {FLAT}, NULL FROM files WHERE is_blank AND {KEPT}"
        return self._dropped(f"{flat} UNION ALL {MARKED} AND NOT is_dropped ORDER BY 3, 1")

    def conflicts(self) -> list[Conflict]:
        """Return the files with the same bytes that lie under several styles."""
        shared = "SELECT sha256 FROM files WHERE reason = '' GROUP BY sha256 HAVING COUNT(DISTINCT style) > 1"
        sources = "SELECT source FROM files WHERE reason = '' AND sha256 = ? ORDER BY source"
        return [
            Conflict(sha256, tuple(decoded(source) for (source,) in self._db.execute(sources, (sha256,))))
            for (sha256,) in self._db.execute(f"{shared} ORDER BY MIN(source)").fetchall()
        ]

    def remove_stale(self, out: Path) -> None:
        """Remove the pictures of ours that are no longer kept."""
        stale = f"SELECT file FROM written WHERE file NOT IN (SELECT file FROM files WHERE {KEPT})"
        with self._transaction():
            for (name,) in self._db.execute(stale).fetchall():
                if OUR_PICTURE.fullmatch(name):  # a name read from disk must not lead out of the data folder
                    (out / name).unlink(missing_ok=True)
                    with suppress(OSError):  # the folder holds other pictures
                        (out / name).parent.rmdir()
                self._db.execute("DELETE FROM written WHERE file = ?", (name,))

    def _is_settled(self, found: RawFile, rules: CleanRules) -> bool:
        """Return whether nothing about a file has changed, nor any rule that speaks on it."""
        row = self._db.execute(
            "SELECT style, stamp, reason, detail, raw_width, raw_height FROM files WHERE source = ? AND NOT todo",
            (encoded(found.source),),
        ).fetchone()
        if row is None or decoded(row[0]) != found.style:
            return False
        _, stamp, reason, detail, width, height = row
        if found.reason or not stamp:
            return (found.reason, found.detail, stamp) == (reason, decoded(detail), "")
        if stamp != stamp_of(found, rules, reason, width * height):
            return False
        return reason not in JUDGED or rules.refusal(found.size, width, height)[0] == reason

    def _known(self, found: RawFile, rules: CleanRules) -> Decision | None:
        """Return the decision that needs no look into the file: never to be opened, or decided and unchanged."""
        if found.reason:
            return Decision(found.source, "", found.reason, found.detail)
        row = self._db.execute(
            f"SELECT {COLUMNS} FROM files WHERE source = ? AND NOT todo",
            (encoded(found.source),),
        ).fetchone()
        if row is None:
            return None
        before = _decision(row)
        is_same = before.stamp == stamp_of(found, rules, before.reason, before.raw_pixels)
        return judge_again(before, found.size, rules) if is_same else None

    def _put(self, found: RawFile, decision: Decision, *, todo: bool) -> None:
        values = (encoded(found.style), found.size, found.mtime_ns, todo, *_row(decision))
        marks = ", ".join("?" * len(values))
        self._db.execute(
            f"INSERT OR REPLACE INTO files (style, size, mtime_ns, todo, {COLUMNS}) VALUES ({marks})",
            values,
        )

    def _dropped(self, query: str) -> list[Dropped]:
        about = {"duplicate": "same bytes as", "near_duplicate": "looks like"}
        return [
            Dropped(decoded(source), decoded(style), why, f"{about[why]} {decoded(twin)}" if twin else decoded(detail))
            for source, style, why, detail, twin in self._db.execute(query)
        ]

    def _one(self, query: str) -> Any:
        return self._db.execute(query).fetchone()[0]

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._db.execute("ROLLBACK")
            raise
        self._db.execute("COMMIT")


def _decision(row: Sequence[Any]) -> Decision:
    values = dict(zip(DECIDED, row, strict=True))
    texts = {"source": decoded(values["source"]), "detail": decoded(values["detail"])}
    return Decision(**{**values, **texts, "is_blank": bool(values["is_blank"])})


def _row(decision: Decision) -> tuple[Any, ...]:
    values = VALUES(decision)
    return tuple(encoded(value) if i in TEXTS else value for i, value in enumerate(values))
