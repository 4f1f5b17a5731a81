"""What is logged, as lines on stderr; apart from the commands, as `logging` takes longer to load than help to show."""

from __future__ import annotations

import logging
import sys

from latentart.printable import printable


class PrintableFormatter(logging.Formatter):
    """Writes messages that are safe to show; a traceback below one keeps its lines."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's name
        """Return the message, made safe to show."""
        return printable(super().formatMessage(record))


def log_to_stderr(*, verbose: bool) -> None:
    """Write what is logged on stderr; ``verbose`` with every step."""
    level = logging.DEBUG if verbose else logging.INFO
    logging.basicConfig(level=level, format="%(message)s", stream=sys.stderr, force=True)
    for handler in logging.getLogger().handlers:
        handler.setFormatter(PrintableFormatter())
    if not verbose:
        logging.getLogger("PIL").setLevel(logging.WARNING)
        logging.getLogger("matplotlib").setLevel(logging.ERROR)  # it tells of its cache of fonts
