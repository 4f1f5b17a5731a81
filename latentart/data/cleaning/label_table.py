"""The user's table of labels: which style, genre, artist or other label each picture of the raw folder has."""

from __future__ import annotations

import csv
import re
import unicodedata
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from latentart.data.cleaning.label_lines import ENDINGS as JSON_LINES
from latentart.data.cleaning.label_lines import PATHS, json_cells, json_columns
from latentart.data.index import MAX_NAME
from latentart.data.names import one_spelling
from latentart.errors import ConfigError, DataError, listed, nearest
from latentart.printable import counted

PATH_COLUMNS = ("path", "file", "filename", "file_name", "image", "image_path", "file_path", "picture", PATHS)
LIKELY_PATHS = (  # where none of those is there, without what stands between words
    *("filepath", "imagepath", "imgpath", "relativepath", "relpath", "fullpath", "imagefile", "imagefilename"),
    *("imagename", "img", "photo", "url", "imageurl", "imgurl"),
)
DEFAULT_TABLE = "labels.csv"
DEFAULT_LABEL = "style"  # what the names of folders are, where there is no table
DELIMITERS = ",\t;|"
ODD_DELIMITERS = "^~\x1f:"  # where there is none of those, and one of them sets a column of paths apart
EXCELS_WORD = re.compile(r'"?sep=(.)"?\s*')  # a first line that names the separator
QUOTED, COMMA = r"""(?:'[^']*'|"[^"]*")""", r"\s*(?:,\s*)?"
LISTS = rf"\[\s*(?:(?:{QUOTED}|-?[\d.]++){COMMA})*\]|\(\s*(?:{QUOTED}{COMMA})*\)|{{\s*(?:{QUOTED}{COMMA})*}}"
LIST = re.compile(LISTS)  # of Python and JSON: a list, a tuple, a set
ITEM = re.compile(r"""'([^']*)'|"([^"]*)"|(-?[\d.]++)""")
NO_LABEL = ("nan", "none", "null", "<na>", "n/a", "#n/a")  # as programs write what is missing
TYPED = r"(^|{0})[ ]*[“”„‟«»‘’‚]([^“”„‟«»‘’‚{1}]*)[“”‟«»‘’](?=[ ]*(?:{0}|[\r\n]|$))"  # a cell in typographic quotes
OTHER_FILES = {
    b"PK\3\4": "a workbook or another archive",
    b"\xd0\xcf\x11\xe0": "an old workbook of Excel",
    b"PAR1": "Parquet",
    b"SQLite": "a database",
    b"{": "JSON",
    b"[": "JSON",
    b"<": "HTML or XML",
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
    """Return the table of labels in a file of CSV or JSON lines; ``label`` names the column that holds the styles.

    The first line names the columns, with comma, tab, semicolon or bar between them. One is called path, file, image or
    alike and holds paths relative to the raw folder; all the others hold labels. A table in UTF-16 says so by its first
    bytes; other bytes that are not UTF-8 become surrogate escapes, as they do in the names of files. Quotation marks
    are single ones where the first line begins with one; typographic ones around a cell are read as such.

    Raises:
        DataError: the file cannot be read, or has no column of paths.
        ConfigError: there is no column ``label``.
    """
    with _errors_named(path), _open_table(path) as (names, numbered):
        path_column = _path_column(path, names)
        columns: dict[str, int] = {}
        for i, name in enumerate(names):
            if 0 < len(name) <= MAX_NAME and i != path_column:  # pandas writes its row numbers under an empty name
                columns.setdefault(name, i)
        label = _label_column(path, list(columns), label)
        odd = _OddRows(path.name)
        rows = _read_rows(numbered, path_column, list(columns.values()), len(names), odd)
    twice = [name for name in columns if names.count(name) > 1]
    told = [f"{path.name}: of several columns of one name the first counts: {_listed(twice)}."] if twice else []
    written = {normal: source for source in rows if (normal := normal_path(source)) != source}
    return Labels(tuple(columns), label, rows, written, [*told, *odd.warnings()])


@contextmanager
def _open_table(path: Path) -> Iterator[tuple[list[str], Iterable[tuple[int, Sequence[str]]]]]:
    """Give the names of a table's columns, and (line, cells) of each of its rows."""
    if path.suffix.lower() in JSON_LINES:
        keys = json_columns(path)
        yield [one_spelling(key.strip()) for key in keys], json_cells(path, keys)
        return
    encoding = _encoding_of(_refuse_others(path))
    errors = "surrogateescape" if encoding == "utf-8-sig" else "replace"
    with path.open(encoding=encoding, errors=errors, newline="") as file:
        separator, skipped, start = "", 0, 0
        while (header := file.readline()) and (not header.strip() or EXCELS_WORD.fullmatch(header)):
            separator, skipped, start = header.strip(' "\r\n')[4:] or separator, skipped + 1, file.tell()
        quote = "'" if re.match(r"\s*'[^']*'", header) else '"'
        file.seek(start)
        # a space after a delimiter would keep quotes from being seen as such
        delimiter = separator or _delimiter_of(header, quote)
        quoted = re.compile(TYPED.format(re.escape(delimiter), quote))
        lines = (quoted.sub(rf"\1{quote}\2{quote}", line) for line in file)
        table = csv.reader(lines, delimiter=delimiter, quotechar=quote, skipinitialspace=True)
        names = [one_spelling(name.strip()) for name in next(table, [])]
        yield names, ((table.line_num + skipped, cells) for cells in table)


def _encoding_of(start: bytes) -> str:
    """Return the encoding of a text that starts so, with a byte order mark or, of ASCII letters, without."""
    if start[:4] in (b"\xff\xfe\0\0", b"\0\0\xfe\xff"):
        return "utf-32"
    if start[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return "utf-16"
    return {(False, True): "utf-16-le", (True, False): "utf-16-be"}.get(
        (start[:1] == b"\0", start[1:2] == b"\0"), "utf-8-sig"
    )


def _delimiter_of(header: str, quote: str) -> str:
    bare = re.sub(f"{quote}[^{quote}]*{quote}", "", header)
    usual = max(DELIMITERS, key=bare.count)
    if usual in bare:
        return usual
    # any file may be named as a table: it is cut, and then quoted, only where that makes sense
    names = {odd: [name.strip(" \"'\r\n").casefold() for name in header.split(odd)] for odd in ODD_DELIMITERS}
    return next((odd for odd, held in names.items() if len(held) > 1 and {*PATH_COLUMNS} & {*held}), usual)


def _refuse_others(path: Path) -> bytes:
    """Return the first bytes of what may be a table.

    Raises:
        DataError: it is something else, or cannot be read.
    """
    with _errors_named(path), path.open("rb") as file:
        start = file.read(16)
    for signature, kind in OTHER_FILES.items():
        if start.removeprefix(b"\xef\xbb\xbf").lstrip().startswith(signature):
            msg = f"{str(path)!r} is {kind}, no table with comma, tab, semicolon or bar between its columns."
            raise DataError(msg, "Save it as CSV in UTF-8, with a first line that names the columns, or as .jsonl.")
    return start


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
        counts = [(what, counted(number, "row")) for what, number in self.counts.items()]
        return [f"{self.table}: {count} {what}, first {self.first[what]}." for what, count in counts]


def label_of(cell: str, odd: set[str]) -> str:
    """Return the label that a cell holds; of a list of Python's, as WikiArt's tables have it, the first item.

    What is odd about it is added to ``odd``.
    """
    label = cell.strip()
    if label[:1] in tuple("[({") and LIST.fullmatch(label):
        items = [next(filter(None, found.groups()), "").strip() for found in ITEM.finditer(label)]
        if len(items) > 1:
            odd.add("with a list of several labels in a cell, of which the first counts")
        label = next(filter(None, items), "")
    if label.casefold() in NO_LABEL:
        odd.add("with 'nan', 'None' or alike in place of a label")
        return ""
    label = one_spelling(label)
    if any("\udc80" <= letter <= "\udcff" for letter in label):
        odd.add("with labels that are not UTF-8 (save the table as CSV in UTF-8)")
    if len(label) > MAX_NAME:
        odd.add(f"with labels of more than {MAX_NAME} letters, which are left out")
        return ""
    return label


def _read_rows(
    table: Iterable[tuple[int, Sequence[str]]], path_column: int, columns: Sequence[int], width: int, odd: _OddRows
) -> dict[str, tuple[str, ...]]:
    rows: dict[str, tuple[str, ...]] = {}
    known: dict[str, tuple[str, tuple[str, ...]]] = {}  # a table may have a million rows of a few labels, stored once
    shared: dict[tuple[str, ...], tuple[str, ...]] = {}
    for line, cells in table:
        if not any(cells):
            continue
        source = cells[path_column] if path_column < len(cells) else ""
        if not source.strip():
            odd.add("without a path", f"in line {line}")
            continue
        if len(cells) > width and any(cells[width:]):
            odd.add("with more cells than columns have names", f"in line {line}")
        values = []
        for cell in [cells[i] if i < len(cells) else "" for i in columns]:
            if cell not in known:
                found: set[str] = set()
                known[cell] = label_of(cell, found), tuple(found)
            label, remarks = known[cell]
            values.append(label)
            for remark in remarks:
                odd.add(remark, f"in line {line}")
        row = tuple(values)
        row = shared.setdefault(row, row)
        if rows.setdefault(source, row) is not row:
            odd.add("with other labels for a picture that was named before", f"in line {line}")
    return rows


def _path_column(path: Path, names: Sequence[str]) -> int:
    for i, name in enumerate(names):
        if name.casefold() in PATH_COLUMNS:
            return i
    bare = [re.sub(r"\W|_", "", name.casefold()) for name in names]
    if found := [bare.index(word) for word in LIKELY_PATHS if word in bare]:
        return found[0]
    # a line of one piece may be of any file, as of /etc/passwd, and is quoted nowhere
    what = "its one column" if len(names) == 1 else _listed(names)
    msg = f"{str(path)!r} has no column of paths among {what}."
    between = " with comma, tab, semicolon or bar between them" if len(names) < 2 else ""
    raise DataError(msg, f"Its first line names the columns{between}: call one of them {PATH_COLUMNS[0]!r}.")


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
