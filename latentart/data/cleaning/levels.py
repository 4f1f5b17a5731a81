"""Which level of folders is the class: what is said where the folders taken for styles hold nothing but folders."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from latentart.data.cleaning.raw_files import folders_at, list_folder
from latentart.errors import listed

DEEPEST = 8
SHOWN = 4


def doubt_level(raw: Path) -> list[str]:
    """Return a warning where folders directly in ``raw`` hold only folders, with what lies below, or none.

    Folders of artists within styles look the same as styles within train/ and val/: people decide, and are asked.
    """
    hollow = [folder for folder in folders_at(raw, 1) if _is_hollow(folder)]
    below, deeper = [one for folder in hollow for one in list_folder(folder)[0]], 2
    if not below:
        return []
    while deeper <= DEEPEST and all(map(_is_hollow, below)):
        below, deeper = [one for folder in below for one in list_folder(folder)[0]], deeper + 1
    who = "holds only folders and is" if len(hollow) == 1 else "hold only folders and are each"
    place = "deeper in" if deeper > 2 else "in it" if len(hollow) == 1 else "in them"
    advice = f"If those are the styles, set data.level={deeper}: folders of one name are joined; if not, data.level=1."
    return [f"{_listed(hollow)} {who} taken for a style; {place} lie {_listed(below)}. {advice}"]


def _is_hollow(folder: Path) -> bool:
    folders, files = list_folder(folder)
    return bool(folders) and not files


def _listed(folders: Sequence[Path]) -> str:
    return listed(list(map(repr, sorted({folder.name for folder in folders}))), SHOWN)
