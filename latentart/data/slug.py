"""Folder names that are safe on every file system, made from style names as people write them."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable

from latentart.data.names import one_spelling
from latentart.printable import WITHIN

MAX_BYTES = 80
KEPT = ("Mn", "Mc", "Me", "So")
ODD = re.compile(rf"{WITHIN.pattern}|(?P<odd>[^\w.,'’()&!\U0001f3fb-\U0001f3ff-])")  # the last are tones of skin
SPACE = re.compile(r"(?<=[^ ])[ \u3000](?=[^ ])")
WINDOWS_DEVICE = re.compile(r"(con|prn|aux|nul|com[0-9¹²³]|lpt[0-9¹²³])(\..*)?", re.IGNORECASE)


def slug(name: str) -> str:
    """Return a safe file name for ``name``: itself if it is safe, else a cleaned form and 8 hex digits of its hash.

    At most 80 bytes of letters, digits, pictographs and ``_.-,'()&!``, never empty, never starting with ``.`` or ``-``,
    no Windows device. A space within becomes ``_`` and costs no hash; ``slugs`` keeps such names apart.
    """
    name = one_spelling(name)
    plain = SPACE.sub("_", name)
    safe = ODD.sub(_made_safe, plain)
    safe = re.sub(r"^[.-]", "_", safe)
    safe = re.sub(r"\.$", "_", safe)  # Windows drops a dot at the end
    if WINDOWS_DEVICE.fullmatch(safe):
        safe = f"_{safe}"
    return safe if safe and safe == plain and len(safe.encode()) <= MAX_BYTES else _with_hash(safe or "_", name)


def slugs(names: Iterable[str], taken: Iterable[str] = ()) -> dict[str, str]:
    """Return a slug for each name, all different from each other and from ``taken`` even where case is ignored."""
    found = {name: slug(name) for name in set(names)}
    used = Counter(map(_as_stored, (*found.values(), *taken)))
    return {name: safe if used[_as_stored(safe)] == 1 else _with_hash(safe, name) for name, safe in found.items()}


def _as_stored(safe: str) -> str:
    """Return a name as a file system may compare it: without its case and without joiners."""
    return re.sub("[\u200c\u200d]", "", safe.casefold())


def _made_safe(found: re.Match[str]) -> str:
    # marks belong to letters, and symbols without a use of their own (So) are pictographs, as emoji
    return "_" if found["odd"] and unicodedata.category(found["odd"]) not in KEPT else found[0]


def _with_hash(safe: str, name: str) -> str:
    digest = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:8]
    return f"{safe.encode()[: MAX_BYTES - 9].decode(errors='ignore')}-{digest}"
