"""The user's table of labels: which style, genre, artist or other label each picture of the raw folder has."""

from __future__ import annotations

import csv
import re
import unicodedata
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from latentart.data.index import MAX_NAME
from latentart.data.names import one_spelling
from latentart.errors import ConfigError, DataError, listed, nearest

PATH_COLUMNS = ("path", "file", "filename", "file_name", "image", "image_path", "file_path", "picture")
DEFAULT_TABLE = "labels.csv"
DEFAULT_LABEL = "style"  # what the names of folders are, where there is no table
DELIMITERS = ",\t;|"
EXCELS_WORD = re.compile(r'"?sep=(.)"?\s*')  # a first line that names the separator
LIST = re.compile(r"""\[\s*(?:(?:'[^']*'|"[^"]*")\s*(?:,\s*)?)*\]""")
ITEM = re.compile(r"""'([^']*)'|"([^"]*)\"""")
TYPED = r"(^|{0})[ ]*[“”„‟«»‘’‚]([^“”„‟«»‘’‚{1}]*)[“”‟«»‘’](?=[ ]*(?:{0}|[\r\n]|$))"  # a cell in typographic quotes
OTHER_FILES = {
    b"PK\3\4": "a workbook or another archive",
    b"\xd0\xcf\x11\xe0": "an old workbook of Excel",
    b"PAR1": "Parquet",
    b"SQLite": "a database",
    b"{": "JSON",
    b"[": "JSON",
}


@dataclass(frozen=True, slots=True)
class LabelChoice:
    """Where the table of labels lies, relative to the raw folder, and which of its columns holds the styles."""

    table: str = DEFAULT_TABLE
    label: str = DEFAULT_LABEL


USUAL_LABELS = LabelChoice()


@dataclass(frozen=True, slots=True)
class Labels:
    """A table of labels: ``columns`` are its label columns in order, ``label`` the one that holds the styles.

    ``rows`` holds the labels of each path as the table writes it, in the order of ``columns``; ``written`` the
    paths that are not in normal form, by their normal form; ``warnings`` what a person should know of the table.
    """

    columns: tuple[str, ...]
    label: str
    rows: dict[str, tuple[str, ...]] = field(repr=False)
    written: dict[str, str] = field(repr=False)
    warnings: list[str]

    def __len__(self) -> int:
        return len(self.rows)

    def __contains__(self, source: str) -> bool:
        return bool(self._row(source))

    def sources(self) -> Collection[str]:
        """Return the paths as the table writes them."""
        return self.rows.keys()

    def style_of(self, source: str) -> str:
        """Return a picture's style, or an empty string where the table has none."""
        return self.labels_of(source).get(self.label, "")

    def labels_of(self, source: str) -> dict[str, str]:
        """Return all the labels a picture has, by column."""
        return {column: value for column, value in zip(self.columns, self._row(source), strict=False) if value}

    def _row(self, source: str) -> tuple[str, ...]:
        row = self.rows.get(source)
        if row is None:
            normal = normal_path(source)
            row = self.rows.get(self.written.get(normal, normal), ())
        return row


def normal_path(path: str) -> str:
    """Return the form in which different spellings of one path are equal: ``/`` between names, Unicode NFC."""
    path = path.strip().replace("\\", "/")
    return unicodedata.normalize("NFC", re.sub(r"^(\.?/)+", "", path) if path[:1] in "./" else path)


def read_labels(path: Path, label: str) -> Labels:
    """Return the table of labels in a CSV file; ``label`` names the column that holds the styles.

    The first line names the columns, with comma, tab, semicolon or bar between them. One is called path, file, image or
    alike and holds paths relative to the raw folder; all the others hold labels. A table in UTF-16 says so by its first
    bytes; other bytes that are not UTF-8 become surrogate escapes, as they do in the names of files. Quotation marks
    are single ones where the first line begins with one; typographic ones around a cell are read as such.

    Raises:
        DataError: the file cannot be read, or has no column of paths.
        ConfigError: there is no column ``label``.
    """
    is_wide = _refuse_others(path) in (b"\xff\xfe", b"\xfe\xff")
    encoding, errors = ("utf-16", "replace") if is_wide else ("utf-8-sig", "surrogateescape")
    with _errors_named(path), path.open(encoding=encoding, errors=errors, newline="") as file:
        first = file.readline()
        named = EXCELS_WORD.fullmatch(first)
        start = file.tell() if named else 0
        header = file.readline() if named else first
        quote = "'" if re.match(r"\s*'[^']*'", header) else '"'
        header = re.sub(f"{quote}[^{quote}]*{quote}", "", header)
        file.seek(start)
        # a space after a delimiter would keep quotes from being seen as such
        delimiter = named[1] if named else max(DELIMITERS, key=header.count)
        quoted = re.compile(TYPED.format(re.escape(delimiter), quote))
        lines = (quoted.sub(rf"\1{quote}\2{quote}", line) for line in file)
        table = csv.reader(lines, delimiter=delimiter, quotechar=quote, skipinitialspace=True)
        names = [one_spelling(name.strip()) for name in next(table, [])]
        path_column = _path_column(path, names)
        columns: dict[str, int] = {}
        for i, name in enumerate(names):
            if 0 < len(name) <= MAX_NAME and i != path_column:  # pandas writes its row numbers under an empty name
                columns.setdefault(name, i)
        label = _label_column(path, list(columns), label)
        odd = _OddRows(path.name)
        numbered = ((table.line_num, cells) for cells in table)
        rows = _read_rows(numbered, path_column, list(columns.values()), len(names), odd)
    written = {normal: source for source in rows if (normal := normal_path(source)) != source}
    return Labels(tuple(columns), label, rows, written, odd.warnings())


def _refuse_others(path: Path) -> bytes:
    """Return the first two bytes of what may be a table.

    Raises:
        DataError: it is something else, or cannot be read.
    """
    with _errors_named(path), path.open("rb") as file:
        start = file.read(16)
    for signature, kind in OTHER_FILES.items():
        if start.removeprefix(b"\xef\xbb\xbf").lstrip().startswith(signature):
            msg = f"{str(path)!r} is {kind}, no table with comma, tab, semicolon or bar between its columns."
            raise DataError(msg, "Save it as CSV in UTF-8, with a first line that names the columns.")
    return start[:2]


class _OddRows:
    """How many rows are odd in each way, and the first of each."""

    def __init__(self, table: str) -> None:
        self.table = table
        self.counts: dict[str, int] = {}
        self.first: dict[str, str] = {}

    def add(self, what: str, example: str) -> None:
        self.counts[what] = self.counts.get(what, 0) + 1
        self.first.setdefault(what, example)

    def warnings(self) -> list[str]:
        return [f"{self.table}: {number} {what}, first {self.first[what]}." for what, number in self.counts.items()]


def _items_of(value: str) -> list[str]:
    """Return the items of what was a list in Python, as WikiArt's tables have it; any other value is its own."""
    if value[:1] == "[" and LIST.fullmatch(value):
        return [(single or double).strip() for single, double in ITEM.findall(value)]
    return [value]


def _read_rows(
    table: Iterable[tuple[int, Sequence[str]]], path_column: int, columns: Sequence[int], width: int, odd: _OddRows
) -> dict[str, tuple[str, ...]]:
    rows: dict[str, tuple[str, ...]] = {}
    shared: dict[str, str] = {}  # equal values and equal rows are stored once: a table may have a million rows
    shared_rows: dict[tuple[str, ...], tuple[str, ...]] = {}
    for line, cells in table:
        if not any(cells):
            continue
        source = cells[path_column] if path_column < len(cells) else ""
        if not source.strip():
            odd.add("rows without a path", f"in line {line}")
            continue
        if any(cells[width:]):
            odd.add("rows with more cells than columns have names", f"in line {line}")
        values = [_items_of(cells[i].strip()) if i < len(cells) else [""] for i in columns]
        if any(len(items) > 1 for items in values):
            odd.add("rows with a list of several labels in a cell, of which the first counts", f"in line {line}")
        firsts = [one_spelling(next(filter(None, items), "")) for items in values]
        row = tuple(shared.setdefault(value, value) for value in firsts)
        if any("\udc80" <= letter <= "\udcff" for value in row for letter in value):
            odd.add("rows with labels that are not UTF-8 (save the table as CSV in UTF-8)", f"in line {line}")
        if any(len(value) > MAX_NAME for value in row):
            odd.add(f"rows with labels of more than {MAX_NAME} letters, which are left out", f"in line {line}")
            row = tuple(value if len(value) <= MAX_NAME else "" for value in row)
        row = shared_rows.setdefault(row, row)
        if rows.setdefault(source, row) is not row:
            odd.add("rows that name a picture again with other labels, of which the first count", f"in line {line}")
    return rows


def _path_column(path: Path, names: Sequence[str]) -> int:
    for i, name in enumerate(names):
        if name.casefold() in PATH_COLUMNS:
            return i
    # a line of one piece may be of any file, as of /etc/passwd, and is quoted nowhere
    what = "its one column" if len(names) == 1 else _listed(names)
    msg = f"{str(path)!r} has no column of paths among {what}."
    raise DataError(msg, f"Its first line names the columns: call one of them {PATH_COLUMNS[0]!r}.")


def _label_column(path: Path, columns: Sequence[str], label: str) -> str:
    label = one_spelling(label)
    if label in columns:
        return label
    for column in columns:
        if column.casefold() == label.casefold():
            return column
    if label == DEFAULT_LABEL and len(columns) == 1:
        return columns[0]
    msg = f"{str(path)!r} has no column {label!r}.{nearest(label, columns)}"
    raise ConfigError(msg, f"Set data.label to one of {_listed(columns)}.")


def _listed(names: Sequence[str]) -> str:
    return listed(list(map(repr, names)), 10) or "none"


@contextmanager
def _errors_named(path: Path) -> Iterator[None]:
    hint = ""
    try:
        yield
    except (OSError, csv.Error) as error:
        if isinstance(error, csv.Error):
            hint = "Look for a quotation mark that is never closed."
        what = error.strerror if isinstance(error, OSError) else error
        raise DataError(f"The table of labels {str(path)!r} cannot be read: {what}.", hint) from error
