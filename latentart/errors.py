"""Errors a user can mend: each is one line that says what, where and what to do, and has its own exit code.

Core code raises ``ValueError`` (what, got, expected). The rest of the app raises children of
``LatentArtError``; ``latentart.cli.main`` is the one place that catches them.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence
from itertools import islice

COMPARED, MOST_COMPARED = 100, 2000  # letters, names


class LatentArtError(Exception):
    """A known error: ``message`` says what and where, ``hint`` says what to do next."""

    exit_code = 1

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(f"{message} {hint}".strip())
        self.message = message
        self.hint = hint


def extra(name: str) -> str:
    """Return the command that installs an extra; no index has a package of ours to name."""
    return f'`pip install ".[{name}]"` in the folder that latentart was installed from'


class UsageError(LatentArtError):
    """The command line asks for something that does not exist."""

    exit_code = 2


class ConfigError(LatentArtError):
    """The config is wrong or missing."""

    exit_code = 3


class DataError(LatentArtError):
    """The pictures are missing, unreadable or changed."""

    exit_code = 4


class ResourceError(LatentArtError):
    """Disk, memory, device, permission or port."""

    exit_code = 5


class ModelError(LatentArtError):
    """A checkpoint or model folder is missing, damaged or does not fit."""

    exit_code = 6


class TrainingDivergedError(LatentArtError):
    """The numbers of a training run are no longer finite."""

    exit_code = 7


class DownloadError(LatentArtError):
    """A file that has to be downloaded is not here."""

    exit_code = 8


class StoppedBySignal(LatentArtError):  # noqa: N818 - not an error: the run was asked to stop
    """A run ended early because a signal asked for it; its checkpoint is saved."""

    def __init__(self, message: str, signal_number: int) -> None:
        super().__init__(message, "Run the same command again to go on.")
        self.exit_code = 128 + signal_number


def nearest(name: str, known: Iterable[str]) -> str:
    """Return ``" Did you mean 'x'?"`` for the known name nearest to ``name``, or an empty string.

    Of very many or very long names only the first are looked at: comparing takes time.
    """
    by_folded = {item[:COMPARED].casefold(): item for item in islice(known, MOST_COMPARED)}
    close = difflib.get_close_matches(name[:COMPARED].casefold(), by_folded, n=1, cutoff=0.5)
    return f" Did you mean '{by_folded[close[0]]}'?" if close else ""


def listed(names: Sequence[str], most: int = 100) -> str:
    """Return names with commas between them, the first ``most`` of them and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(map(shortened, names[:most])) + more


def shortened(name: str) -> str:
    """Return a name of any length as a line can show it."""
    return name if len(name) <= COMPARED else f"{name[:COMPARED]}…"


_PLAIN = (
    ("Value error, ", ""),
    ("Input should be greater than or equal to", "must be at least"),
    ("Input should be less than or equal to", "must be at most"),
    ("Input should be greater than", "must be more than"),
    ("Input should be a valid integer.*", "must be a whole number"),
    ("Input should be a valid number.*", "must be a number"),
    ("Input should be a valid boolean.*", "must be true or false"),
    ("Input should be a valid string", "must be text"),
    ("Input should be a valid (array|list|tuple)", "must be a list"),
    ("Input should be (an object|a valid dictionary.*)", "must be a group of settings"),
    ("Input should", "must"),
    ("Field required", "is missing"),
    (r"String should match pattern .*", "has a letter that may not stand there"),
    (r"String should have (at \w+ \d+) character(s?)", r"must have \1 letter\2"),
    (r"\w+ should have (at \w+ \d+ items?) after validation, not .*", r"must have \1"),
)


def plain(complaint: str) -> str:
    """Return what pydantic, or the reader of the command line, finds wrong in words for people."""
    for theirs, ours in _PLAIN:
        complaint = re.sub(theirs, ours, complaint)
    return complaint
