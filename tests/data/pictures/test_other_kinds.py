"""What is no picture is told by its first bytes, and each kind has its own name and advice."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import pytest
from PIL import Image

from latentart.data.cleaning.picture import CleanRules, decide_picture
from latentart.data.cleaning.raw_file import RawFile
from latentart.data.cleaning.report import REMEDIES


def tga() -> bytes:
    """Return a small sound TGA."""
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8)).save(buffer, "TGA")
    return buffer.getvalue()


def zipped(files: dict[str, str]) -> bytes:
    """Return a ZIP archive of these files."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("name", "content", "reason", "detail"),
    [
        ("a.jpg", b"version https://git-lfs.github.com/spec/v1\noid sha256:12\nsize 99\n", "lfs_pointer", "Git LFS"),
        ("a.jpg", b"<!DOCTYPE html>\n<html>", "web_page", "web page"),
        ("a.jpg", "<html>".encode("utf-16"), "web_page", "web page"),
        ("a.jpg", b"<?xml version='1.0'?><svg width='1'/>", "other_format", "SVG"),
        ("a.jxl", b"\xff\x0a" + bytes(20), "other_format", "JPEG XL"),
        ("a.psd", b"8BPS\0\1" + bytes(20), "other_format", "Photoshop"),
        ("a.tga", tga(), "other_format", "TGA"),
        ("a.qoi", b"qoif" + bytes(20), "other_format", "QOI"),
        ("a.dds", b"DDS " + bytes(20), "other_format", "DDS"),
        ("a.pcx", b"\x0a\5\1\x08" + bytes(20), "other_format", "PCX"),
        ("a.zip", b"PK\3\4" + bytes(20), "other_format", "unpack"),
        ("a.xz", b"\xfd7zXZ\0" + bytes(20), "other_format", "unpack"),
        ("a.mov", b"\0\0\0\x14ftypqt  " + bytes(20), "other_format", "film"),
        ("a.3gp", b"\0\0\0\x14ftyp3gp4" + bytes(20), "other_format", "film"),
        ("a.mov", b"\0\0\0\x08wide" + bytes(20), "other_format", "film"),
        ("a.avi", b"RIFF\0\0\0\0AVI LIST" + bytes(20), "other_format", "film"),
        ("a.wmv", b"\x30\x26\xb2\x75\x8e\x66\xcf\x11" + bytes(20), "other_format", "film"),
        ("a.mpg", b"\0\0\1\xba" + bytes(20), "other_format", "film"),
        ("a.cr3", b"\0\0\0\x18ftypcrx " + bytes(20), "other_format", "camera"),
        ("a.raf", b"FUJIFILMCCD-RAW 0201" + bytes(20), "other_format", "camera"),
        ("a.orf", b"IIRO\x08\0" + bytes(20), "other_format", "camera"),
        ("a.rw2", b"IIU\0\x18\0" + bytes(20), "other_format", "camera"),
        ("a.dcm", bytes(128) + b"DICM" + bytes(20), "other_format", "DICOM"),
        ("a.fits", b"SIMPLE  =                    T".ljust(80), "other_format", "FITS"),
        ("a.wmf", b"\xd7\xcd\xc6\x9a" + bytes(20), "other_format", "WMF"),
        ("a.eps", b"\xc5\xd0\xd3\xc6" + bytes(20), "other_format", "PostScript"),
        ("a.icns", b"icns" + bytes(20), "other_format", "ICNS"),
        ("a.doc", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(20), "other_format", "office"),
        ("Art.lrcat", b"SQLite format 3\0" + bytes(20), "sidecar", ".lrcat"),
        ("Art.cocatalogdb", b"SQLite format 3\0" + bytes(20), "sidecar", "database"),
        ("a.lrprev", bytes(20), "sidecar", ".lrprev"),
        ("a.html", b"<html><body>", "sidecar", ".html"),
        ("a.vrd", b"CANON OPTIONAL DATA\0", "sidecar", ".vrd"),
        ("a.jpg", b"", "empty", "empty"),
        ("a.jpg", b"404 not found", "not_a_picture", "text"),
        ("a.jpg", bytes(50), "not_a_picture", "no known"),
        ("a.txt", b"a woman in red", "sidecar", ".txt"),
        ("a.caption2", b"a woman in red", "sidecar", "text"),
        ("a.json", b"", "sidecar", ".json"),
        ("Thumbs.db", bytes(50), "sidecar", "system"),
        ("a.djvu", b"AT&TFORM" + bytes(20), "other_format", "DjVu"),
        ("a.emf", b"\1\0\0\0".ljust(40, b"\0") + b" EMF", "other_format", "EMF"),
        ("a.tar", b"a/1.jpg".ljust(257, b"\0") + b"ustar\0", "other_format", "unpack"),
        ("a.afphoto", b"\0\xffKA" + bytes(20), "other_format", "Affinity"),
        ("a.clip", b"CSFCHUNK" + bytes(20), "other_format", "Clip Studio"),
        ("a.cdr", b"RIFF\0\0\0\0CDR9vrsn" + bytes(20), "other_format", "CorelDRAW"),
        ("a.jxr", b"II\xbc\1" + bytes(20), "other_format", "JPEG XR"),
        ("a.pam", b"P7\nWIDTH 2\n" + bytes(9000), "other_format", "PAM"),
        ("a.parquet", b"PAR1" + bytes(20), "other_format", "read in place"),
        ("a.epub", zipped({"mimetype": "application/epub+zip", "a.xml": ""}), "other_format", "a book"),
        ("a.docx", zipped({"[Content_Types].xml": "", "word/document.xml": ""}), "other_format", "office"),
        ("a.xlsx", zipped({"[Content_Types].xml": "", "xl/workbook.xml": ""}), "other_format", "office"),
        ("a.odt", zipped({"mimetype": "application/vnd.oasis.opendocument.text"}), "other_format", "office"),
        ("a.kra", zipped({"mimetype": "application/x-krita"}), "other_format", "Krita"),
        (
            "a.procreate",
            zipped(dict.fromkeys(map(str, range(99)), "") | {"Document.archive": ""}),
            "other_format",
            "Procr",
        ),
        ("a.sketch", zipped({"document.json": "{}"}), "other_format", "Sketch"),
        ("a.cbz", zipped({"1.jpg": ""}), "other_format", "unpack"),
        ("a.cbz", zipped({"1.jpg": ""})[:-10] + b"\xff" * 10, "other_format", "unpack"),
        ("a.jpg", b"../.git/annex/objects/x/y/SHA256E-s1--ab.jpg/SHA256E-s1--ab.jpg", "lfs_pointer", "annex"),
        ("a.jpg", b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>", "web_page", "server answered"),
        ("a.jpg", b'{"error": "rate limit"}', "web_page", "server answered"),
        ("a.jpg", bytes(9000), "empty", "zeros"),
        ("a.jpg", b"\xff" * 9000, "not_a_picture", "no known"),
        ("a.jpg", b"\xff\xd8\xff\xe0" + bytes(50), "too_few_bytes", "54 bytes"),
        ("a.ppm", b"P6 2 2 255\n" + bytes(12), "too_few_bytes", "23 bytes"),
    ],
)
def test_first_bytes_go_before_the_size(tmp_path: Path, name: str, content: bytes, reason: str, detail: str) -> None:
    """Only what starts like a picture we read is judged by its bytes; every reason has an advice."""
    (tmp_path / name).write_bytes(content)
    rules = CleanRules(min_bytes=5120, min_side=8, max_side=64, max_aspect=4.0)

    decision = decide_picture((RawFile(name, "A", len(content)), "A"), raw=tmp_path, out=None, rules=rules)

    assert decision.reason == reason
    assert detail in decision.detail
    assert len(set(REMEDIES.values())) == len(REMEDIES)
    assert reason in REMEDIES
