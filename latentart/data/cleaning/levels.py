"""Which level of folders is the class: what is said where the folders taken for styles hold no pictures but folders."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from latentart.data.cleaning.raw_file import follow
from latentart.data.cleaning.raw_files import folders_at, list_folder
from latentart.data.pictures.decode import open_regular_file
from latentart.data.pictures.formats import BadImage, may_be_picture
from latentart.data.pictures.other_kinds import PICTURE_ENDINGS
from latentart.errors import listed

DEEPEST = 8
SHOWN = 4
SPLITS = ("train", "training", "val", "valid", "validation", "dev", "test", "testing")


def doubt_level(raw: Path, hollow_archives: Sequence[str] = ()) -> list[str]:
    """Return warnings where folders directly in ``raw`` hold only folders, with what lies below, or are called train.

    Likewise of archives with one folder in them, as they are made of a folder.
    Folders of artists within styles look the same as styles within train/ and val/: people decide, and are asked.
    """
    if hollow_archives:
        names = listed([repr(raw.name if name == "." else name) for name in hollow_archives], SHOWN)
        advice = "If the folders in it are the styles, set data.level=2; if not, data.level=1."
        return [f"All that lies in {names} is in one folder, which is taken for a style. {advice}"]
    folders = folders_at(raw, 1)
    hollow = [folder for folder in folders if _is_hollow(folder)]
    splits = [folder for folder in folders if folder not in hollow and folder.name.casefold() in SPLITS]
    parts = f"{_listed(splits)}: parts of a data set by their names, but taken for styles. "
    told = [f"{parts}Give data.raw a folder for each style, or a table of labels."] if splits else []
    below, deeper = _folders_in(hollow), 2
    if not below:
        return told
    while deeper <= DEEPEST and all(map(_is_hollow, below)):
        below, deeper = _folders_in(below), deeper + 1
    who = "holds only folders and is" if len(hollow) == 1 else "hold only folders and are each"
    place = "deeper in" if deeper > 2 else "in it" if len(hollow) == 1 else "in them"
    advice = f"If those are the styles, set data.level={deeper}: folders of one name are joined; if not, data.level=1."
    if len(hollow) < len(folders):
        advice += (
            f" With {deeper} what lies higher, as in {_listed([one for one in folders if one not in hollow])}, goes."
        )
    told.append(f"{_listed(hollow)} {who} taken for a style; {place} lie {_listed(below)}. {advice}")
    if uneven := next((folder for folder in below if _is_hollow(folder)), None):
        told[-1] += f" For those in {uneven.relative_to(raw).as_posix()!r} alone, let data.raw lead there."
    return told


def links_passed_over(raw: Path) -> list[str]:
    """Return a warning of the links to folders directly in ``raw``, whose pictures a person may miss, or none."""
    others, root = [raw / name for name in list_folder(raw)[1]], raw.anchor or "/"
    links = [path for path in others if path.is_symlink() and path.is_dir() and follow(path, raw, root)]
    if not links:
        return []
    with suppress(ValueError):  # they lie on several disks
        root = os.path.relpath(os.path.commonpath([link.resolve().parent for link in links]), raw.resolve())
    who = "is a link and is" if len(links) == 1 else "are links and are"
    return [f"{_listed(links)} {who} not followed: data.link_root={root} lets links lead there."]


def _folders_in(folders: Sequence[Path]) -> list[Path]:
    return [one for folder in folders for one in list_folder(folder)[0]]


def _is_hollow(folder: Path) -> bool:
    folders, files = list_folder(folder)
    return bool(folders) and not any(_may_be_picture(folder / name) for name in files)


def _may_be_picture(path: Path) -> bool:
    if path.suffix:
        return path.suffix.lower() in PICTURE_ENDINGS
    with suppress(BadImage, OSError), open_regular_file(path) as file:  # LICENSE beside train/ and val/
        return may_be_picture(file.read(12))
    return False


def _listed(folders: Sequence[Path]) -> str:
    return listed(list(map(repr, sorted({folder.name for folder in folders}))), SHOWN)
