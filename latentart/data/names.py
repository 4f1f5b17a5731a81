"""When two names are one: spellings that a person cannot tell apart are one class, near ones are pointed out."""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable

LOOKALIKES = str.maketrans("авекмнорстухіαβεικνορτυχ", "abekmhopctyxiabeikvoptux")  # Cyrillic and Greek to Latin

HIDDEN = "a hidden file or folder, or one of the system"
SYSTEM_FOLDERS = (  # in small letters
    *("@eadir", "@recycle", "#recycle", "#snapshot", "$recycle.bin", "system volume information", "__macosx"),
    *("lost+found", "captureone"),
)
SYSTEM_ENDINGS = (".lrdata", ".lrcat-data")  # of Lightroom's previews


def one_spelling(name: str) -> str:
    """Return the spelling (Unicode NFC) of a name that several systems write in different bytes."""
    return unicodedata.normalize("NFC", name)


def near_names(names: Iterable[str]) -> list[list[str]]:
    """Return the groups of names that differ only in case, width, accents, punctuation or letters that look alike."""
    groups: dict[str, list[str]] = defaultdict(list)
    for name in sorted(set(names)):
        groups[_bare(name)].append(name)
    return [group for group in groups.values() if len(group) > 1]


def _bare(name: str) -> str:
    folded = unicodedata.normalize("NFKD", unicodedata.normalize("NFKC", name).casefold()).translate(LOOKALIKES)
    letters = (letter for letter in folded if unicodedata.category(letter) not in ("Cf", "Cc"))
    return re.sub(r"[\s\u0300-\u036f_\-\u2010-\u2015'‘’.,]+", "", "".join(letters)) or name


def is_hidden(name: str) -> bool:
    """Return whether a file or folder of this name is passed over: it begins with a dot, or some system keeps it."""
    if name.lower() in SYSTEM_FOLDERS or name.lower().endswith(SYSTEM_ENDINGS):
        return True
    return name.startswith(".") and bool(name.strip("."))  # "..." is a name as people give it
