"""The members of archives among the raw files, and which style each belongs to."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from latentart.data.cleaning.archives.archive import list_members
from latentart.data.cleaning.archives.member import Member
from latentart.data.cleaning.label_table import DEFAULT_LABEL, Labels
from latentart.data.cleaning.raw_file import RawFile, real_file
from latentart.data.names import one_spelling
from latentart.data.pictures.decode import open_regular_file
from latentart.data.pictures.formats import BadImage

SHARD = re.compile(r"[-_.](\d{5,}|0\d*)(-of-\d+)?$")  # the number of one of many
Remember: TypeAlias = Callable[[RawFile, Iterator[Member]], Iterator[Member]]


@dataclass(frozen=True, slots=True)
class Archives:
    """How archives are read: ``label`` names the field that holds the style of a member.

    ``remember`` is given an archive and what lies in it, which it need not look at where it knows.
    """

    label: str = DEFAULT_LABEL
    remember: Remember | None = None

    def members_of(
        self, archive: RawFile, raw: Path, labels: Labels | None, level: int, link_root: str
    ) -> Iterator[RawFile]:
        """Yield what an archive holds, and the archive itself where it is damaged.

        The table of labels has the first word on a member's style, then the archive, then folders.
        """
        prefix = "" if archive.archive == "." else f"{archive.source}/"

        def read() -> Iterator[Member]:
            with open_regular_file(real_file(raw, archive.archive, link_root)) as file:
                yield from list_members(file, archive.source, self.label)

        try:
            for member in self.remember(archive, read()) if self.remember else read():
                source, reason, detail = prefix + member.name, member.reason, member.detail
                style = "" if reason else (labels.style_of(source) if labels else "") or member.label
                if not (reason or style or labels) and self.label == DEFAULT_LABEL:
                    style = _style_by_place(archive, member.name, level)
                if not (reason or style):
                    reason, detail = "no_style", f"neither its place nor a label tells its {self.label}"
                yield RawFile(
                    source, style, member.size, archive.mtime_ns, reason, detail, archive.archive, member.place
                )
        except BadImage as error:
            yield RawFile(archive.source, archive.style, reason=error.reason_code, detail=error.detail)


USUAL_ARCHIVES = Archives()


def _style_by_place(archive: RawFile, name: str, level: int) -> str:
    """Return the folder ``level`` levels down, as if the archive were what is in it, or else the archive's name."""
    folders = archive.archive.split("/")[:-1]
    parts = [*folders, *name.split("/")]
    if len(parts) > level:
        return one_spelling(parts[level - 1])
    stem = archive.source.rpartition("/")[2].rpartition(".")[0]
    return one_spelling(SHARD.sub("", stem) or stem) if len(folders) == level - 1 and "/" not in name else ""
