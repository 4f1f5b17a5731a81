"""What lies in archives, kept in the journal: an unchanged one is not listed again, and memory stays flat."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator

from latentart.data.cleaning.archives.member import Member
from latentart.data.cleaning.database import decoded, encoded
from latentart.data.cleaning.raw_file import RawFile

LISTING = 1  # counts the changes of how archives are listed


class KnownArchives:
    """The archives of a raw folder and their members, in a journal's database."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._db = connection
        self._seen: set[bytes] = set()

    def members_of(self, archive: RawFile, listed: Iterator[Member], *, label: str) -> Iterator[Member]:
        """Yield an archive's members as they were listed before, or note them as they are listed.

        Of members of one name the first counts; the others get a number after their name and are dropped.
        """
        key, stamp = encoded(archive.archive), f"{LISTING}-{archive.size}-{archive.mtime_ns}-{label}"
        self._seen.add(key)
        if self._db.execute("SELECT 1 FROM archives WHERE source = ? AND stamp = ?", (key, stamp)).fetchone():
            query = "SELECT name, place, size, label, reason, detail FROM members WHERE archive = ? ORDER BY source"
            rows = self._db.execute(query, (key,))
            for name, place, size, known, reason, detail in rows:
                yield Member(decoded(name), place, size, decoded(known), reason, decoded(detail))
            return
        self._forget(key)
        for number, member in enumerate(listed, 1):
            if not self._note(archive, member):
                detail = "another file of that name comes before it in its archive"
                member = Member(f"{member.name}#{number}", size=member.size, reason="duplicate", detail=detail)
                self._note(archive, member)
            yield member
        self._db.execute("INSERT INTO archives VALUES (?, ?)", (key, stamp))

    def hollow(self) -> list[str]:
        """Return the archives, none of them in a folder, whose files all lie in folders of one and the same folder."""
        slash, first = "instr(name, x'2F')", "substr(name, 1, instr(name, x'2F'))"
        one = f"COUNT(DISTINCT {first}) = 1 AND MIN(instr(substr(name, {slash} + 1), x'2F') * {slash}) > 0"
        known = "FROM members WHERE reason = '' AND NOT length(label) AND NOT instr(archive, x'2F')"
        query = f"SELECT archive {known} GROUP BY archive HAVING {one}"
        return [decoded(key) for (key,) in self._db.execute(query)]

    def forget_others(self) -> None:
        """Forget the archives that were not asked for since last time."""
        for (key,) in self._db.execute("SELECT DISTINCT archive FROM members").fetchall():
            if key not in self._seen:
                self._forget(key)
        self._seen.clear()

    def _note(self, archive: RawFile, member: Member) -> bool:
        """Note a member, unless one of its name is there, and return whether it was."""
        name = encoded(member.name)
        key = encoded(archive.archive)
        source = name if archive.archive == "." else key + b"/" + name
        label, detail = encoded(member.label), encoded(member.detail)
        values = (source, key, name, member.place, member.size, label, member.reason, detail)
        return bool(self._db.execute("INSERT OR IGNORE INTO members VALUES (?, ?, ?, ?, ?, ?, ?, ?)", values).rowcount)

    def _forget(self, key: bytes) -> None:
        self._db.execute("DELETE FROM members WHERE archive = ?", (key,))
        self._db.execute("DELETE FROM archives WHERE source = ?", (key,))
