"""What a file is that is no picture we read, and what would make one of it; its first bytes say it, whatever its size.

The name decides only about what holds none of the known signatures: a text beside a picture is a caption, the same
text under the name of a picture is a picture that went wrong.
"""

from __future__ import annotations

import re
from io import SEEK_END
from pathlib import PurePosixPath
from typing import BinaryIO

HEAD = 1024
LIST = 1 << 16  # bytes of a ZIP archive's list that are looked at
PICTURE_ENDINGS = (
    *("", ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".avif", ".heic"),
    *(".heif", ".jp2", ".j2k", ".jxl", ".ppm", ".pgm", ".pbm", ".pnm", ".psd", ".svg", ".tga", ".pcx", ".qoi"),
    *(".dds", ".ico", ".image", ".img", ".pic"),
)
SYSTEM_FILES = ("thumbs.db", "desktop.ini", "ehthumbs.db", "icon\r", "picasa.ini")
BESIDE_PICTURES = (
    *(".xmp", ".json", ".jsonl", ".txt", ".caption", ".csv", ".tsv", ".xml", ".yaml", ".yml", ".md", ".log", ".ini"),
    *(".pp3", ".aae", ".thm", ".npy", ".npz", ".safetensors", ".pt", ".pkl", ".db", ".lnk", ".url", ".webloc"),
    *(".lock", ".torrent", ".nfo", ".md5", ".sha256", ".py", ".pyc", ".sh", ".bat", ".lrcat", ".lrcat-journal"),
    *(".lrprev", ".lrmprev", ".dop", ".cos", ".cop", ".cot", ".on1", ".nksc", ".arp", ".sqlite", ".abr", ".aco"),
    *(".vrd", ".jbf", ".exif", ".ffs_db", ".html", ".htm", ".mhtml"),
    *(".mp3", ".m4a", ".wav", ".ogg", ".flac", ".ttf", ".otf", ".woff", ".woff2"),
)
CAMERA = "a raw camera file: export it as TIFF or JPEG with its maker's program"
FILM = "a film: take pictures out of it, as with ffmpeg"
TAKE = "take the pictures out of it"
DRAW, EXPORT, TURN = "draw it as PNG in the size you want", "export it as PNG", "turn it into PNG"
OFFICE = f"a document of an office program: {TAKE}"
TABLE = f"a table or array of numbers: {TAKE} if it holds any"
FORMATS = {
    b"\xff\x0a": f"JPEG XL: {TURN}, as with djxl",
    b"\0\0\0\x0cJXL \r\n\x87\n": f"JPEG XL: {TURN}, as with djxl",
    b"II\xbc\1": f"JPEG XR: {TURN}",
    b"BPG\xfb": f"BPG: {TURN}",
    b"FLIF": f"FLIF: {TURN}",
    b"P7\n": f"PAM: {TURN}",
    b"qoif": f"QOI: {TURN}",
    b"\1\xda\0": f"SGI: {TURN}",
    b"\1\xda\1": f"SGI: {TURN}",
    b"\x59\xa6\x6a\x95": f"Sun Raster: {TURN}",
    b"\0\0\2\0\0\0\0\0\0\0\0\0": f"TGA: {TURN}",
    b"DDS ": f"DDS, a texture: {TURN}",
    b"VTF\0": f"VTF, a texture: {TURN}",
    b"BLP": f"BLP, a texture: {TURN}",
    b"\xabKTX ": f"KTX, a texture: {TURN}",
    b"icns": f"ICNS, an icon: {TURN}",
    b"\0\0\1\0": f"ICO, an icon: {TURN}",
    b"\0\0\2\0\1\0": f"CUR, a mouse pointer: {TURN}",
    b"SIMPLE  =": f"FITS, of a telescope: {TURN} or TIFF",
    b"\x76\x2f\x31\x01": "OpenEXR: save it with 8 bits per channel",
    b"#?RADIANCE": "Radiance HDR: save it with 8 bits per channel",
    b"8BPS": "Photoshop: save it as TIFF or PNG",
    b"gimp xcf": f"GIMP: {EXPORT}",
    b"\0\xffKA": f"Affinity: {EXPORT}",
    b"CSFCHUNK": f"Clip Studio Paint: {EXPORT}",
    b"SAI-CANVAS": f"PaintTool SAI: {EXPORT}",
    b"PDN3": f"Paint.NET: {EXPORT}",
    b"Paint Shop Pro Image File": f"PaintShop Pro: {EXPORT}",
    b"BLENDER": "Blender: render it as PNG",
    b"\x06\x06\xed\xf5": f"InDesign: {EXPORT}",
    b"%!PS": f"PostScript: {DRAW}",
    b"\xc5\xd0\xd3\xc6": f"PostScript: {DRAW}",
    b"\xd7\xcd\xc6\x9a": f"WMF, a drawing of lines: {DRAW}",
    b"\1\0\x09\0\0\3": f"WMF, a drawing of lines: {DRAW}",
    b"%PDF": f"PDF: {TAKE}, as with pdfimages",
    b"AT&TFORM": f"DjVu: {TAKE}, as with ddjvu",
    b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1": OFFICE,
    b"{\\rtf": OFFICE,
    **dict.fromkeys((b"FUJIFILMCCD-RAW", b"IIRO", b"IIRS", b"IIU\0", b"FOVb", b"\0MRM"), CAMERA),
    b"PAR1": f"Parquet: call it .parquet and it is read in place, or {TAKE}",
    **dict.fromkeys((b"ARROW1", b"\x89HDF", b"\x93NUMPY", b"MATLAB 5"), TABLE),
    b"BZh": "a bzip2 archive: unpack it",
    b"\xfd7zXZ\0": "an xz archive: unpack it",
    b"\x28\xb5\x2f\xfd": "a Zstandard archive: unpack it",
    b"PK\3\4": "a ZIP archive: unpack it, or call it .zip and it is read in place",
    b"Rar!\x1a\x07": "a RAR archive: unpack it",
    b"7z\xbc\xaf\x27\x1c": "a 7z archive: unpack it",
    b"\x1f\x8b": "a gzip archive: unpack it",
    **dict.fromkeys(
        (b"\x1a\x45\xdf\xa3", b"\0\0\1\xba", b"\x30\x26\xb2\x75\x8e\x66\xcf\x11", b"FLV\1", b"\x8aMNG"), FILM
    ),
}
AT_OFFSETS = {  # what stands further on
    (4, b"ftypcrx "): CAMERA,
    **dict.fromkeys(((4, box) for box in (b"ftyp", b"moov", b"mdat", b"wide")), FILM),  # of MP4 and QuickTime
    (4, b"\xe0\xa5"): f"Aseprite: {EXPORT}",
    (8, b"AVI "): FILM,
    (8, b"CDR"): f"CorelDRAW: {DRAW}",
    (40, b" EMF"): f"EMF, a drawing of lines: {DRAW}",
    (128, b"DICM"): f"DICOM, of a clinic: {TURN} or TIFF",
    (257, b"ustar"): "a tar archive: unpack it, or call it .tar and it is read in place",
}
IN_ZIP = {  # what stands in the first file of an archive, or in the list of all
    b"application/epub+zip": f"EPUB, a book: {TAKE}",
    b"application/x-krita": f"Krita: {EXPORT}",
    b"image/openraster": f"OpenRaster: {EXPORT}",
    **dict.fromkeys((b"word/document.", b"xl/workbook.", b"ppt/presentation."), OFFICE),
    **dict.fromkeys((b"application/vnd.oasis.", b"Index/Document.iwa"), OFFICE),
    b"Document.archive": f"Procreate: {EXPORT}",
    b"document.json": f"Sketch: {EXPORT}",
    b"riffData.cdr": f"CorelDRAW: {DRAW}",
}
SVG = re.compile(rb"<svg[\s>]", re.IGNORECASE)
PAGE = re.compile(rb"<(!doctype\s+html|html|head|body|title|script|meta)[\s>]", re.IGNORECASE)


ANNEX = re.compile(rb"^(\.\./|/)[\w./]*annex/objects/")
ANSWER = re.compile(rb"\s*[{\[<]")  # how a server says what went wrong


def name_other_kind(start: bytes, source: str, file: BinaryIO | None = None) -> tuple[str, str]:
    """Return (reason, detail) of a file that starts with these up to 1024 bytes and is none of the formats we read.

    Of a ZIP archive more is read from ``file``, its list. Reasons: empty, lfs_pointer, web_page, other_format,
    sidecar, not_a_picture.
    """
    path = PurePosixPath(source.lower())
    is_meant = path.suffix in PICTURE_ENDINGS
    if path.name in SYSTEM_FILES or path.suffix in BESIDE_PICTURES:
        return "sidecar", f"a file of the system or about a picture: {path.suffix or path.name}"
    if start.startswith(b"SQLite format 3\0"):
        return "sidecar", "a database, as of a program that keeps pictures"
    if not start:
        return "empty", "the file is empty"
    if start == bytes(HEAD):
        return "empty", "nothing but zeros, as where a copy broke off"
    if start.startswith(b"version https://git-lfs.github.com/spec/"):
        return "lfs_pointer", "a pointer of Git LFS in place of the picture"
    if ANNEX.search(start):
        return "lfs_pointer", "a pointer of git-annex in place of the picture"
    if kind := _other_format(start, path.suffix, file):
        return "other_format", kind
    text = _text_of(start)
    if PAGE.search(text):
        return "web_page", "a saved web page"
    if is_meant and ANSWER.match(text):
        return "web_page", "what a server answered in place of the picture"
    if text:
        return ("not_a_picture", "a text") if is_meant else ("sidecar", "a text")
    return "not_a_picture", "the content is of no known picture format"


def _other_format(start: bytes, ending: str, file: BinaryIO | None) -> str:
    if file and start.startswith(b"PK\3\4"):
        shown = start + _list_of_zip(file)
        if kinds := [kind for name, kind in IN_ZIP.items() if name in shown]:
            return kinds[0]
    for signature, kind in FORMATS.items():
        if start.startswith(signature):
            return kind
    text = _text_of(start)
    if SVG.search(text) and not PAGE.match(text.lstrip()):
        return f"SVG, a drawing of lines: {DRAW}"
    for (offset, signature), kind in AT_OFFSETS.items():
        if start.startswith(signature, offset):
            return kind
    if start[:1] == b"\x0a" and start[1:2] in b"\0\2\3\4\5" and start[2:3] in b"\0\1" and start[3:4] in b"\1\2\4\x08":
        return f"PCX: {TURN}"
    is_tga = start[1:2] in b"\0\1" and start[2:3] in b"\1\2\3\x09\x0a\x0b" and start[16:17] in b"\x08\x0f\x10\x18\x20"
    if is_tga and len(start) > 18 and ending in (".tga", ".icb", ".vda", ".vst"):
        return f"TGA: {TURN}"
    return ""


def _list_of_zip(file: BinaryIO) -> bytes:
    """Return the beginning of a ZIP archive's list of files, or nothing where its end does not say where that is."""
    size = file.seek(0, SEEK_END)
    file.seek(max(0, size - LIST))
    end = file.read()
    at = end.rfind(b"PK\5\6")
    length = int.from_bytes(end[at + 12 : at + 16], "little") if at >= 0 else 0
    file.seek(max(0, size - len(end) + at - length))
    return file.read(min(length, LIST))


def _text_of(start: bytes) -> bytes:
    """Return the bytes without a byte order mark and without what UTF-16 puts between letters, or none if no text."""
    if start.startswith((b"\xff\xfe", b"\xfe\xff")):
        start = start[2:].replace(b"\0", b"")
    text = start.removeprefix(b"\xef\xbb\xbf")
    odd = sum(byte < 9 or 13 < byte < 32 or byte in (127, 254, 255) for byte in text[:HEAD])
    return text if not odd else b""
