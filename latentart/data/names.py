"""When two names are one: spellings that a person cannot tell apart are one class, near ones are pointed out."""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable

LOOKALIKES = str.maketrans("авекмнорстухіαβεικνορτυχ", "abekmhopctyxiabeikvoptux")  # Cyrillic and Greek to Latin


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
