"""What is cleaned: pictures like scans to a compressor, and data sets without any picture drawn."""

from __future__ import annotations

import functools
import io
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFilter

from latentart.data.cleaning.journal import open_journal
from latentart.data.cleaning.picture import CleanRules, Decision, stamp_of
from latentart.data.cleaning.raw_file import RawFile

MAX_SIDE = 640
QUALITY = 95
DRAWN = 12  # different pictures; all the others are these with another comment inside
LINKS = 5000  # names for one file, below what file systems allow


def write_pictures(folder: Path, numbers: range, size: tuple[int, int]) -> list[Path]:
    """Write JPEGs that compress like paintings and photographs do: few are drawn, all differ in their bytes."""
    paths = []
    for number in numbers:
        path = folder / f"style{number % 4}" / f"{number:06d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        content = _drawn_file(number % DRAWN, size)
        comment = b"\xff\xfe\x00\x0a" + f"{number:08d}".encode()
        path.write_bytes(content[:2] + comment + content[2:])
        paths.append(path)
    return paths


@functools.cache
def _drawn_file(seed: int, size: tuple[int, int]) -> bytes:
    file = io.BytesIO()
    draw_scan(seed, size).save(file, "JPEG", quality=85 + seed % 3 * 5)
    return file.getvalue()


def draw_scan(seed: int, size: tuple[int, int]) -> Image.Image:
    """Draw what natural pictures are like to a compressor: 1/f noise (Field 1987), edges, little color, grain."""
    rng = np.random.default_rng(seed)
    width, height = size
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None])
    frequency[0, 0] = 1.0

    def noise(strength: float) -> npt.NDArray[Any]:
        plane = np.fft.irfft2(np.fft.rfft2(rng.standard_normal((height, width))) / frequency, (height, width))
        return strength * (plane - plane.mean()) / plane.std()

    brightness, blue, red = 128 + noise(45), noise(14), noise(14)
    pixels = np.stack([brightness + 1.40 * red, brightness - 0.34 * blue - 0.71 * red, brightness + 1.77 * blue], -1)
    y, x = np.mgrid[:height, :width]
    for _ in range(12):
        angle, place, color = rng.uniform(0, math.pi), rng.uniform(0.2, 0.8), rng.uniform(-40, 40, 3)
        distance = (x - width * place) * math.cos(angle) + (y - height * place) * math.sin(angle)
        pixels += np.clip(distance / 1.5 + 0.5, 0, 1)[..., None] * color
    pixels += rng.normal(0, 2, (height, width, 1))
    drawn = Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
    return drawn.filter(ImageFilter.GaussianBlur(0.6))  # a lens


def write_cleaned_folder(raw: Path, out: Path, count: int) -> None:
    """Make a raw folder and its data set of so many pictures up, without drawing any."""
    rules = CleanRules(min_bytes=0, min_side=1, max_side=MAX_SIDE, max_aspect=4.0, quality=QUALITY)
    rng = np.random.default_rng(0)
    for folder in (raw, out):
        folder.mkdir()
    with open_journal(out) as journal:
        journal.list_files(_made_up_files(raw, count), rules)
        for i, found in enumerate(journal.undecided()):
            file = f"{found.style}/{i:024x}.jpg"
            _link(out, file, i)
            decision = Decision(
                found.source,
                stamp_of(found, rules, ""),
                raw_width=1800,
                raw_height=2200,
                sha256=rng.bytes(32).hex(),
                phash=rng.bytes(48).hex(),
                file=file,
                num_bytes=1,
                width=640,
                height=782,
            )
            journal.note(decision)


def _made_up_files(raw: Path, count: int) -> Iterator[RawFile]:
    for i in range(count):
        style = f"Style_{i % 30}"
        source = f"{style}/a-painter_a-picture-with-a-name-{i:07d}.jpg"
        info = _link(raw, source, i).stat()
        yield RawFile(source, style, info.st_size, info.st_mtime_ns)


def _link(folder: Path, name: str, number: int) -> Path:
    """Return one more name for a file of one byte: as good as a file to whoever only asks for size and time."""
    path = folder / name
    origin = folder.with_name(f"{folder.name}-{number // LINKS}")
    if not origin.exists():
        origin.write_bytes(b"x")
    path.parent.mkdir(exist_ok=True)
    path.hardlink_to(origin)
    return path
