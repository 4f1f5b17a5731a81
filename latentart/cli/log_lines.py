"""What is logged, as lines on stderr; apart from the commands, as `logging` takes longer to load than help to show."""

from __future__ import annotations

import logging
import sys
import traceback
from types import TracebackType
from typing import Any, TextIO

from latentart.printable import printable


class PrintableFormatter(logging.Formatter):
    """Writes messages that are safe to show; a traceback below one keeps its lines."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's name
        """Return the message, made safe to show."""
        return printable(super().formatMessage(record))

    def formatException(self, ei: Any) -> str:  # noqa: N802 - logging's name
        """Return the traceback below a message."""
        return _printable_lines(super().formatException(ei))


class StderrHandler(logging.StreamHandler):  # type: ignore[type-arg]
    """Writes on what stderr is at that moment: while a bar is shown, that puts lines above it."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)

    @property
    def stream(self) -> TextIO:
        """The stream of now."""
        return sys.stderr


def write_traceback(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Write the traceback of a bug of ours, which may hold a stranger's words."""
    sys.stderr.write(_printable_lines("".join(traceback.format_exception(kind, error, trace))))


def _printable_lines(text: str) -> str:
    return "\n".join(map(printable, text.split("\n")))


def log_to_stderr(*, verbose: bool) -> None:
    """Write what is logged on stderr; ``verbose`` with every step of ours, and of libraries what they warn of."""
    handler = StderrHandler()
    handler.setFormatter(PrintableFormatter("%(message)s"))
    logging.basicConfig(level=logging.DEBUG if verbose else logging.INFO, handlers=[handler], force=True)
    logging.getLogger("PIL").setLevel(logging.WARNING)
    logging.getLogger("matplotlib").setLevel(logging.ERROR)  # it tells of its cache of fonts
