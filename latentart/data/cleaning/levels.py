"""Which level of folders is the class: what is said where the folders taken for styles hold nothing but folders."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from latentart.data.cleaning.raw_files import folders_at, list_folder

DEEPEST = 8
SHOWN = 4


def doubt_level(raw: Path, level: int) -> list[str]:
    """Return a warning where folders at the ``level`` of the styles hold only folders, with what lies below, or none.

    Folders of artists within styles look the same as styles within train/ and val/: people decide, and are asked.
    """
    hollow = [folder for folder in folders_at(raw, level) if _is_hollow(folder)]
    below, deeper = [one for folder in hollow for one in list_folder(folder)[0]], level + 1
    if not below:
        return []
    while deeper < level + DEEPEST and all(map(_is_hollow, below)):
        below, deeper = [one for folder in below for one in list_folder(folder)[0]], deeper + 1
    who = "holds only folders and is" if len(hollow) == 1 else "hold only folders and are each"
    place = "in it" if deeper == level + 1 and len(hollow) == 1 else "in them" if deeper == level + 1 else "deeper in"
    advice = f"If those are the styles, set data.level={deeper}: folders of one name are joined."
    return [f"{_listed(hollow)} {who} taken for a style; {place} lie {_listed(below)}. {advice}"]


def _is_hollow(folder: Path) -> bool:
    folders, files = list_folder(folder)
    return bool(folders) and not files


def _listed(folders: Sequence[Path]) -> str:
    names = sorted({folder.name for folder in folders})
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(map(repr, names[:SHOWN])) + more
