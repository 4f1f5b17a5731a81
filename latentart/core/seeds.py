"""Seeds of pictures: a number, or a place between two others; as text, as plain values and as part of a file's name."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Any, TypeAlias

LARGEST_FIRST = 2**63  # of a call's first picture
LARGEST_WALKED = 2**40  # beyond it a float has no room left for what lies between two seeds
DEEPEST = 8  # places between places

_TEXT = re.compile(r"(\d{1,20}(?:\.\d{1,20})?)(?::(\d{1,20}(?:\.\d{1,20})?):(\d(?:\.\d{1,20})?))?")


@dataclass(frozen=True)
class Between:
    """A place ``share``, 0…1, of the way from the noise of seed ``start`` to that of ``end``, on the arc."""

    start: Seed
    end: Seed
    share: float


Seed: TypeAlias = float | Between  # 3.25 lies a quarter of the way from seed 3 to seed 4


def parse_seed(text: str) -> Seed:
    """Return the seed that a text spells: 7, 3.25, or 3:40:0.5, which lies halfway from seed 3 to seed 40.

    Raises:
        ValueError: it spells none, or one that is too large.
    """
    match = _TEXT.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"seed: got {text[:40]!r}, expected 7, 3.25 or 3:40:0.5")
    start, end, share = match.groups()
    if end is None:
        return _number(start)
    if float(share) > 1:
        raise ValueError(f"seed: got the share {share}, expected 0 to 1")
    return Between(_number(start), _number(end), float(share))


def _number(text: str) -> float:
    value = float(text) if "." in text else int(text)
    if value >= (LARGEST_WALKED if isinstance(value, float) else LARGEST_FIRST):
        raise ValueError(f"seed: got {text}, which is too large")
    return value


def seed_text(seed: Seed, mark: str = ":") -> str:
    """Return a seed as ``parse_seed`` takes it; ``mark`` stands between its parts."""
    if isinstance(seed, Between):
        return mark.join((seed_text(seed.start, mark), seed_text(seed.end, mark), f"{seed.share:.17g}"))
    return f"{seed:.17g}"


def seed_to_json(seed: Seed) -> Any:
    """Return a number, or [start, end, share]."""
    if isinstance(seed, Between):
        return [seed_to_json(seed.start), seed_to_json(seed.end), seed.share]
    return seed


def seed_from_json(value: Any, largest: int = LARGEST_FIRST, depth: int = 0) -> Seed:
    """Return what ``seed_to_json`` made.

    Raises:
        ValueError: it is something else, or out of range.
    """
    if isinstance(value, list):
        if len(value) != 3 or depth >= DEEPEST or type(value[2]) not in (int, float) or not 0 <= value[2] <= 1:
            raise ValueError(f"seed: got {str(value)[:40]}, expected [start, end, share]")
        start, end = (seed_from_json(part, largest, depth + 1) for part in value[:2])
        return Between(start, end, float(value[2]))
    limits = {int: largest, float: LARGEST_WALKED}
    if type(value) not in limits or not 0 <= value < limits[type(value)]:
        raise ValueError(f"seed: got {str(value)[:40]}, expected a number from 0 on")
    return value


def later_seed(seed: Seed, count: int) -> Seed:
    """Return the seed so many places further on; of a place between two, both go on."""
    if isinstance(seed, Between):
        return Between(later_seed(seed.start, count), later_seed(seed.end, count), seed.share)
    return seed + count


def is_between(seed: Seed) -> bool:
    """Tell whether a seed is no whole number."""
    return isinstance(seed, Between) or bool(seed % 1)


def first_after(seed: Seed) -> int:
    """Return the first whole seed that a seed does not use."""
    if isinstance(seed, Between):
        return max(first_after(seed.start), first_after(seed.end))
    return 1 + math.floor(seed)
