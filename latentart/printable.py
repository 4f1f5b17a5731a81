"""What people read: text that may hold a stranger's file name, made safe to show, numbers of things, and times."""

from __future__ import annotations

import re

WITHIN = re.compile(  # part of what it stands in: joiners of Persian, Hindi and emoji, flags made of tags
    r"(?<=[^\0-\x7f])[\u200c\u200d](?=[^\0-\x7f])|(?<=\U0001f3f4)[\U000e0020-\U000e007e]+\U000e007f"
)


def printable(text: str) -> str:
    """Escape what could move a cursor, turn the text around, break a line or not be encoded."""
    if text.isprintable():  # nearly always; a page of charts has millions of letters
        return text
    whole = {i for found in WITHIN.finditer(text) for i in range(*found.span())}
    return "".join(c if c.isprintable() or c == "\u3000" or i in whole else _escape(c) for i, c in enumerate(text))


def _escape(letter: str) -> str:
    return letter.encode("unicode_escape").decode("ascii")


def counted(number: int, noun: str) -> str:
    """Return so many of something: 1 picture, 2,000 pictures."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def duration(seconds: float) -> str:
    """Return a time as people say it: 48 s, 3 min 30 s, 2 h 05 min, 3 d 4 h."""
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02} s"
    minutes = round(seconds / 60)
    if minutes < 48 * 60:
        return f"{minutes // 60} h {minutes % 60:02} min"
    hours = round(seconds / 3600)
    return f"{hours // 24} d {hours % 24} h"
