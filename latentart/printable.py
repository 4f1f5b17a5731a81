"""Text that may hold a stranger's file name, made safe to show."""

from __future__ import annotations

import logging


def printable(text: str) -> str:
    """Escape what could move a cursor, turn the text around, break a line or not be encoded."""
    if text.isprintable():  # nearly always; a page of charts has millions of letters
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


class PrintableFormatter(logging.Formatter):
    """Writes messages so; a traceback below one keeps its lines."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's name
        """Return the message, made safe to show."""
        return printable(super().formatMessage(record))
