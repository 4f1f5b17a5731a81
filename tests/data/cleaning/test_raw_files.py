"""Every file of the raw folder is listed once, with the style its folder or the table of labels gives it."""

from __future__ import annotations

import os
import tracemalloc
import unicodedata
from pathlib import Path

import pytest

from latentart.data.cleaning.label_table import Labels, read_labels
from latentart.data.cleaning.raw_file import RawFile, real_file
from latentart.data.cleaning.raw_files import find_raw_files, find_styles
from latentart.data.pictures.decode import BadImage


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    """Make a raw folder of two folders and loose files; nothing in it is a picture, as no file is opened."""
    folder = tmp_path / "raw"
    for name in ("A/1.jpg", "A/deeper/2.jpg", "B/3.jpg", "B/4.jpg", "loose.jpg", ".hidden/5.jpg"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"content")
    return folder


def find(raw: Path, text: str | bytes, name: str = "labels.csv") -> tuple[list[str], dict[str, RawFile]]:
    """Put a table of labels into the raw folder and list the files by their sources."""
    table = raw / name
    table.write_bytes(text if isinstance(text, bytes) else text.encode())
    return listing(raw, read_labels(table, "style"), table)


def listing(raw: Path, labels: Labels | None = None, table: Path | None = None) -> tuple[list[str], dict[str, RawFile]]:
    """List the styles, and the files by their sources, in the order of names; each is there once."""
    styles = find_styles(raw, labels)
    files = sorted(find_raw_files(raw, styles, labels, table), key=lambda found: found.source)
    by_source = {found.source: found for found in files}
    assert len(by_source) == len(files)
    return styles, by_source


def test_without_a_table_folders_are_styles(raw: Path) -> None:
    """All files below a folder belong to it; loose and hidden ones to none."""
    (raw / "Empty").mkdir()

    styles, files = listing(raw)

    assert styles == ["A", "B", "Empty"]
    assert [(found.source, found.style, found.reason) for found in files.values()] == [
        (".hidden/5.jpg", "", "hidden"),
        ("A/1.jpg", "A", ""),
        ("A/deeper/2.jpg", "A", ""),
        ("B/3.jpg", "B", ""),
        ("B/4.jpg", "B", ""),
        ("loose.jpg", "", "no_style"),
    ]
    assert files["A/1.jpg"].size == len(b"content")
    assert files["A/1.jpg"].mtime_ns == (raw / "A" / "1.jpg").stat().st_mtime_ns


def test_a_style_may_be_called_by_dots(tmp_path: Path) -> None:
    """Three dots are a title, not a hidden folder."""
    (tmp_path / "...").mkdir()
    (tmp_path / ".../1.jpg").write_bytes(b"content")

    styles, files = listing(tmp_path)

    assert styles == ["..."]
    assert (files[".../1.jpg"].style, files[".../1.jpg"].reason) == ("...", "")


def test_loose_files_alone_are_one_style(tmp_path: Path) -> None:
    """It is called after the folder."""
    (tmp_path / "1.jpg").touch()
    (tmp_path / ".2.jpg").touch()

    styles, files = listing(tmp_path)

    assert styles == [tmp_path.name]
    assert [found.reason for found in files.values()] == ["hidden", ""]
    assert files["1.jpg"].style == tmp_path.name


def test_a_folder_called_as_the_raw_one_is_a_style_like_any_other(tmp_path: Path) -> None:
    """Loose files do not join it."""
    (tmp_path / tmp_path.name).mkdir()
    (tmp_path / tmp_path.name / "1.jpg").touch()
    (tmp_path / "2.jpg").touch()

    styles, files = listing(tmp_path)

    assert styles == [tmp_path.name]
    assert [found.reason for found in files.values()] == ["no_style", ""]


def test_the_table_goes_before_the_folders(raw: Path) -> None:
    """Styles are the values in use, wherever the files lie."""
    rows = ["path,style,genre", "A/1.jpg,Cubism,x", "A/deeper/2.jpg,Baroque,x", "B/3.jpg,Cubism,", "B/4.jpg,,x"]

    styles, files = find(raw, "\n".join([*rows, "loose.jpg,Baroque,"]))

    assert styles == ["Baroque", "Cubism"]
    assert {source: found.style for source, found in files.items() if not found.reason} == {
        "A/1.jpg": "Cubism",
        "A/deeper/2.jpg": "Baroque",
        "B/3.jpg": "Cubism",
        "loose.jpg": "Baroque",
    }
    assert (files["B/4.jpg"].reason, files["B/4.jpg"].detail) == ("no_style", "no style in labels.csv")
    assert "labels.csv" not in files
    assert list(files) == sorted(files)


def test_files_and_rows_that_do_not_meet_are_listed(raw: Path) -> None:
    """A file the table does not name has no style; a file it names in vain is missing, with its style."""
    styles, files = find(raw, "path,style\nA/1.jpg,One\nA/11.jpg,Two\n../raw/B/3.jpg,Two\n.hidden/5.jpg,One\n")

    assert styles == ["One", "Two"]
    assert files["A/11.jpg"] == RawFile(
        "A/11.jpg", "Two", reason="missing", detail="named in labels.csv, but not there"
    )
    assert files["../raw/B/3.jpg"].reason == "missing"
    assert (files["B/3.jpg"].reason, files["B/3.jpg"].detail) == ("no_style", "not named in labels.csv")
    assert files[".hidden/5.jpg"].reason == "hidden"
    assert len(files) == 8


def test_a_table_without_rows_gives_no_style(raw: Path) -> None:
    """It does not make folders styles again."""
    styles, files = find(raw, "path,style\n")

    assert styles == []
    assert {found.reason for found in files.values()} == {"no_style", "hidden"}


def test_links_are_not_followed_even_where_they_are_named(raw: Path) -> None:
    """A named link is no regular file, neither is it missing."""
    (raw / "link.jpg").symlink_to(raw / "A" / "1.jpg")

    _, files = find(raw, "path,style\nlink.jpg,One\n")

    assert files["link.jpg"].reason == "not_a_regular_file"


@pytest.mark.parametrize("name", [b"na\xff\xfeme.jpg", "日本.jpg".encode(), b"a,b.jpg", b" a.jpg", b"a\\b.jpg"])
def test_any_name_meets_its_row(raw: Path, name: bytes) -> None:
    """Bytes that are not UTF-8 are the same in the folder and in the table."""
    text = os.fsdecode(name)
    (raw / text).touch()

    _, files = find(raw, b'path,style\n"' + name + b'",One\n')

    assert files[text].style == "One"
    assert not files[text].reason
    assert "missing" not in {found.reason for found in files.values()}


@pytest.mark.parametrize("written", ["./A/é.jpg", "A\\é.jpg", unicodedata.normalize("NFD", "A/é.jpg")])
def test_other_spellings_meet_their_file(raw: Path, written: str) -> None:
    """And are not reported as missing."""
    (raw / "A" / "é.jpg").touch()

    _, files = find(raw, f"path,style\n{written},One\n")

    assert files["A/é.jpg"].style == "One"
    assert "missing" not in {found.reason for found in files.values()}


def test_only_the_table_itself_is_passed_over(raw: Path) -> None:
    """It may lie deeper or elsewhere; another file of that name is a file like any other."""
    (raw / "B" / "labels.csv").write_bytes(b"")
    _, files = find(raw, "path,style\nA/1.jpg,One\n", "A/labels.csv")
    elsewhere = raw / ".." / "labels.csv"
    elsewhere.write_text("path,style\nA/1.jpg,One\n")

    _, more = listing(raw, read_labels(elsewhere, "style"), elsewhere)

    assert "A/labels.csv" not in files
    assert files["B/labels.csv"].reason == "no_style"
    assert {"A/labels.csv", "B/labels.csv"} <= more.keys()


def test_a_table_alone_is_no_picture(tmp_path: Path) -> None:
    """All that it names is missing."""
    assert find(tmp_path, "path,style\n") == ([], {})
    assert [found.reason for found in find(tmp_path, "path,style\na.jpg,One\n")[1].values()] == ["missing"]


def test_many_files_take_little_memory(tmp_path: Path) -> None:
    """Styles and reasons are shared: less than 500 bytes for each file and each missing one."""
    number = 2000
    folder = tmp_path / "Abstract_Expressionism"
    folder.mkdir()
    for i in range(number):
        (folder / f"aaron-siskind_acolman-{i}-1955.jpg").touch()
    table = tmp_path / "labels.csv"
    rows = (f"{folder.name}/aaron-siskind_acolman-{i}-1955.jpg,Abstract Expressionism" for i in range(2 * number))
    table.write_text("\n".join(["path,style", *rows]))
    labels = read_labels(table, "style")

    tracemalloc.start()
    files = list(find_raw_files(tmp_path, find_styles(tmp_path, labels), labels, table))
    size, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert len(files) == 2 * number
    assert size < 500 * len(files)
    assert len({id(found.style) for found in files}) == 1
    assert len({id(found.detail) for found in files}) == 2


@pytest.fixture
def linked(raw: Path) -> Path:
    """Return the raw folder with links into a library beside it, out of it, and round in circles."""
    library = raw.parent / "library"
    (library / "C/below").mkdir(parents=True)
    for name in ("library/1.jpg", "library/C/2.jpg", "library/C/below/3.jpg", "out.jpg"):
        (raw.parent / name).write_bytes(b"far away")
    links = {"A/file.jpg": "library/1.jpg", "A/out.jpg": "out.jpg", "A/up": "library/C", "Linked": "library/C"}
    links |= {"A/gone.jpg": "library/gone.jpg", "A/self": "raw/A", "A/all": ".", ".hidden/dir": "library/C"}
    for name, target in links.items():
        (raw / name).symlink_to(raw.parent / target)
    (raw / "A/loop").symlink_to("loop")
    (library / "C/round").symlink_to(library / "C")
    (library / "C/back.jpg").symlink_to(raw.parent / "out.jpg")
    (library / "C/hop.jpg").symlink_to(library / "1.jpg")
    return raw


def test_links_are_followed_into_the_named_folder_alone(linked: Path) -> None:
    """Files and folders, of styles too; once, in no circle, and never out of it."""
    styles = find_styles(linked, link_root="../library")
    files = {one.source: one for one in find_raw_files(linked, styles, link_root="../library")}

    reached = [
        "file.jpg",
        *(f"{name}/{one}" for name in ("up", "../Linked") for one in ("2.jpg", "below/3.jpg", "hop.jpg")),
    ]
    taken = {os.path.normpath(f"A/{name}") for name in reached}
    own = {"A/1.jpg", "A/deeper/2.jpg", "B/3.jpg", "B/4.jpg"}
    left = {name: one.reason for name, one in files.items() if one.reason}
    assert styles == ["A", "B", "Linked"]
    assert files.keys() - left.keys() == taken | own
    assert all(files[name].size == len(b"far away") for name in taken)
    assert {files[name].style for name in taken} == {"A", "Linked"}
    links = [f"A/{name}" for name in ("out.jpg", "gone.jpg", "self", "all", "loop")]
    links += [f"{folder}/{name}" for folder in ("A/up", "Linked") for name in ("round", "back.jpg")]
    assert left == {
        **dict.fromkeys(links, "not_a_regular_file"),
        **dict.fromkeys((".hidden/5.jpg", ".hidden/dir"), "hidden"),
        "loose.jpg": "no_style",
    }


def test_no_link_leads_round_in_circles(linked: Path) -> None:
    """To the raw folder itself, into it or above it: what lies there is walked already."""
    files = {one.source: one for one in find_raw_files(linked, find_styles(linked, link_root="/"), link_root="/")}

    assert [files[f"A/{name}"].reason for name in ("self", "all", "loop")] == ["not_a_regular_file"] * 3
    assert files["A/out.jpg"].reason == files["Linked/back.jpg"].reason == ""


def test_without_a_named_folder_no_link_is_followed(linked: Path) -> None:
    """As it was; and what is swapped for a link out of the folder later is not opened either."""
    files = {one.source: one for one in find_raw_files(linked, find_styles(linked))}

    assert {one.source for one in files.values() if not one.reason} == {
        "A/1.jpg",
        "A/deeper/2.jpg",
        "B/3.jpg",
        "B/4.jpg",
    }
    assert real_file(linked, "A/out.jpg", "") == linked / "A/out.jpg"
    assert real_file(linked, "A/file.jpg", "../library") == (linked.parent / "library/1.jpg").resolve()
    with pytest.raises(BadImage, match=r"a link out of data\.link_root"):
        real_file(linked, "A/out.jpg", "../library")
