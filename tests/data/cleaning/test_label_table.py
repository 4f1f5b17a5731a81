"""A table of labels is read as people and programs write it, and what cannot be read is named."""

from __future__ import annotations

import csv
import os
import tracemalloc
import unicodedata
from pathlib import Path

import pytest

from latentart.data.cleaning.label_table import Labels, normal_path, read_labels
from latentart.errors import ConfigError, DataError

WIKIART = """path,style,genre,artist
Abstract_Expressionism/aaron-siskind_acolman-1-1955.jpg,Abstract Expressionism,abstract painting,Aaron Siskind
Baroque/rembrandt_night-watch-1642.jpg,Baroque,portrait,Rembrandt
Baroque/unknown.jpg,,"still life, fruit",
"""


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """Name a table of labels in a folder of its own."""
    return tmp_path / "labels.csv"


def read(table: Path, text: str | bytes, label: str = "style") -> Labels:
    """Write a table and read it."""
    table.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_labels(table, label)


def test_a_table_gives_each_picture_its_labels(table: Path) -> None:
    """The styles are those of the chosen column; empty cells and unknown pictures have none."""
    labels = read(table, WIKIART)

    assert labels.columns == ("style", "genre", "artist")
    assert labels.label == "style"
    assert len(labels) == 3
    assert list(labels.sources())[2] == "Baroque/unknown.jpg"
    assert labels.style_of("Baroque/rembrandt_night-watch-1642.jpg") == "Baroque"
    assert labels.labels_of("Baroque/unknown.jpg") == {"genre": "still life, fruit"}
    assert labels.style_of("Baroque/unknown.jpg") == labels.style_of("elsewhere.jpg") == ""
    assert labels.labels_of("elsewhere.jpg") == {}
    assert "Baroque/unknown.jpg" in labels
    assert "elsewhere.jpg" not in labels
    assert labels.warnings == []


def test_any_column_can_be_the_label(table: Path) -> None:
    """Its name is matched exactly, then ignoring case."""
    assert read(table, WIKIART, "artist").style_of("Baroque/rembrandt_night-watch-1642.jpg") == "Rembrandt"
    assert read(table, WIKIART, "Genre").label == "genre"
    assert read(table, "path,Style,style\na.jpg,x,y\n").style_of("a.jpg") == "y"


def test_a_single_column_is_the_label_unless_another_is_asked_for(table: Path) -> None:
    """With the default label a table of one label column needs no setting."""
    text = "file_name,movement\na.jpg,Baroque\n"

    assert read(table, text).style_of("a.jpg") == "Baroque"
    with pytest.raises(ConfigError, match=r"no column 'genre'.*data.label.*'movement'"):
        read(table, text, "genre")


def test_a_label_that_is_not_there_is_named_with_the_nearest(table: Path) -> None:
    """The message names the columns there are."""
    with pytest.raises(ConfigError, match=r"no column 'stlye'\. Did you mean 'style'\?.*'style', 'genre', 'artist'"):
        read(table, WIKIART, "stlye")
    with pytest.raises(ConfigError, match="no column 'path'"):
        read(table, WIKIART, "path")


@pytest.mark.parametrize("name", ["path", "File", "FILENAME", "file_name", " image ", "image_path", "picture"])
def test_the_path_column_has_many_names(table: Path, name: str) -> None:
    """It may stand anywhere, and the first one counts."""
    labels = read(table, f"style,{name},file_path\nBaroque,a.jpg,b.jpg\n")

    assert labels.style_of("a.jpg") == "Baroque"
    assert labels.columns == ("style", "file_path")


@pytest.mark.parametrize("text", ["a.jpg,Baroque\nb.jpg,Cubism\n", "", "\n\n", "\0\0\0", "name;style\na;b\n"])
def test_a_table_without_a_column_of_paths_is_refused(table: Path, text: str) -> None:
    """The message says what columns there are and what to call one."""
    with pytest.raises(DataError, match=r"no column of paths among .*'path'"):
        read(table, text)


@pytest.mark.parametrize("delimiter", list(",;\t"))
@pytest.mark.parametrize("ending", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_delimiters_line_ends_and_byte_order_marks_are_understood(
    table: Path, delimiter: str, ending: str, mark: str
) -> None:
    """As spreadsheets of any country and system write them, quotes and line breaks inside cells included."""
    rows = [["path", "style", "a,b;c\td"], ["a.jpg", 'Pop, Art; "new"', "1"], ["b.jpg", "two\nlines", ""]]
    with table.open("w", newline="", encoding="utf-8") as file:
        file.write(mark)
        csv.writer(file, delimiter=delimiter, lineterminator=ending, quoting=csv.QUOTE_ALL).writerows(rows)

    labels = read_labels(table, "style")

    assert labels.columns == ("style", "a,b;c\td")
    assert labels.style_of("a.jpg") == 'Pop, Art; "new"'
    assert labels.style_of("b.jpg") == "two\nlines"


def test_tables_of_programs_and_hands_are_read(table: Path) -> None:
    """The row numbers of pandas are no label; spaces around cells do not count, before quotes neither."""
    labels = read(table, ',path, style ,genre\n0,a.jpg, Baroque , "x, y"\n1, b.jpg,Cubism,\n\n,,,\n')

    assert labels.columns == ("style", "genre")
    assert labels.labels_of("a.jpg") == {"style": "Baroque", "genre": "x, y"}
    assert labels.style_of("b.jpg") == "Cubism"
    assert labels.warnings == []


def test_wide_tables_with_tabs_are_read(table: Path) -> None:
    """As of ART500K: many columns, quotes and commas inside cells, bytes of another encoding."""
    text = (
        b"FILE\tauthor_name\tpainting_name\tGenre\tStyle\n" + b'a.jpg\tD\xfcrer, A.\tThe "Hare"\tanimal\tRenaissance\n'
    )

    labels = read(table, text)

    assert labels.columns == ("author_name", "painting_name", "Genre", "Style")
    assert labels.style_of("a.jpg") == "Renaissance"
    assert labels.labels_of("a.jpg")["author_name"] == "D\udcfcrer, A."
    assert labels.labels_of("a.jpg")["painting_name"] == 'The "Hare"'


@pytest.mark.parametrize("name", [b"na\xff\xfeme.jpg", "日本.jpg".encode(), b"a,b.jpg", b" a.jpg", b"#1.jpg"])
def test_any_file_name_is_found(table: Path, name: bytes) -> None:
    """Names are matched byte for byte, also where they are not UTF-8."""
    labels = read(table, b'path,style\n"' + name + b'",Baroque\n')

    assert labels.style_of(os.fsdecode(name)) == "Baroque"


@pytest.mark.parametrize(
    "written", ["A\\é.jpg", "./A/é.jpg", "/A/é.jpg", ".\\A\\é.jpg", unicodedata.normalize("NFD", "A/é.jpg"), "A/é.jpg "]
)
def test_other_spellings_of_a_path_are_found(table: Path, written: str) -> None:
    """As other systems write it, in either direction; the path is kept as it is written."""
    labels = read(table, f"path,style\n{written},Baroque\n")

    assert labels.style_of("A/é.jpg") == labels.style_of(unicodedata.normalize("NFD", "A/é.jpg")) == "Baroque"
    assert list(labels.sources()) == [written]


def test_the_exact_path_goes_before_other_spellings(table: Path) -> None:
    """A file whose name holds a backslash is not the one in a folder."""
    labels = read(table, "path,style\na\\b.jpg,One\na/b.jpg,Two\n")

    assert labels.style_of("a\\b.jpg") == "One"
    assert labels.style_of("a/b.jpg") == "Two"


def test_a_path_that_leads_outside_is_no_other_path(table: Path) -> None:
    """Dots are not resolved."""
    labels = read(table, "path,style\nA/../b.jpg,One\n../c.jpg,Two\n")

    assert labels.style_of("b.jpg") == labels.style_of("c.jpg") == ""


def test_odd_rows_are_counted_and_named(table: Path) -> None:
    """Short rows are fine; rows without a path, with too many cells or against an earlier row are warned of."""
    rows = ["path,style,genre", "a.jpg", "b.jpg,One", ",Two", "c.jpg,One,x,y", "b.jpg,One", "b.jpg,Two", "b.jpg,Three"]

    labels = read(table, "\n".join(rows))

    assert len(labels) == 3
    assert labels.style_of("b.jpg") == "One"
    without, longer, again = labels.warnings
    assert "1 row without a path" in without
    assert "line 4" in without
    assert "1 row with more cells" in longer
    assert "line 5" in longer
    assert "2 rows" in again
    assert "line 7" in again
    assert "b.jpg" not in again


def test_nul_bytes_do_no_harm(table: Path) -> None:
    """A row with a NUL is a row like any other."""
    labels = read(table, b"path,style\n\0a.jpg,One\nb.jpg,T\0wo\n")

    assert labels.style_of("b.jpg") == "T\0wo"
    assert labels.style_of("a.jpg") == ""


def test_a_quote_that_is_never_closed_is_a_clear_error(table: Path) -> None:
    """The reader's limit on a cell becomes an error of the data."""
    with pytest.raises(DataError, match=r"labels.csv' cannot be read.*quotation mark"):
        read(table, 'path,style\na.jpg,"One\n' + "b.jpg,Two\n" * 20_000)


def test_a_table_that_cannot_be_opened_is_a_clear_error(tmp_path: Path) -> None:
    """A folder in its place is one."""
    with pytest.raises(DataError, match=r"cannot be read: .*directory"):
        read_labels(tmp_path, "style")


@pytest.mark.parametrize("path", ["A/b.jpg", "é", "..", "a..b", ".hidden/x", "\udcff", ""])
def test_a_normal_path_stays_as_it_is(path: str) -> None:
    """What is in normal form is not touched."""
    assert normal_path(path) == path


def test_large_tables_stay_small_in_memory(table: Path) -> None:
    """Repeating labels are stored once: less than 400 bytes a row, so that a million fit."""
    number = 20_000
    rows = (
        f"Style_{i % 20}/artist-{i % 500}_title-{i}.jpg,Style {i % 20},Genre {i % 9},Artist {i % 500}"
        for i in range(number)
    )
    table.write_text("\n".join(["path,style,genre,artist", *rows]))

    tracemalloc.start()
    labels = read_labels(table, "style")
    size, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert len(labels) == number
    assert size < 400 * number
    assert peak < 500 * number


def test_what_begins_like_a_list_is_read_at_once(tmp_path: Path) -> None:
    """A stranger's cell of 100,000 spaces in what is no list in the end took minutes; it is a label, and too long."""
    table = tmp_path / "labels.csv"
    table.write_text(f"path,genre\na.jpg,['A'{' ' * 100_000}x\n")

    assert read_labels(table, "genre").style_of("a.jpg") == ""


def test_lists_of_one_are_their_item(tmp_path: Path) -> None:
    """As WikiArt's tables write genres; of a list of two the first counts, and that is told."""
    table = tmp_path / "labels.csv"
    table.write_text('path,genre\na.jpg,[\'Pop Art\']\nb.jpg,"[""L\'Art""]"\nc.jpg,"[\'A\', \'B\']"\n')

    labels = read_labels(table, "genre")

    assert [labels.style_of(source) for source in ("a.jpg", "b.jpg", "c.jpg")] == ["Pop Art", "L'Art", "A"]
    assert ["1 row with a list of several labels" in text for text in labels.warnings] == [True]


@pytest.mark.parametrize(
    "text",
    [
        "path|style\na.jpg|Pop, Art\n",
        "sep=;\npath;style\na.jpg;Pop, Art\n",
        '"sep=:"\r\npath:style\r\na.jpg:"Pop, Art"\r\n',
        "\n \npath^style\na.jpg^Pop, Art\n",
        "style~Path\nPop, Art~a.jpg\n",
        '"path":"style"\n"a.jpg":"Pop, Art"\n',
        "path\x1fstyle\na.jpg\x1fPop, Art\n",
        "Photo;style\na.jpg;Pop, Art\n",
        "title;Image URL;style\nx;a.jpg;Pop, Art\n",
    ],
)
def test_other_separators_are_known(table: Path, text: str) -> None:
    """The bar, any that a first line of Excel's names, and rarer ones; empty lines before the header do no harm."""
    assert read(table, text).style_of("a.jpg") == "Pop, Art"


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"PK\3\4..", "workbook"),
        (b"PAR1..", "Parquet"),
        (b'{"file_name": "a.jpg"}\n', "JSON"),
        (b"\n[{}]", "JSON"),
        (b"<table>", "HTML"),
    ],
)
def test_what_is_no_table_is_named(table: Path, content: bytes, kind: str) -> None:
    """The error says what was found, and what would do."""
    with pytest.raises(DataError, match=rf"{kind}.*Save it as CSV"):
        read(table, content)


@pytest.mark.parametrize(("encoding", "bits"), [("utf-16", "32"), ("utf-16-le", "16"), ("utf-16-be", "16")])
@pytest.mark.parametrize("first", ["", "sep=;\n"])
def test_tables_in_utf_16_are_read(tmp_path: Path, encoding: str, bits: str, first: str) -> None:
    """As Excel's "Unicode text" is: the first bytes say so, in either order; UTF-32 too, and without a mark."""
    table, mark = tmp_path / "labels.csv", "" if encoding == "utf-16" else "\ufeff"
    table.write_text(f'{mark}{first}path;style\n"a;b.jpg";Café\nc.jpg;浮世絵\n', encoding)

    labels = read_labels(table, "style")

    table.write_text(f'{first}path;style\n"a;b.jpg";Café\nc.jpg;浮世絵\n', encoding.replace("16", bits))
    bare = read_labels(table, "style")

    for read_one in (labels, bare):
        assert [read_one.style_of(name) for name in ("a;b.jpg", "c.jpg")] == ["Café", "浮世絵"]
        assert not read_one.warnings


def test_other_lists_and_missing_labels_are_understood(table: Path) -> None:
    """Tuples, sets and numbers; the words of programs for nothing are no styles; what only begins so is a label."""
    cells = ["('A', 'B')", "{'A'}", "[1, 2]", "[]", "nan", "None", "(Neo)", "[x]", f"[{'1' * 5000}x"]
    rows = [f'{i}.jpg;"{cell}"' for i, cell in enumerate(cells)]

    labels = read(table, "\n".join(["path;style", *rows]))

    found = [labels.style_of(f"{i}.jpg") for i in range(len(cells))]
    assert found == ["A", "A", "1", "", "", "", "(Neo)", "[x]", ""]
    assert any(
        "2 rows with 'nan', 'None' or alike in place of a label, first in line 6" in text for text in labels.warnings
    )


def test_columns_of_one_name_are_told(table: Path) -> None:
    """The first of them counts."""
    labels = read(table, "path,style,style\na.jpg,One,Two\n")

    assert labels.style_of("a.jpg") == "One"
    assert "of several columns of one name the first counts: 'style'" in labels.warnings[0]


def test_other_encodings_are_told(tmp_path: Path) -> None:
    """Bytes that are not UTF-8 are a warning."""
    table = tmp_path / "labels.csv"
    table.write_text("path,style\na.jpg,Café\n", encoding="cp1252")

    assert "1 row with labels that are not UTF-8" in read_labels(table, "style").warnings[0]


def test_single_quotation_marks_are_understood(table: Path) -> None:
    """Where the names of the columns have them; elsewhere they are letters."""
    quoted = read(table, "'path','style'\n'a,b.jpg','L''art'\n")

    assert quoted.style_of("a,b.jpg") == "L'art"
    assert read(table, "path,style\na.jpg,'s-Hertogenbosch\n").style_of("a.jpg") == "'s-Hertogenbosch"


@pytest.mark.parametrize("pair", ["“”", "„“", "«»", "‘’", "””"])
def test_typographic_quotes_around_a_cell_are_quotes(table: Path, pair: str) -> None:
    """As a word processor makes them, with a separator within; those inside a cell are letters of it."""
    left, right = pair
    rows = ["path,style", "<a, 1.jpg>,<Nabis, late>", "b.jpg,the <great> wave", "c.jpg, <Nabis, late> "]

    labels = read(table, "\r\n".join(rows).replace("<", left).replace(">", right))

    assert labels.style_of("a, 1.jpg") == labels.style_of("c.jpg") == "Nabis, late"
    assert labels.style_of("b.jpg") == f"the {left}great{right} wave"


def test_other_files_are_not_quoted(table: Path) -> None:
    """A config may name any file as its table: what is no header with columns is never shown."""
    with pytest.raises(DataError) as caught:
        read(table, "root:x:0:0:root:/root:/bin/bash\nuser:secret\n")

    assert "/bin" not in str(caught.value)
    assert "secret" not in str(caught.value)


def test_a_missing_column_lists_ten_names(table: Path) -> None:
    """Of a table of 500 columns the line stays short, and so does a name of 5,000 letters."""
    header = ",".join(["path", "x" * 900, *(f"column{i}" for i in range(500))])
    with pytest.raises(ConfigError) as caught:
        read(table, f"{header}\n", "nothing")

    assert "'column8' and 491 more" in str(caught.value)
    assert len(str(caught.value)) < 600


def test_a_label_without_end_is_left_out_where_it_comes_in(table: Path) -> None:
    """A model folder takes names of 1,000 letters: more would be trained on and then refused."""
    labels = read(table, f"path,style,genre\na.jpg,{'x' * 1001},portrait\nb.jpg,{'y' * 1000},portrait\n")

    assert labels.labels_of("a.jpg") == {"genre": "portrait"}
    assert labels.style_of("b.jpg") == "y" * 1000
    assert "1 row with labels of more than 1000 letters, which are left out, first in line 2" in labels.warnings[0]


def test_json_lines_are_a_table(tmp_path: Path) -> None:
    """As Hugging Face's metadata.jsonl: a list of paths shares its labels, and keys may be missing from a line."""
    table = tmp_path / "metadata.jsonl"
    table.write_text(
        '{"file_name": "a.jpg", "style": "Pop Art", "year": 1962}\n\n'
        '{"style": null, "file_name": "sub/b.jpg", "genre": ["nude"], "box": {"x": 1}}\n'
    )

    labels = read_labels(table, "style")

    assert labels.columns == ("style", "year", "genre", "box")
    assert labels.labels_of("a.jpg") == {"style": "Pop Art", "year": "1962"}
    assert labels.labels_of("sub/b.jpg") == {"genre": "nude"}
    table.write_text('{"file_names": ["a.jpg", "b.jpg"], "style": "Cubism"}\n{"file_names": "c.jpg", "style": "Op"}\n')
    several = read_labels(table, "style")
    assert [several.style_of(name) for name in ("a.jpg", "b.jpg", "c.jpg")] == ["Cubism", "Cubism", "Op"]


@pytest.mark.parametrize("line", ["[1]", "{", '{"a": 1, "a": 2}', "[" * 100_000])
def test_a_line_that_is_no_object_is_named(tmp_path: Path, line: str) -> None:
    """Which of a stranger's million lines it is, whatever is wrong with it."""
    table = tmp_path / "metadata.jsonl"
    table.write_text(f'{{"file_name": "a.jpg", "style": "A"}}\n{line}\n')

    with pytest.raises(DataError, match=r"Line 2 of '.*metadata.jsonl' is no JSON object"):
        read_labels(table, "style")
