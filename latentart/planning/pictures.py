"""The pictures that `latentart plan` tries a training with: some of the clean set, or cleaned for it from raw files."""

from __future__ import annotations

import csv
import os
import shutil
import time
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from latentart.data.cleaning.label_table import DEFAULT_TABLE, Labels, read_labels
from latentart.data.cleaning.raw_file import RawFile, open_raw
from latentart.data.cleaning.raw_files import find_raw_files, find_styles, is_raw
from latentart.data.cleaning.raw_members import Archives
from latentart.data.cleaning.table_paths import meet_files
from latentart.data.held_out import split_held_out
from latentart.data.index import IndexEntry, read_index, write_index
from latentart.data.pictures.formats import BadImage
from latentart.data.pictures.other_kinds import name_other_kind
from latentart.errors import DataError
from latentart.layout import Workspace
from latentart.planning.estimate import line_through
from latentart.workspace.clean_data import READ, clean_into

RAW_SAMPLE = 48  # files that are cleaned to see what cleaning costs and leaves
RAW_FEW = 8
MOST_PICTURES = 2048  # that a trial of the autoencoder may draw from: its end scores as many as a real one


@dataclass(frozen=True)
class Pictures:
    """The pictures that there are, or will be.

    Attributes:
        entries: some real ones to try with, of which ``root`` is the folder.
        count, num_training, num_held_out, num_styles: of the whole set; estimated where it is not cleaned yet.
        clean_seconds, clean_bytes: what cleaning the rest will take; 0 where it is done.
        clean_rate: files cleaned a second, beyond what the first few take.
    """

    root: Path
    entries: list[IndexEntry]
    count: int
    num_training: int
    num_held_out: int
    num_styles: int
    raw_files: int = 0
    clean_seconds: float = 0.0
    clean_bytes: int = 0
    clean_rate: float = 0.0


def find_pictures(workspace: Workspace, scratch: Path) -> Pictures:
    """Return the clean set, else an estimate from a sample of the raw folder, which is cleaned into ``scratch``.

    Raises:
        DataError: there is neither, or none of the sample is a sound picture.
    """
    if (workspace.data / "index.jsonl").is_file():
        entries, styles = workspace.read_pictures()
        training, held_out = split_held_out(entries, workspace.config.data.held_out)
        return Pictures(workspace.data, entries, len(entries), len(training), len(held_out), len(styles))
    return sample_raw(workspace, scratch)


def sample_raw(workspace: Workspace, scratch: Path) -> Pictures:
    """Clean a few of the raw files into ``scratch``, then more of them; return what all will come to.

    Raises:
        DataError: there is no raw folder, no file in it, or no sound picture among the sample.
    """
    raw, config = workspace.raw, workspace.config.data
    if not is_raw(raw):
        msg = f"there is neither a clean set at {workspace.data} nor a raw folder at {raw}."
        raise DataError(msg, "Put your pictures into it, one folder per style, or set data.raw.")
    workspace.name_outside(*READ)
    table = raw / config.labels
    labels = meet_files(read_labels(table, config.label), raw, table) if table.is_file() else None
    named = find_styles(raw, labels, config.style_level, config.link_root)
    archives = Archives(config.label)
    walk = find_raw_files(raw, named, labels, table, config.style_level, config.link_root, archives)
    meant = [one for one in walk if not one.reason and name_other_kind(b"", one.source)[0] != "sidecar"]  # by names
    files = sorted((one for one in meant if one.size < 0 or one.size >= config.min_bytes), key=lambda one: one.source)
    if not files:
        msg = f"there is no file in {raw} that could be a picture."
        raise DataError(msg, "Put your pictures into it, one folder per style, or set data.raw.")
    settings = config.model_copy(update={"link_root": "", "labels": DEFAULT_TABLE})
    timed: list[tuple[float, float]] = []
    sample: list[RawFile] = []
    for number in sorted({min(RAW_FEW, len(files)), min(RAW_SAMPLE, len(files))}):
        folder = scratch / f"raw-{number}"
        sample = [files[i * len(files) // number] for i in range(number)]
        _copy(sample, raw, folder, config.link_root, labels or config.label)
        began = time.monotonic()
        clean_into(folder, scratch / f"data-{number}", settings, quiet=True)
        timed.append((number, time.monotonic() - began))
    seconds = line_through(timed[0] if len(timed) > 1 else None, timed[-1], len(files))
    root = scratch / f"data-{len(sample)}"
    entries = read_index(root / "index.jsonl")
    count = max(1, round(len(files) * len(entries) / len(sample)))
    size = sum((root / entry.file).stat().st_size for entry in entries) * count // max(1, len(entries))
    held_out = len(split_held_out(_as_many(entries, count), config.held_out)[1])
    rate = rate_beyond(timed)
    styles = {one.style for one in files}
    return Pictures(root, entries, count, count - held_out, held_out, len(styles), len(files), seconds, size, rate)


def _copy(sample: list[RawFile], raw: Path, folder: Path, link_root: str, labels: Labels | str) -> None:
    """Copy raw files with a table of their labels, under names of ours: those in archives are no paths."""
    folder.mkdir(parents=True)
    columns, label = ((labels,), labels) if isinstance(labels, str) else (labels.columns, labels.label)
    with (folder / DEFAULT_TABLE).open("w", encoding="utf-8", errors="replace", newline="") as file:
        table = csv.DictWriter(file, ["path", *columns])
        table.writeheader()
        for number, found in enumerate(sample):
            others = {} if isinstance(labels, str) else labels.labels_of(found.source)
            with suppress(BadImage, OSError), open_raw(raw, found, link_root) as content:
                with (folder / str(number)).open("wb") as copy:
                    shutil.copyfileobj(content, copy)
                table.writerow({**others, label: found.style, "path": str(number)})


def rate_beyond(timed: list[tuple[float, float]]) -> float:
    """Return how many more a second the last of some works (count, seconds) did than the first, whose start it had."""
    (few, start), (many, seconds) = timed[0], timed[-1]
    return (many - few) / (seconds - start) if seconds > start else many / max(seconds, 1e-9)


def _as_many(entries: list[IndexEntry], count: int) -> list[IndexEntry]:
    """Return so many entries like these, to be counted only."""
    return [replace(entries[i % len(entries)], sha256=f"{i}", twin="") for i in range(count)]


def take_some(pictures: Pictures, number: int, folder: Path) -> Path:
    """Make a data folder of at most ``number`` of the pictures, every style among them, and return it.

    The files are linked, or copied where the system has no links.
    """
    entries = choose(pictures.entries, number)
    for entry in entries:
        target = folder / entry.file
        target.parent.mkdir(parents=True, exist_ok=True)
        source = Path(os.path.abspath(pictures.root / entry.file))  # noqa: PTH100 - keeps links as named
        try:
            target.symlink_to(source)
        except OSError:
            with suppress(OSError):  # one that is gone is the training's to name
                shutil.copyfile(source, target)
    write_index(folder / "index.jsonl", entries)
    return folder


def choose(entries: list[IndexEntry], number: int) -> list[IndexEntry]:
    """Return at most ``number`` entries, in their order: two of every style as far as there are, the rest evenly."""
    if len(entries) <= number:
        return entries
    chosen: set[int] = set()
    seen: dict[str, int] = {}
    for i, entry in enumerate(entries):
        seen[entry.style] = seen.get(entry.style, 0) + 1
        if seen[entry.style] <= 2:
            chosen.add(i)
    missing = max(0, number - len(chosen))
    others = [i for i in range(len(entries)) if i not in chosen]
    chosen |= {others[i * len(others) // missing] for i in range(missing)} if missing else set()
    return [entries[i] for i in sorted(chosen)]
