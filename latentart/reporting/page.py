"""Pages as files: HTML that needs nothing but itself, whatever the names in it are."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from latentart.errors import ResourceError, UsageError
from latentart.printable import printable
from latentart.reporting.thumbnails import Thumbnail
from latentart.storage.whole import whole_file

MARK = "<!-- made by latentart report; it may be replaced -->"


@dataclass(frozen=True)
class Preview:
    """A small copy of a page of previews, and the step it was drawn at."""

    step: int
    picture: Thumbnail


@dataclass(frozen=True)
class Page:
    """All that a page shows, as plain values.

    Attributes:
        verdict: its word, evidence and advice. verdicts: rows of those so far. facts, machine: names and values.
        charts: SVG of ours, by the sentence below it. notes: sentences about what could not be read.
        scores: one row of names, then a row for each evaluation. log, config: lines.
    """

    title: str
    subtitle: str
    verdict: tuple[str, str, str] | None = None
    facts: Mapping[str, str] = field(default_factory=dict)
    last_preview: Preview | None = None
    previews: Sequence[Preview] = ()
    charts: Mapping[str, str] = field(default_factory=dict)
    verdicts: Sequence[Sequence[str]] = ()
    scores: Sequence[Sequence[str]] = ()
    machine: Mapping[str, str] = field(default_factory=dict)
    config: Sequence[str] = ()
    log: Sequence[str] = ()
    notes: Sequence[str] = ()


def render(template: str, page: object) -> str:
    """Return a page; every name and number is made printable and escaped, and only the charts stand as they are."""
    environment = Environment(
        loader=PackageLoader("latentart.reporting", "."),
        autoescape=True,
        finalize=_to_printable,  # on every value; a filter could be forgotten
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(template).render(page=page, mark=MARK)


def _to_printable(value: Any) -> Any:
    return printable(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def write_page(path: Path, text: str) -> int:
    """Write a page whole, and return its size in bytes.

    Raises:
        ResourceError: the disk does not take it.
    """
    content = text.encode("utf-8", "backslashreplace")
    target = Path(os.path.realpath(path))  # a link stays one
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(target) as temporary:
            temporary.write_bytes(content)
    except OSError as error:
        msg = f"{path} cannot be written: {error.strerror or error}."
        raise ResourceError(msg, "Make room, or name another place with --out.") from None
    return len(content)


def require_replaceable(path: Path) -> None:
    """Refuse to write over what is no report.

    Raises:
        UsageError: something else has that name.
    """
    if not os.path.lexists(path):
        return
    is_ours = False
    with contextlib.suppress(OSError):
        if path.is_file():
            with path.open("rb") as file:
                is_ours = MARK.encode() in file.read(200)
    if not is_ours:
        raise UsageError(f"{path} exists and is no report of ours; it is not overwritten.", "Name another with --out.")
