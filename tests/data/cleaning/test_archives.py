"""Archives among the raw files are read in place, hostile ones too, and nothing in them is taken for a path."""

from __future__ import annotations

import io
import json
import os
import struct
import tarfile
import tracemalloc
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from latentart.data.cleaning.archives.archive import list_members, open_member
from latentart.data.cleaning.archives.member import Member
from latentart.data.cleaning.clean import clean_folder
from latentart.data.cleaning.label_table import LabelChoice
from latentart.data.cleaning.picture import CleanRules
from latentart.data.cleaning.report import CleanReport
from latentart.data.index import read_index
from latentart.data.pictures.formats import BadImage
from latentart.errors import ConfigError

RULES = CleanRules(min_bytes=0, min_side=8, max_side=32, max_aspect=4.0)


def picture(seed: int) -> bytes:
    """Return a PNG of colored noise, different for every seed."""
    pixels = np.random.default_rng(seed).integers(0, 256, (20, 24, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def zipped(path: Path, files: Mapping[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> Path:
    """Write a ZIP archive and return its path."""
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def tarred(path: Path, files: Mapping[str, bytes], **kinds: Any) -> Path:
    """Write a tar archive and return its path."""
    with tarfile.open(path, "w", **kinds) as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def members(path: Path, label: str = "style") -> list[Member]:
    """Return what lies in an archive."""
    with path.open("rb") as file:
        return list(list_members(file, path.name, label))


def content(path: Path, member: Member) -> bytes:
    """Return a member's bytes."""
    with open_member(path.open("rb"), member.place) as file:
        return file.read()


def clean(raw: Path, out: Path, label: str = "style", **options: Any) -> CleanReport:
    """Clean in this process."""
    return clean_folder(raw, out, RULES, LabelChoice(label=label), **{"workers": 0, **options})


def kept(report: CleanReport) -> dict[str, int]:
    """Return the number of pictures kept of each style that has any."""
    return {style: counts["kept"] for style, counts in report.styles.items() if counts["kept"]}


def dropped(report: CleanReport) -> dict[str, str]:
    """Return each dropped file's reason."""
    return {item.source: item.reason for item in report.dropped}


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    """Return an empty raw folder."""
    folder = tmp_path / "raw"
    folder.mkdir()
    return folder


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
@pytest.mark.parametrize("limit", [zipfile.ZIP64_LIMIT, 10])
def test_a_zip_lists_and_gives_what_was_put_in(
    raw: Path, monkeypatch: pytest.MonkeyPatch, method: int, limit: int
) -> None:
    """As `zipfile` writes it, stored or deflated, with ZIP64 or without, with something before it or not."""
    monkeypatch.setattr(zipfile, "ZIP64_LIMIT", limit)
    files = {"a/ä.png": picture(1), "b.txt": bytes(9_000), "c/": b"", "d.png": picture(2)}
    path = zipped(raw / "a.zip", files, method)
    moved = raw / "moved.zip"
    moved.write_bytes(b"PK" + bytes(100) + path.read_bytes())

    for archive in (path, moved):
        found = members(archive)
        assert [member.name for member in found] == ["a/ä.png", "b.txt", "d.png"]
        assert [content(archive, member) for member in found] == [files[member.name] for member in found]


@pytest.mark.parametrize("kind", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_a_tar_lists_and_gives_what_was_put_in(raw: Path, kind: int) -> None:
    """In each of its formats, names too long for its first header included."""
    long = "/".join(["folder"] * 12) + "/ä.png"
    files = {"./a.png": picture(1), long: picture(2), "b/c.png": picture(3)}
    path = tarred(raw / "a.tar", files, format=kind)

    found = members(path)

    assert [member.name for member in found] == ["a.png", long, "b/c.png"]
    assert [content(path, member) for member in found] == list(files.values())


def test_styles_come_from_labels_then_folders_then_the_name(raw: Path, tmp_path: Path) -> None:
    """Of a sample's .cls or .json, else the folder in the archive or above it, else the archive without its number."""
    sample = {"1.png": picture(1), "1.cls": b"Baroque\n", "1.txt": b"a caption", "2.png": picture(2)}
    sample |= {"2.json": json.dumps({"style": "Rococo", "url": "x"}).encode(), "3.png": picture(3)}
    tarred(raw / "shard-0001.tar", sample)
    zipped(raw / "p.zip", {"Cubism/a.png": picture(4), "Cubism/deep/b.png": picture(5), "c.png": picture(6)})
    (raw / "Pop").mkdir()
    zipped(raw / "Pop/1.zip", {"x/a.png": picture(7)})

    report = clean(raw, tmp_path / "out")

    assert kept(report) == {"Baroque": 1, "Rococo": 1, "shard": 1, "Cubism": 2, "p": 1, "Pop": 1}
    assert report.dropped == []
    sources = {entry.source for entry in read_index(tmp_path / "out/index.jsonl")}
    assert {"shard-0001.tar/1.png", "p.zip/Cubism/deep/b.png", "Pop/1.zip/x/a.png"} <= sources


def test_a_label_is_chosen_by_its_field(raw: Path, tmp_path: Path) -> None:
    """data.label names it; a picture without it has no style, and without archives there must be a table."""
    (raw / "A").mkdir()
    (raw / "A/a.png").write_bytes(picture(0))
    with pytest.raises(ConfigError, match=r"data.label is 'genre', but there is no table"):
        clean(raw, tmp_path / "out", "genre")
    assert not (tmp_path / "out").exists()
    files = {"1.png": picture(1), "1.json": b'{"Genre": ["nude"], "style": "x"}', "2.png": picture(2)}
    tarred(raw / "a.tar", {**files, "2.json": b"{"})

    report = clean(raw, tmp_path / "out", "genre")

    assert kept(report)["nude"] == 1
    assert dropped(report) == {"a.tar/2.png": "no_style"}


def test_a_table_names_members_too(raw: Path, tmp_path: Path) -> None:
    """By the archive's path and the name in it; the archive itself need not be in the table."""
    zipped(raw / "p.zip", {"a.png": picture(1), "b.png": picture(2)})
    (raw / "labels.csv").write_text("path,style\np.zip/a.png,Cubism\np.zip/gone.png,Pop\n")

    report = clean(raw, tmp_path / "out")

    assert kept(report) == {"Cubism": 1}
    assert dropped(report) == {"p.zip/b.png": "no_style", "p.zip/gone.png": "missing"}


def test_one_archive_is_a_raw_folder(raw: Path, tmp_path: Path) -> None:
    """Its members are named as they are in it, and the data folder may lie beside it."""
    path = zipped(raw / "p.zip", {"Cubism/a.png": picture(1), "Pop/b.png": picture(2), "c.png": picture(3)})

    report = clean(path, raw / "out", workers=1)

    assert kept(report) == {"Cubism": 1, "Pop": 1, "p": 1}
    assert [entry.source for entry in read_index(raw / "out/index.jsonl")] == ["Cubism/a.png", "Pop/b.png", "c.png"]


def test_a_folder_around_the_styles_is_told(raw: Path, tmp_path: Path) -> None:
    """An archive made of a folder has it in it: that the styles may lie deeper is said, and data.level=2 takes them."""
    path = zipped(raw / "p.zip", {"p/Cubism/a.png": picture(1), "p/Pop/b.png": picture(2), "__MACOSX/p/x": b""})

    assert any("'p.zip' is in one folder" in warning for warning in clean(path, tmp_path / "out").warnings)
    deeper = clean(path, tmp_path / "out", level=2)
    assert kept(deeper) == {"Cubism": 1, "Pop": 1}
    assert deeper.warnings == []
    zipped(path, {"A/x/a.png": picture(1), "B/b.png": picture(2)})
    assert clean(path, tmp_path / "out").warnings == []


def test_an_unchanged_archive_is_not_read_again(raw: Path, tmp_path: Path) -> None:
    """Of it neither the list nor a picture is looked at; what has changed is, and what is gone is forgotten."""
    path = tarred(raw / "a.tar", {"A/1.png": picture(1), "A/1.png/": b"", "B/2.png": picture(2)})
    first = clean(raw, tmp_path / "out")
    info = path.stat()
    path.write_bytes(bytes(info.st_size))
    os.utime(path, ns=(info.st_atime_ns, info.st_mtime_ns))

    assert clean(raw, tmp_path / "out").to_json() == first.to_json()
    tarred(path, {"A/1.png": picture(3), "C/2.png": picture(2)})
    assert kept(clean(raw, tmp_path / "out")) == {"A": 1, "C": 1}
    path.unlink()
    path.mkdir()
    (path / "A").mkdir()
    (path / "A/1.png").write_bytes(picture(4))
    assert kept(clean(raw, tmp_path / "out")) == {"a.tar": 1}


def test_names_lead_nowhere(raw: Path, tmp_path: Path) -> None:
    """Absolute names, names with .., links, hidden ones, copies of one name and archives in archives are dropped."""
    secret = tmp_path / "secret.png"
    secret.write_bytes(picture(9))
    names = ("../../secret.png", str(secret), "C:/a.png", "__MACOSX/a.png", ".a.png", "in.zip", "a\\..\\..\\b.png")
    path = zipped(raw / "p.zip", {**dict.fromkeys(names, picture(1)), "A/a.png": picture(2)})
    with zipfile.ZipFile(path, "a") as archive:
        with pytest.warns(UserWarning, match="Duplicate"):
            archive.writestr("A/a.png", picture(3))
        link = zipfile.ZipInfo("A/link.png")
        link.external_attr = 0o120777 << 16
        archive.writestr(link, str(secret))
    with tarfile.open(raw / "t.tar", "w") as tar:
        for name, kind in (("l.png", tarfile.SYMTYPE), ("h.png", tarfile.LNKTYPE), ("d.png", tarfile.CHRTYPE)):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, str(secret)
            tar.addfile(info)

    report = clean(raw, tmp_path / "out")

    odd = ["../../secret.png", "/" + str(secret).lstrip("/"), "C:/a.png", "a/../../b.png", "A/link.png"]
    expected = {f"p.zip/{name}": "not_a_regular_file" for name in odd}
    expected |= {f"t.tar/{name}": "not_a_regular_file" for name in ("l.png", "h.png", "d.png")}
    expected |= {"p.zip/__MACOSX/a.png": "hidden", "p.zip/.a.png": "hidden", "p.zip/in.zip": "other_format"}
    assert kept(report) == {"A": 1}
    assert dropped(report) == {**expected, "p.zip/A/a.png#9": "duplicate"}
    assert {path.parent.name for path in (tmp_path / "out").rglob("*.jpg")} == {"A"}


def patched(path: Path, offset: int, value: bytes) -> Path:
    """Change bytes of the first entry in a ZIP archive's list."""
    data = bytearray(path.read_bytes())
    at = data.index(b"PK\1\2") + offset
    data[at : at + len(value)] = value
    path.write_bytes(data)
    return path


@pytest.mark.parametrize(
    ("offset", "value", "reason"),
    [
        (8, struct.pack("<H", 1), "other_format"),  # encrypted
        (10, struct.pack("<H", 12), "other_format"),  # bzip2
        (16, bytes(4), "damaged"),  # checksum
        (20, struct.pack("<L", 5), "damaged"),  # cut
        (24, struct.pack("<L", 20), "damaged"),  # unpacks to more than it says
        (24, struct.pack("<L", 1 << 31), "bomb"),
        (20, struct.pack("<LL", 1 << 30, 1 << 31), "too_large"),
        (42, struct.pack("<L", 7), "damaged"),  # lies elsewhere
    ],
)
def test_lies_of_a_zip_are_reasons(raw: Path, tmp_path: Path, offset: int, value: bytes, reason: str) -> None:
    """What its list says of a member is believed of nothing that costs memory, and checked."""
    files = {"A/a.png": bytes(100_000) + picture(1), "A/b.png": picture(2)}
    path = patched(zipped(raw / "p.zip", files), offset, value)

    report = clean(path, tmp_path / "out")

    assert dropped(report) == {"A/a.png": reason}


def test_broken_archives_are_one_line_each(raw: Path, tmp_path: Path) -> None:
    """Each is dropped with a reason; what lies before the damage in a tar is kept."""
    whole = zipped(raw / "whole.zip", {"A/a.png": picture(1)}).read_bytes()
    tar = tarred(raw / "whole.tar", {"A/b.png": picture(2), "A/c.png": picture(3)}).read_bytes()
    header = tarfile.TarInfo("x").tobuf()
    pax = tarfile.TarInfo("x")
    pax.type, pax.size = tarfile.XHDTYPE, 1 << 33
    second = len(header) + 512 * (len(picture(2)) // 512 + 1)
    broken = {
        "cut.zip": (whole[:-30], "truncated"),
        "list.zip": (whole.replace(b"PK\1\2", b"PK\1\3"), "damaged"),
        "none.zip": (b"PK\5\6" + bytes(18), "empty"),
        "zeros.zip": (bytes(2000), "empty"),
        "gzip.tar": (b"\x1f\x8b" + bytes(600), "other_format"),
        "text.zip": (b"a text", "not_a_picture"),
        "huge.tar": (pax.tobuf(tarfile.GNU_FORMAT), "damaged"),
        "cut.tar": (tar[: second + 512 + 100], "truncated"),
        "odd.tar": (tar[:second] + b"x" * 2048, "damaged"),
        "deep.tar": (b"".join([_pax(b"9 a=bcde\n")] * 3000), "damaged"),
    }
    for name, (data, _) in broken.items():
        (raw / name).write_bytes(data)

    report = clean(raw, tmp_path / "out")

    reasons = {source: reason for source, reason in dropped(report).items() if "/" not in source}
    assert reasons == {name: reason for name, (_, reason) in broken.items()}
    assert kept(report) == {"A": 3}


def _pax(record: bytes) -> bytes:
    info = tarfile.TarInfo("x")
    info.type, info.size = tarfile.XHDTYPE, len(record)
    return info.tobuf(tarfile.GNU_FORMAT) + record.ljust(512, b"\0")


def test_a_list_of_many_files_takes_no_memory(raw: Path) -> None:
    """A ZIP archive of 20,000 names is listed in less than a few of them take, a tar likewise."""
    entry = struct.pack("<4s4B4H3L5H2L", b"PK\1\2", *[0] * 4, 0, 0, 0, 0, 0, 0, 0, 6, 0, 0, 0, 0, 0, 0)
    entries = b"".join(entry + b"%06d" % number for number in range(20_000))
    end = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 20_000, 20_000, len(entries), 4, 0)
    (raw / "a.zip").write_bytes(b"PK\3\4" + entries + end)
    (raw / "a.tar").write_bytes(b"".join(tarfile.TarInfo(f"{number}").tobuf() for number in range(5_000)))

    for name, number in (("a.zip", 20_000), ("a.tar", 5_000)):
        tracemalloc.start()
        with (raw / name).open("rb") as file:
            assert sum(1 for _ in list_members(file, name, "style")) == number
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < 500_000


def test_a_member_is_read_in_part(raw: Path) -> None:
    """As a decoder does that looks here and there; beyond its end nothing comes."""
    path = tarred(raw / "a.tar", {"a.png": b"0123456789", "b.png": b"abc"})

    with open_member(path.open("rb"), members(path)[0].place) as file:
        assert file.seek(-4, io.SEEK_END) == 6
        assert file.read(100) == b"6789"
        assert (file.seek(2), file.read(3), file.tell()) == (2, b"234", 5)
        assert (file.seek(100), file.read()) == (100, b"")


def test_what_is_no_archive_says_what_it_is(raw: Path) -> None:
    """A gzip file under the name of a ZIP archive."""
    (raw / "a.zip").write_bytes(b"\x1f\x8b" + bytes(100))

    with pytest.raises(BadImage, match="a gzip archive: unpack it"):
        members(raw / "a.zip")
