"""The page of a report: HTML that needs nothing but itself, whatever the names in it are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from latentart.printable import printable
from latentart.reporting.thumbnails import Thumbnail

MARK = "<!-- made by latentart report; it may be replaced -->"
TEMPLATE = "page.html.j2"


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


def render(page: Page) -> str:
    """Return the page; every name and number is made printable and escaped, and only the charts stand as they are."""
    environment = Environment(
        loader=PackageLoader("latentart.reporting", "."),
        autoescape=True,
        finalize=_to_printable,  # on every value; a filter could be forgotten
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(TEMPLATE).render(page=page, mark=MARK)


def _to_printable(value: Any) -> Any:
    return printable(value) if isinstance(value, str) and not isinstance(value, Markup) else value
