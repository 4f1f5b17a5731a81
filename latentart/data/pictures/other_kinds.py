"""What a file is that is no picture we read, and what would make one of it; its first bytes say it, whatever its size.

The name decides only about what holds none of the known signatures: a text beside a picture is a caption, the same
text under the name of a picture is a picture that went wrong.
"""

from __future__ import annotations

import re
from pathlib import PurePosixPath

HEAD = 1024
PICTURE_ENDINGS = (
    *("", ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".avif", ".heic"),
    *(".heif", ".jp2", ".j2k", ".jxl", ".ppm", ".pgm", ".pbm", ".pnm", ".psd", ".svg", ".tga", ".pcx", ".qoi"),
    *(".dds", ".ico", ".image", ".img", ".pic"),
)
SYSTEM_FILES = ("thumbs.db", "desktop.ini", "ehthumbs.db", "icon\r", "picasa.ini")
BESIDE_PICTURES = (
    *(".xmp", ".json", ".jsonl", ".txt", ".caption", ".csv", ".tsv", ".xml", ".yaml", ".yml", ".md", ".log", ".ini"),
    *(".pp3", ".aae", ".thm", ".npy", ".npz", ".safetensors", ".pt", ".pkl", ".parquet", ".db", ".lnk", ".url"),
    *(".lock", ".torrent", ".nfo", ".md5", ".sha256", ".py", ".pyc", ".sh", ".bat", ".lrcat", ".lrcat-journal"),
    *(".lrprev", ".lrmprev", ".dop", ".cos", ".on1", ".nksc", ".arp", ".sqlite"),
    *(".mp3", ".m4a", ".wav", ".ogg", ".flac", ".ttf"),
)
CAMERA = "a raw camera file: export it as TIFF or JPEG with its maker's program"
BOXES = (b"ftyp", b"moov", b"mdat", b"wide")  # what films of MP4 and QuickTime begin with
FILM = "a film: take pictures out of it, as with ffmpeg"
FORMATS = {
    b"\xff\x0a": "JPEG XL: turn it into PNG, as with djxl",
    b"\0\0\0\x0cJXL \r\n\x87\n": "JPEG XL: turn it into PNG, as with djxl",
    b"8BPS": "Photoshop: save it as TIFF or PNG",
    b"qoif": "QOI: turn it into PNG",
    b"DDS ": "DDS, a texture: turn it into PNG",
    b"%PDF": "PDF: take the pictures out of it, as with pdfimages",
    b"%!PS": "PostScript: draw it as PNG in the size you want",
    b"\xc5\xd0\xd3\xc6": "PostScript: draw it as PNG in the size you want",
    b"SIMPLE  =": "FITS, of a telescope: turn it into PNG or TIFF",
    b"\xd7\xcd\xc6\x9a": "WMF, a drawing of lines: draw it as PNG in the size you want",
    b"icns": "ICNS, an icon: turn it into PNG",
    b"FUJIFILMCCD-RAW": CAMERA,
    b"IIRO": CAMERA,
    b"IIRS": CAMERA,
    b"IIU\0": CAMERA,
    b"FOVb": CAMERA,
    b"\0MRM": CAMERA,
    b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1": "a document of an office program: take the pictures out of it",
    b"BZh": "a bzip2 archive: unpack it",
    b"\xfd7zXZ\0": "an xz archive: unpack it",
    b"\x28\xb5\x2f\xfd": "a Zstandard archive: unpack it",
    b"\0\0\1\0": "ICO, an icon: turn it into PNG",
    b"\0\0\2\0\0\0\0\0\0\0\0\0": "TGA: turn it into PNG",
    b"gimp xcf": "GIMP: export it as PNG",
    b"\x76\x2f\x31\x01": "OpenEXR: save it with 8 bits per channel",
    b"#?RADIANCE": "Radiance HDR: save it with 8 bits per channel",
    b"PK\3\4": "a ZIP archive: unpack it",
    b"Rar!\x1a\x07": "a RAR archive: unpack it",
    b"7z\xbc\xaf\x27\x1c": "a 7z archive: unpack it",
    b"\x1f\x8b": "a gzip archive: unpack it",
    b"\x1a\x45\xdf\xa3": FILM,
    b"\0\0\1\xba": FILM,
    b"\x30\x26\xb2\x75\x8e\x66\xcf\x11": FILM,
    b"FLV\1": FILM,
}
SVG = re.compile(rb"<svg[\s>]", re.IGNORECASE)
PAGE = re.compile(rb"<(!doctype\s+html|html|head|body|title|script|meta)[\s>]", re.IGNORECASE)


def name_other_kind(start: bytes, source: str) -> tuple[str, str]:
    """Return (reason, detail) of a file that starts with these up to 1024 bytes and is none of the formats we read.

    Reasons: empty, lfs_pointer, web_page, other_format, sidecar, not_a_picture.
    """
    path = PurePosixPath(source.lower())
    is_meant = path.suffix in PICTURE_ENDINGS
    if path.name in SYSTEM_FILES or path.suffix in BESIDE_PICTURES:
        return "sidecar", f"a file of the system or about a picture: {path.suffix or path.name}"
    if start.startswith(b"SQLite format 3\0"):
        return "sidecar", "a database, as of a program that keeps pictures"
    if not start:
        return "empty", "the file is empty"
    if start.startswith(b"version https://git-lfs.github.com/spec/"):
        return "lfs_pointer", "a pointer of Git LFS in place of the picture"
    if kind := _other_format(start, path.suffix):
        return "other_format", kind
    text = _text_of(start)
    if PAGE.search(text):
        return "web_page", "a saved web page"
    if text:
        return ("not_a_picture", "a text") if is_meant else ("sidecar", "a text")
    return "not_a_picture", "the content is of no known picture format"


def _other_format(start: bytes, ending: str) -> str:
    for signature, kind in FORMATS.items():
        if start.startswith(signature):
            return kind
    text = _text_of(start)
    if SVG.search(text) and not PAGE.match(text.lstrip()):
        return "SVG, a drawing of lines: draw it as PNG in the size you want"
    if start[128:132] == b"DICM":
        return "DICOM, of a clinic: turn it into PNG or TIFF"
    if start[4:12] == b"ftypcrx ":
        return CAMERA
    if start[4:8] in BOXES or (start[:4] == b"RIFF" and start[8:12] == b"AVI "):
        return FILM
    if start[:1] == b"\x0a" and start[1:2] in b"\0\2\3\4\5" and start[2:3] in b"\0\1" and start[3:4] in b"\1\2\4\x08":
        return "PCX: turn it into PNG"
    is_tga = start[1:2] in b"\0\1" and start[2:3] in b"\1\2\3\x09\x0a\x0b" and start[16:17] in b"\x08\x0f\x10\x18\x20"
    if is_tga and len(start) > 18 and ending in (".tga", ".icb", ".vda", ".vst"):
        return "TGA: turn it into PNG"
    return ""


def _text_of(start: bytes) -> bytes:
    """Return the bytes without a byte order mark and without what UTF-16 puts between letters, or none if no text."""
    if start.startswith((b"\xff\xfe", b"\xfe\xff")):
        start = start[2:].replace(b"\0", b"")
    text = start.removeprefix(b"\xef\xbb\xbf")
    odd = sum(byte < 9 or 13 < byte < 32 or byte == 127 for byte in text[:HEAD])
    return text if not odd else b""
