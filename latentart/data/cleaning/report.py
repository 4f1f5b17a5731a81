"""What cleaning found, in numbers and by name, for people, programs and spreadsheets."""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from latentart.data.index import write_lines
from latentart.errors import DataError, listed
from latentart.printable import counted

SCHEMA = 1
AGAIN = "Run `latentart clean-data` again."
UNEVEN = 10  # largest style over smallest from which balanced sampling is worth a thought
MOST_NAMED = 10  # styles without a picture
REMEDIES = {
    "too_few_bytes": "Lower data.min_bytes if small files are sound pictures here.",
    "too_small": "Lower data.min_side if pictures this small are wanted.",
    "extreme_aspect": "Raise data.max_aspect if pictures this long are wanted.",
    "empty": "Copy or download the pictures again: nothing has arrived of them.",
    "not_a_picture": "Check that data.raw is the folder with the pictures.",
    "lfs_pointer": "Run `git lfs pull`, or `git annex get .`, where the pictures come from: these only point there.",
    "web_page": "Download the pictures themselves: their addresses led to pages or errors, as of a login.",
    "other_format": "Save them as PNG or JPEG with the program that makes them; the report names each format.",
    "sidecar": "Nothing: texts, settings and files of the system may lie beside pictures.",
    "hidden": "Nothing; or rename those that are pictures: what begins with a dot is passed over.",
    "truncated": "Copy or download the pictures again: their ends are missing.",
    "damaged": "Copy or download the pictures again: their content is damaged.",
    "bomb": "Nothing: small files that claim to be huge pictures, or unpack to huge ones of a single color.",
    "too_large": (
        "Save them as JPEG (baseline), PNG (not interlaced) or TIFF (in strips or tiles), which are read piece by "
        "piece; or raise data.max_pixels, for which each worker may take 12 bytes a pixel."
    ),
    "time_out": "Raise data.time_limit if pictures that take this long to decode are wanted.",
    "unreadable": "Check the permissions of the files in data.raw.",
    "not_a_regular_file": "Name the folder that links may lead into with data.link_root, or copy the pictures.",
    "no_style": "Move the pictures into one folder for each style, or name them in the table of labels.",
    "missing": "Check the paths in the table of labels: they are relative to data.raw.",
    "duplicate": "Remove the copies, or be content with one of each.",
    "near_duplicate": "Set data.near_duplicates to flag or keep if pictures that look alike are wanted.",
}

BESIDE = ("sidecar", "hidden")
"""Reasons of files that nobody meant as pictures: they count neither for nor against what is wrong with a folder."""


@dataclass(frozen=True, slots=True)
class Dropped:
    """A raw file that was dropped or flagged, and why; ``style`` is empty for loose files."""

    source: str
    style: str
    reason: str
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Conflict:
    """The same bytes under several styles; the first of ``sources`` was kept."""

    sha256: str
    sources: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Balance:
    """How evenly the pictures are spread over the styles that have any."""

    num_styles: int
    smallest: str
    fewest: int
    largest: str
    most: int

    def __str__(self) -> str:
        if self.num_styles == 1:
            return f"1 style with {counted(self.most, 'picture')}"
        names = f"{self.fewest} ({self.smallest}) to {self.most} ({self.largest})"
        return f"{self.num_styles} styles with {names} pictures each, 1 to {self.most / self.fewest:.3g}"


@dataclass(frozen=True, kw_only=True)
class CleanReport:
    """Outcome of one cleaning; ``styles`` holds, for each style, the numbers kept and dropped for each reason."""

    kept: int
    styles: dict[str, Counter[str]]
    dropped: list[Dropped]
    flagged: list[Dropped]
    conflicts: list[Conflict]
    warnings: list[str]

    @property
    def num_dropped(self) -> int:
        """Return how many files were dropped."""
        return len(self.dropped)

    @property
    def reasons(self) -> dict[str, int]:
        """Return how many files were dropped for each reason, most common first."""
        return count_reasons(self.dropped)

    @property
    def balance(self) -> Balance | None:
        """Return the sizes of the smallest and the largest style; None where nothing was kept."""
        sizes = sorted((counts["kept"], style) for style, counts in self.styles.items() if counts["kept"])
        if not sizes:
            return None
        (fewest, smallest), (most, largest) = sizes[0], sizes[-1]
        return Balance(len(sizes), smallest, fewest, largest, most)

    def to_json(self) -> dict[str, Any]:
        """Return the report as plain lists and dicts; dump it with ``ensure_ascii`` for names that are not UTF-8."""
        return {
            "schema": SCHEMA,
            "kept": self.kept,
            "num_dropped": self.num_dropped,
            "reasons": self.reasons,
            "styles": {
                style: {
                    "kept": counts["kept"],
                    "dropped": {reason: n for reason, n in sorted(counts.items()) if reason != "kept"},
                }
                for style, counts in self.styles.items()
            },
            "balance": asdict(self.balance) if self.balance else None,
            "dropped": [_row(item) for item in self.dropped],
            "flagged": [_row(item) for item in self.flagged],
            "conflicts": [{"sha256": item.sha256, "sources": list(item.sources)} for item in self.conflicts],
            "warnings": self.warnings,
        }


def make_report(
    styles: Iterable[str],
    kept: Mapping[str, int],
    *,
    dropped: list[Dropped],
    flagged: list[Dropped],
    conflicts: list[Conflict],
    warnings: Iterable[str] = (),
) -> CleanReport:
    """Count and put in order; ``kept`` holds how many pictures of each style are kept; ``warnings`` come first."""
    counts: dict[str, Counter[str]] = {style: Counter() for style in sorted(styles)}
    for style, number in kept.items():
        counts[style]["kept"] = number
    for item in dropped:
        if item.style in counts:
            counts[item.style][item.reason] += 1
    num_kept = sum(kept.values())
    all_warnings = [*warnings, *_warnings(num_kept, counts, dropped)]
    return CleanReport(
        kept=num_kept, styles=counts, dropped=dropped, flagged=flagged, conflicts=conflicts, warnings=all_warnings
    )


def count_reasons(dropped: Iterable[Dropped]) -> dict[str, int]:
    """Return how many files were dropped for each reason, most common first."""
    counts = Counter(item.reason for item in dropped)
    return dict(sorted(counts.items(), key=lambda pair: (-pair[1], pair[0])))


def write_report(out: Path, report: CleanReport) -> None:
    """Write ``report.json`` and ``report.csv``, the latter with the dropped files only."""
    write_lines(out / "report.json", _json_lines(report.to_json()))
    table = io.StringIO()
    writer = csv.writer(table, quoting=csv.QUOTE_ALL, lineterminator="\n")
    writer.writerow(["source", "reason", "detail"])
    writer.writerows([_safe_cell(cell) for cell in _row(item).values()] for item in report.dropped)
    write_lines(out / "report.csv", [table.getvalue().removesuffix("\n")])


def _json_lines(values: Mapping[str, Any]) -> Iterator[str]:
    """Yield an object's text with each item of what it holds in a line; to have Python indent a million takes long."""
    for number, (name, held) in enumerate(values.items()):
        start = f"{',' if number else '{'}{json.dumps(name)}: "
        if not isinstance(held, (list, dict)) or not held:
            yield f"{start}{json.dumps(held)}"
            continue
        items: Iterator[str] = map(json.dumps, held)
        if isinstance(held, dict):
            items = (f"{json.dumps(key)}: {json.dumps(value)}" for key, value in held.items())
        yield start + ("[" if isinstance(held, list) else "{")
        yield f" {next(items)}"
        yield from (f",{item}" for item in items)
        yield "]" if isinstance(held, list) else "}"
    yield "}"


def read_rows(path: Path, name: str) -> Iterator[dict[str, str]]:
    """Yield the files that a ``report.json`` has as ``dropped`` or ``flagged``, one line of it at a time.

    Raises:
        DataError: it cannot be read, or is not such as ``write_report`` writes.
    """
    try:
        with path.open(encoding="utf-8") as file:
            start = next(line for line in file if line.startswith(f',"{name}": ['))
            for line in file if start.endswith("[\n") else ():
                if line == "]\n":
                    break
                row = json.loads(line[1:])
                yield {key: str(row[key]) for key in ("source", "reason", "detail")}
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}.", AGAIN) from None
    except (StopIteration, ValueError, LookupError, TypeError, RecursionError):
        raise DataError(f"{path} is damaged, or of an older form.", AGAIN) from None


def _warnings(kept: int, styles: dict[str, Counter[str]], dropped: list[Dropped]) -> list[str]:
    bare = [(style, counts.total()) for style, counts in styles.items() if not counts["kept"]]
    found = [f"Style {style!r} has no sound picture among {n}: it will not be a class." for style, n in bare]
    if len(bare) > MOST_NAMED:
        names = listed([repr(style) for style, _ in bare], MOST_NAMED)
        found = [f"{len(bare)} styles have no sound picture, and will be no classes: {names}."]
    sizes = {style: counts["kept"] for style, counts in styles.items() if counts["kept"]}
    if len(sizes) == 1:
        (only,) = sizes
        found.append(f"There is only one style, {only!r}: a model can learn it, but has nothing to choose from.")
    if sizes and max(sizes.values()) >= UNEVEN * min(sizes.values()):
        found.append("The styles are uneven: data.balance_styles=true lets training see every style equally often.")
    reasons = {reason: number for reason, number in count_reasons(dropped).items() if reason not in BESIDE}
    for reason, number in reasons.items():
        if number > (kept + sum(reasons.values())) / 2:
            found.append(f"More than half of the files were dropped as {reason} ({number}). {REMEDIES[reason]}")
    return found


def _row(item: Dropped) -> dict[str, str]:
    return {"source": item.source, "reason": item.reason, "detail": item.detail}


def _safe_cell(text: str) -> str:
    # a spreadsheet runs a cell that starts like a formula
    return f"'{text}" if text.lstrip()[:1] in tuple("=+-@") or text[:1] in tuple("\t\r\n") else text
