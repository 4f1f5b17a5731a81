"""Cleaning: a raw folder of anything in, a folder of sound pictures for each style and their index out.

The raw folder is only ever read. Each file is decided once, in a worker process, and each decision is noted at
once, so that a run goes on where a killed one stopped.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TypeAlias

from latentart.data.cleaning.journal import JOURNAL, Journal, copy_journal, open_journal
from latentart.data.cleaning.label_table import (
    DEFAULT_LABEL,
    DEFAULT_TABLE,
    USUAL_LABELS,
    LabelChoice,
    Labels,
    read_labels,
)
from latentart.data.cleaning.levels import doubt_level, links_passed_over
from latentart.data.cleaning.picture import PARTS, CleanRules, Job, decide_pictures
from latentart.data.cleaning.raw_file import root_of_links
from latentart.data.cleaning.raw_files import check_folders, find_raw_files, find_styles
from latentart.data.cleaning.report import BESIDE, REMEDIES, CleanReport, count_reasons, make_report, write_report
from latentart.data.cleaning.table_paths import meet_files
from latentart.data.index import IndexEntry, read_index, write_index
from latentart.data.names import near_names, one_spelling
from latentart.data.slug import slugs
from latentart.errors import ConfigError, DataError, ResourceError
from latentart.printable import counted
from latentart.storage.json_files import HINTS
from latentart.storage.whole import remove_temporaries

INDEX = "index.jsonl"
OWN_NAMES = (INDEX, "report.json", "report.csv")
OnProgress: TypeAlias = Callable[[int, int], None]


def clean_folder(
    raw: Path,
    out: Path,
    rules: CleanRules,
    labels: LabelChoice = USUAL_LABELS,
    *,
    level: int | None = None,
    workers: int = 1,
    dry_run: bool = False,
    on_progress: OnProgress | None = None,
) -> CleanReport:
    """Turn a raw folder into a clean data set in ``out``, or only say what would become of it (``dry_run``).

    Without a table the folders ``level`` levels below ``raw`` are the styles; None is 1, with a warning where those
    hold only folders. Done again, it does only what is new, changed or gone. Files are decided in ``workers``
    processes under limits of time and memory; 0 decides in this one, without. ``on_progress`` is told (files decided,
    files in all).

    Raises:
        ConfigError: one of the folders lies in the other, or there is no such label.
        DataError: there is no raw folder, or no sound picture in it; an index that was there stays as it is.
        ResourceError: the data folder cannot be written, another process is writing it, or no worker can be started.
    """
    with _storage_errors_named(out):
        cleaning = Cleaning(*check_folders(raw, out), rules, labels, level)
        return cleaning.dry_run(workers, on_progress) if dry_run else cleaning.run(workers, on_progress)


class NothingKeptError(DataError):
    """There is no sound picture; ``report`` names every file and why."""

    def __init__(self, message: str, hint: str, report: CleanReport) -> None:
        super().__init__(message, hint)
        self.report = report


class Cleaning:
    """One cleaning of a raw folder, from its list of files to the index."""

    def __init__(self, raw: Path, out: Path, rules: CleanRules, labels: LabelChoice, level: int | None) -> None:
        self.raw, self.out, self.rules = raw, out, rules
        self.level, self.is_level_chosen = level or 1, level is not None
        if rules.link_root and not root_of_links(raw, rules.link_root).is_dir():
            place = str(root_of_links(raw, rules.link_root))
            msg = f"data.link_root is {rules.link_root!r}, but {place!r} is no folder."
            raise ConfigError(msg, "Name the folder that links lead into, relative to the raw one.")
        self.table, self.label = raw / labels.table, labels.label
        self.labels = _read_table(self.table, labels.label, raw)
        self.styles = find_styles(raw, self.labels, self.level, rules.link_root)
        self.folders: dict[str, str] = {}

    def dry_run(self, workers: int, on_progress: OnProgress | None) -> CleanReport:
        """Decide on every file and write nothing."""
        with copy_journal(self.out) as journal:
            self._list_files(journal)
            self._decide(journal, None, workers, on_progress)
            journal.settle(self.rules.near_duplicates)
            return self._report(journal)

    def run(self, workers: int, on_progress: OnProgress | None) -> CleanReport:
        """Decide on every file, write the clean pictures, and then the index and the report."""
        _refuse_strangers(self.out)
        with open_journal(self.out) as journal:
            self._list_files(journal)
            self._decide(journal, self.out, workers, on_progress)
            journal.settle(self.rules.near_duplicates)
            # a clean picture may have been deleted, or another one of several copies is now the one to keep
            journal.forget_unwritten(self.out, self.folders)
            if journal.num_undecided():
                self._decide(journal, self.out, workers, on_progress)
                journal.settle(self.rules.near_duplicates)
            shutil.rmtree(self.out / PARTS, ignore_errors=True)
            remove_temporaries(self.out)
            report = self._report(journal)
            write_index(self.out / INDEX, map(self._with_labels, journal.entries()))
            write_report(self.out, report)
            journal.remove_stale(self.out)
            return report

    def _list_files(self, journal: Journal) -> None:
        link_root, archives = self.rules.link_root, journal.archives(self.label)
        files = find_raw_files(self.raw, self.styles, self.labels, self.table, self.level, link_root, archives)
        journal.list_files(files, self.rules)
        if not journal.num_files():
            raise DataError(f"The raw folder {str(self.raw)!r} holds no files.", "Put your pictures there.")
        if self.labels is None and self.label != DEFAULT_LABEL and not journal.has_archives():
            msg = f"data.label is {self.label!r}, but there is no table of labels at {str(self.table)!r}."
            hint = "Put it there, name it with data.labels, or leave data.label out: folders are styles."
            raise ConfigError(msg, hint)
        if found := journal.styles():  # a raw folder without folders is a style if loose files are in it
            self.styles = sorted(found if self.styles == [one_spelling(self.raw.name)] else found.union(self.styles))
        self.folders = slugs(self.styles, taken=OWN_NAMES)

    def _decide(self, journal: Journal, out: Path | None, workers: int, on_progress: OnProgress | None) -> None:
        total, left = journal.num_files(), journal.num_undecided()
        jobs: Iterator[Job] = ((found, self.folders[found.style]) for found in journal.undecided())
        if not left:
            return
        for decision in decide_pictures(jobs, raw=self.raw, out=out, rules=self.rules, workers=workers):
            journal.note(decision)
            left -= 1
            if on_progress:
                on_progress(total - left, total)

    def _report(self, journal: Journal) -> CleanReport:
        dropped = journal.dropped()
        report = make_report(
            self.styles,
            journal.kept(),
            dropped=dropped,
            flagged=journal.flagged(),
            conflicts=journal.conflicts(),
            warnings=self._warnings(journal.hollow_archives()),
        )
        if not report.kept:
            reasons = count_reasons(dropped)
            reason, number = min(reasons.items(), key=lambda pair: pair[0] in BESIDE)  # the first that is none
            first = next(item for item in dropped if item.reason == reason)
            shown = "" if reason == "missing" else f", first {first.source!r} ({first.detail})"  # a table's words
            among = f"No sound picture among {counted(len(dropped), 'file')} in {str(self.raw)!r}"
            hint = REMEDIES["not_a_picture" if reason in BESIDE else reason]
            raise NothingKeptError(f"{among}: {number} dropped as {reason}{shown}.", hint, report)
        return report

    def _warnings(self, hollow: list[str]) -> list[str]:
        near = [
            f"{' and '.join(map(repr, group))} are styles of their own, though they look nearly the same: rename one?"
            for group in near_names(self.styles)
        ]
        if self.rules.link_root:
            place = str(root_of_links(self.raw, self.rules.link_root))
            near.append(f"Links are followed into {place!r} and nowhere else.")
        else:
            near += links_passed_over(self.raw)
        doubts = [] if self.is_level_chosen else doubt_level(self.raw, hollow)
        return [*(doubts if self.labels is None else self.labels.warnings), *near]

    def _with_labels(self, entry: IndexEntry) -> IndexEntry:
        return replace(entry, labels=self.labels.labels_of(entry.source)) if self.labels else entry


def _refuse_strangers(out: Path) -> None:
    """Refuse to write over files that are called like ours, in a folder that has no journal and no index of ours.

    Raises:
        ConfigError: there are such files.
    """
    names = [name for name in OWN_NAMES if os.path.lexists(out / name)]
    if not names or (out / JOURNAL).is_file():
        return
    try:
        read_index(out / INDEX)
    except DataError:
        msg = f"{str(out)!r} holds {names[0]!r}, which clean-data did not write and would write over."
        raise ConfigError(msg, "Set data.root, or --out, to another folder.") from None


def _read_table(table: Path, label: str, raw: Path) -> Labels | None:
    if table.is_symlink() or (table.exists() and not table.is_file() and not table.is_dir()):
        msg = f"The table of labels {str(table)!r} is a link, pipe or device."
        raise ConfigError(msg, "Put the file itself there.")
    if table.is_file():
        return meet_files(read_labels(table, label), raw, table)
    if table.name != DEFAULT_TABLE:
        raise ConfigError(f"There is no table of labels at {str(table)!r}.", "Set data.labels to its path.")
    return None


@contextmanager
def _storage_errors_named(out: Path) -> Iterator[None]:
    # a file that cannot be read is a decision: what comes here is about folders and writing
    try:
        yield
    except OSError as error:
        place = os.fsdecode(error.filename or out)
        raise ResourceError(f"{place!r}: {error.strerror or error}.", HINTS.get(error.errno or 0, "")) from error
