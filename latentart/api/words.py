"""Errors in the words of Python: arguments where the command line has options."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator

from latentart.errors import LatentArtError
from latentart.process.memory import explaining_memory

# what an option is called here; others, as a container's, stay what they are
_ARGUMENTS = {"model": "folder", "config": "path"} | {
    name: name for name in ("data", "size", "steps", "device", "stage", "style", "autoguidance", "sampler", "spacing")
}
_OPTION = re.compile(
    r"`latentart [^`]*`|--(" + "|".join(_ARGUMENTS) + r")\b(?: (?:(\d+)x(\d+)|(\d+)|(cpu|all)|[A-Z]+\b))?"
)
# what has no argument here
_PHRASES = (
    ("the command line:", "the settings:"),
    (", or --out,", ""),
    ("with --allow-changed-data", "by `latentart train` with --allow-changed-data"),
    ("with --add-styles", "by `latentart train ldm` with --add-styles"),
)


@contextlib.contextmanager
def speaking_of_arguments() -> Iterator[None]:
    """Let a known error, memory that is full among them, name the arguments of a call.

    Raises:
        LatentArtError: the same one, in other words.
    """
    try:
        with explaining_memory():
            yield
    except LatentArtError as error:
        error.message, error.hint = map(_in_words, (error.message, error.hint))
        error.args = (f"{error.message} {error.hint}".strip(),)
        raise


def _in_words(text: str) -> str:
    for phrase, ours in _PHRASES:
        text = text.replace(phrase, ours)
    return _OPTION.sub(_to_argument, text)


def _to_argument(option: re.Match[str]) -> str:
    """Return an option with its value as an argument; commands stay."""
    name, width, height, number, word = option.groups()
    if name is None:
        return option[0]
    value = f"({width}, {height})" if width else number or (f'"{word}"' if word else "")
    return f"{_ARGUMENTS[name]}={value}" if value else _ARGUMENTS[name]
