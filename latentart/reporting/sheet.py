"""The contact sheet of a clean set: what was kept, flagged and dropped, and why, as one page that opens anywhere."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from latentart.data.cleaning.report import REMEDIES, read_rows
from latentart.data.index import IndexEntry, read_index
from latentart.data.pictures.decode import decode_image
from latentart.data.pictures.formats import BadImage
from latentart.printable import counted
from latentart.reporting.page import render, require_replaceable, write_page
from latentart.reporting.thumbnails import MAX_PIXELS, Thumbnail, thin_evenly, to_thumbnail

NAME = "sheet.html"
SIDE, MOST_BYTES = 144, 8000  # of one picture; a page of as many as there may be has some 8 MB
MOST_STYLES = 200
MOST_KEPT, MOST_OF_A_STYLE = 480, 16
MOST_FLAGGED, MOST_OF_A_REASON = 120, 16
SOUND = (
    "duplicate",
    "near_duplicate",
    "too_small",
    "extreme_aspect",
    "too_few_bytes",
)  # reasons of pictures to be seen
LIKE = ("looks like ", "same bytes as ")  # what a detail says before the other picture's name
THREADS = 2


@dataclass(frozen=True)
class Card:
    """A picture of the sheet, and the one that it is like; either is None where it cannot be shown."""

    name: str
    words: str
    picture: Thumbnail | None
    twin: Thumbnail | None = None
    twin_name: str = ""


@dataclass(frozen=True)
class Group:
    """Some pictures of one style or reason, of ``total``; ``words`` say what there is to do."""

    name: str
    total: int
    cards: Sequence[Card]
    words: str = ""


@dataclass(frozen=True)
class Sheet:
    """All that the page shows, as plain values; of ``parts``, each by its heading, every group has its own."""

    title: str
    subtitle: str
    facts: Mapping[str, str]
    notes: Sequence[str]
    parts: Mapping[str, Sequence[Group]] = field(default_factory=dict)


def require_place_for_sheet(data: Path) -> None:
    """Refuse to write over what is no sheet of ours.

    Raises:
        UsageError: something else lies where it would go.
    """
    require_replaceable(data / NAME)


def write_sheet(data: Path, raw: Path | None) -> Path:
    """Write the sheet of a clean set beside its report, over an older one, and return its path.

    What was dropped is looked for in ``raw``; without it, or where it is gone, its name alone is shown.

    Raises:
        DataError: there is no clean set, or its index or report is damaged.
        UsageError: something else lies where the page would go.
        ResourceError: the disk does not take it.
    """
    path = data / NAME
    require_replaceable(path)
    write_page(path, render("sheet.html.j2", build_sheet(data, raw)))
    return path


def build_sheet(data: Path, raw: Path | None) -> Sheet:
    """Return what the sheet of a clean set shows; raises as ``write_sheet``."""
    entries = read_index(data / "index.jsonl")
    by_source = {entry.source: entry for entry in entries}
    flagged, num_flagged = _first(read_rows(data / "report.json", "flagged"), MOST_FLAGGED)
    dropped, num_dropped = _first(read_rows(data / "report.json", "dropped"), MOST_OF_A_REASON)
    styles = _by_style(entries)
    each = max(1, min(MOST_OF_A_STYLE, MOST_KEPT // max(1, len(styles))))
    shown = thin_evenly(sorted(styles), MOST_STYLES)
    with ThreadPoolExecutor(THREADS) as pool:
        maker = _Maker(data, raw, by_source)
        kept = [
            Group(style, len(styles[style]), list(pool.map(maker.kept, thin_evenly(styles[style], each))))
            for style in shown
        ]
        parts = {
            "Kept": kept,
            "Flagged, and kept": [Group(r, num_flagged[r], list(pool.map(maker.row, flagged[r]))) for r in flagged],
            "Dropped": [
                Group(r, num_dropped[r], list(pool.map(maker.row, dropped[r])), REMEDIES.get(r, "")) for r in dropped
            ],
        }
    numbers = {"kept": len(entries), "flagged": sum(num_flagged.values()), "dropped": sum(num_dropped.values())}
    notes = []
    if len(shown) < len(styles):
        notes.append(f"Of {counted(len(styles), 'style')} {len(shown)} are shown.")
    if any(len(group.cards) < group.total for groups in parts.values() for group in groups):
        notes.append("Where there are many, a few are shown: each heading says how many of how many.")
    return Sheet(
        title=f"Pictures: {data.resolve().parent.name}",
        subtitle=f"{data} · {time.strftime('%Y-%m-%d %H:%M')}",
        facts={**{name: f"{number:,}" for name, number in numbers.items()}, "styles": f"{len(styles):,}"},
        notes=notes,
        parts={heading: groups for heading, groups in parts.items() if groups},
    )


@dataclass(frozen=True)
class _Maker:
    """Makes cards; a name never leads out of the folder that it belongs to."""

    data: Path
    raw: Path | None
    by_source: Mapping[str, IndexEntry]

    def kept(self, entry: IndexEntry) -> Card:
        name = entry.source.removeprefix(f"{entry.style}/")
        return Card(name, f"{entry.width} x {entry.height}", _small(self.data, entry.file))

    def row(self, row: Mapping[str, str]) -> Card:
        """Return the card of a flagged or dropped file, its other one beside it."""
        source, detail = row["source"], row["detail"]
        other = next((detail.removeprefix(words) for words in LIKE if detail.startswith(words)), "")
        twin = _small(self.data, self.by_source[other].file) if other in self.by_source else None
        if source in self.by_source:
            picture = _small(self.data, self.by_source[source].file)
        else:
            picture = _small(self.raw, source) if self.raw and row["reason"] in SOUND else None
        return Card(source, "" if other else detail, picture, twin, other)


def _first(rows: Iterator[dict[str, str]], most: int) -> tuple[dict[str, list[dict[str, str]]], dict[str, int]]:
    """Return the first rows of each reason, and how many it has in all."""
    found: dict[str, list[dict[str, str]]] = defaultdict(list)
    numbers: dict[str, int] = defaultdict(int)
    for row in rows:
        numbers[row["reason"]] += 1
        if len(found[row["reason"]]) < most:
            found[row["reason"]].append(row)
    return found, numbers


def _by_style(entries: Iterable[IndexEntry]) -> dict[str, list[IndexEntry]]:
    found: dict[str, list[IndexEntry]] = defaultdict(list)
    for entry in entries:
        found[entry.style].append(entry)
    return found


def _small(folder: Path, name: str) -> Thumbnail | None:
    """Return a small copy of a picture, None where there is none in that folder."""
    path = folder / name
    try:
        if not path.resolve().is_relative_to(folder.resolve()):
            return None
        picture = decode_image(path, max_pixels=MAX_PIXELS, max_side=SIDE)
    except (BadImage, OSError, ValueError):
        return None
    picture.thumbnail((2 * SIDE, SIDE))
    return to_thumbnail(picture, MOST_BYTES)
