"""Cleaning: a raw folder of anything in, a folder of sound pictures for each style and their index out.

The raw folder is only ever read. Each file is decided once, in a worker process, and each decision is noted at
once, so that a run goes on where a killed one stopped. Which of several copies is kept is settled afterwards,
in the order of names, so that the index depends on neither workers nor interruptions.
"""

from __future__ import annotations

import os
import shutil
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Literal

from latentart.data.clean_journal import JOURNAL, OUR_PICTURE, open_journal, read_journal, rewrite_journal
from latentart.data.clean_picture import (
    PARTS,
    CleanRules,
    Decision,
    decide_picture,
    decide_pictures,
    stamp_of,
)
from latentart.data.clean_report import (
    REMEDIES,
    CleanReport,
    Conflict,
    Dropped,
    count_reasons,
    make_report,
    write_report,
)
from latentart.data.images import WHITE
from latentart.data.index import IndexEntry, read_index, write_index
from latentart.data.raw_files import RawFile, check_folders, find_raw_files
from latentart.data.slug import slugs
from latentart.errors import DataError, ResourceError

INDEX = "index.jsonl"
OWN_NAMES = (INDEX, "report.json", "report.csv")


def clean_folder(
    raw: Path,
    out: Path,
    *,
    min_bytes: int,
    min_side: int,
    max_side: int,
    max_aspect: float,
    file_format: Literal["jpeg", "png"] = "jpeg",
    quality: int = 95,
    background: tuple[int, int, int] = WHITE,
    workers: int = 1,
    dry_run: bool = False,
    on_progress: Callable[[int, int], None] | None = None,
) -> CleanReport:
    """Turn a raw folder into a clean data set in ``out``, or only say what would become of it (``dry_run``).

    Done again, it does only what is new, changed or gone. ``on_progress`` is told (files decided, files in all).

    Raises:
        ConfigError: one of the folders lies in the other.
        DataError: there is no raw folder, or no sound picture in it; an index that was there stays as it is.
        ResourceError: the data folder cannot be written, or a worker process was killed.
    """
    rules = CleanRules(min_bytes, min_side, max_side, max_aspect, file_format, quality, background)
    raw, out = check_folders(raw, out)
    with _storage_errors_named(out):
        styles, files = find_raw_files(raw)
        folders = slugs(styles, taken=OWN_NAMES)
        known, ours = read_journal(out)
        decisions = _known_decisions(files, known, rules)
        decide = partial(decide_picture, raw=raw, out=None if dry_run else out, rules=rules)

        def decide_each(undecided: Iterable[RawFile], note: Callable[[Decision], None]) -> None:
            jobs = [(found, folders[found.style]) for found in undecided]
            for decision in decide_pictures(jobs, decide, workers):
                decisions[decision.source] = decision
                note(decision)
                if on_progress:
                    on_progress(len(decisions), len(files))

        undecided = (found for found in files if found.source not in decisions)
        if dry_run:
            decide_each(undecided, _ignore)
            return _make_report(raw, styles, files, decisions)
        with open_journal(out) as note:
            decide_each(undecided, note)
            # a clean picture may have been deleted, or another one of several copies is now the one to keep
            decide_each(_not_written(out, files, decisions, folders), note)
        return _finish(raw, out, styles, files, decisions, ours)


def settle(
    files: Sequence[RawFile], decisions: dict[str, Decision]
) -> tuple[list[RawFile], list[Dropped], list[Conflict]]:
    """Return the files to keep, the files to drop, and the copies under several styles; the first copy is kept."""
    kept: list[RawFile] = []
    dropped: list[Dropped] = []
    copies: dict[str, list[RawFile]] = defaultdict(list)
    for found in files:
        decision = decisions[found.source]
        if decision.reason:
            dropped.append(Dropped(found.source, found.style, decision.reason, decision.detail))
            continue
        same = copies[decision.sha256]
        same.append(found)
        if same[0] is found:
            kept.append(found)
        else:
            detail = f"same bytes as {same[0].source}"
            dropped.append(Dropped(found.source, found.style, "duplicate", detail))
    conflicts = [
        Conflict(sha256, tuple(found.source for found in same))
        for sha256, same in copies.items()
        if len({found.style for found in same}) > 1
    ]
    return kept, dropped, conflicts


def _ignore(decision: Decision) -> None:
    """Note nothing: a dry run leaves no trace."""


@contextmanager
def _storage_errors_named(out: Path) -> Iterator[None]:
    # a file that cannot be read is a decision: what comes here is about folders and writing
    try:
        yield
    except OSError as error:
        place = os.fsdecode(error.filename or out)
        raise ResourceError(f"{place!r}: {error.strerror or error}.") from error


def _known_decisions(files: Iterable[RawFile], journal: dict[str, Decision], rules: CleanRules) -> dict[str, Decision]:
    """Return the decisions that need no look into the file: never to be opened, or decided before and unchanged."""
    decisions: dict[str, Decision] = {}
    for found in files:
        before = journal.get(found.source)
        if found.reason:
            decisions[found.source] = Decision(found.source, "", found.reason, found.detail)
        elif before and before.stamp == stamp_of(found, rules):
            decisions[found.source] = before
    return decisions


def _not_written(
    out: Path, files: Sequence[RawFile], decisions: dict[str, Decision], folders: dict[str, str]
) -> list[RawFile]:
    def is_written(decision: Decision, folder: str) -> bool:
        path = out / decision.file
        with suppress(OSError):
            return path.parent.name == folder and path.stat().st_size == decision.num_bytes
        return False

    kept, _, _ = settle(files, decisions)
    return [found for found in kept if not is_written(decisions[found.source], folders[found.style])]


def _make_report(
    raw: Path, styles: Iterable[str], files: Sequence[RawFile], decisions: dict[str, Decision]
) -> CleanReport:
    kept, dropped, conflicts = settle(files, decisions)
    if not kept:
        reason, number = next(iter(count_reasons(dropped).items()))
        raise DataError(
            f"No sound picture among the {len(files)} files in {str(raw)!r}: {number} dropped as {reason}.",
            REMEDIES[reason],
        )
    flagged = [
        Dropped(found.source, found.style, "blank", "all one color")
        for found in kept
        if decisions[found.source].is_blank
    ]
    kept_styles = (found.style for found in kept)
    return make_report(styles, kept_styles, dropped=dropped, flagged=flagged, conflicts=conflicts)


def _finish(
    raw: Path,
    out: Path,
    styles: Iterable[str],
    files: Sequence[RawFile],
    decisions: dict[str, Decision],
    ours: set[str],
) -> CleanReport:
    """Write index and reports, and only then remove the pictures of ours that are no longer in the index."""
    shutil.rmtree(out / PARTS, ignore_errors=True)
    try:
        report = _make_report(raw, styles, files, decisions)
    except DataError:
        if list(out.iterdir()) == [out / JOURNAL]:  # nothing was made and nothing was there before: leave no trace
            (out / JOURNAL).unlink()
            out.rmdir()
        raise
    entries = [
        IndexEntry(decision.file, found.source, found.style, decision.sha256, decision.width, decision.height)
        for found in settle(files, decisions)[0]
        for decision in [decisions[found.source]]
    ]
    with suppress(DataError):  # there is no index yet, or a damaged one
        ours |= {entry.file for entry in read_index(out / INDEX)}
    ours |= {decision.file for decision in decisions.values()}
    write_index(out / INDEX, sorted(entries, key=lambda entry: (entry.style, entry.file)))
    write_report(out, report)
    for name in filter(OUR_PICTURE.fullmatch, ours - {entry.file for entry in entries}):
        (out / name).unlink(missing_ok=True)
        with suppress(OSError):  # the folder holds other pictures
            (out / name).parent.rmdir()
    rewrite_journal(out, (decision for decision in decisions.values() if decision.stamp))
    return report
