"""The journal of cleaning, ``.clean.jsonl`` in the data folder: one line for each decision, written at once.

It is what lets a run that was killed go on, and a later run decide only what is new or changed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path

from latentart.data.clean_picture import Decision
from latentart.data.index import write_lines

JOURNAL = ".clean.jsonl"
OUR_PICTURE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*/[0-9a-f]{24}\.(jpg|png)")


def read_journal(out: Path) -> tuple[dict[str, Decision], set[str]]:
    """Return the last decision on each source, and every clean picture ever named; a cut line is passed over."""
    decisions: dict[str, Decision] = {}
    pictures: set[str] = set()
    with suppress(FileNotFoundError), (out / JOURNAL).open("rb") as lines:
        for line in lines:
            with suppress(ValueError, TypeError):
                decision = Decision(**json.loads(line))
                # a name read from disk must not lead out of the data folder
                if not decision.file or OUR_PICTURE.fullmatch(decision.file):
                    decisions[decision.source] = decision
                    pictures.add(decision.file)
    return decisions, pictures


@contextmanager
def open_journal(out: Path) -> Iterator[Callable[[Decision], None]]:
    """Give a function that notes a decision where it survives the death of this process."""
    out.mkdir(parents=True, exist_ok=True)
    with (out / JOURNAL).open("a", encoding="ascii", newline="\n") as file:

        def note(decision: Decision) -> None:
            file.write(f"{_line(decision)}\n")
            file.flush()

        if file.tell():
            file.write("\n")  # the last line may be cut
        yield note


def rewrite_journal(out: Path, decisions: Iterable[Decision]) -> None:
    """Replace the journal by these decisions, in the order of their sources."""
    write_lines(out / JOURNAL, map(_line, sorted(decisions, key=lambda decision: decision.source)))


def _line(decision: Decision) -> str:
    return json.dumps(asdict(decision))
