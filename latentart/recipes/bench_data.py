"""`latentart bench data`: what cleaning costs on this machine, beside what it is measured against.

Everything is made up in a temporary folder, which is removed in the end. Ratios are taken within one run, as machines
differ and are busy with other things.
"""

from __future__ import annotations

import contextlib
import functools
import io
import math
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFilter

from latentart.data.clean import clean_folder
from latentart.data.clean_journal import open_journal
from latentart.data.clean_picture import CleanRules, Decision, stamp_of
from latentart.data.images import MAX_PIXELS, WHITE, decode_image
from latentart.data.near_duplicates import first_of_kind
from latentart.data.raw_files import RawFile
from latentart.recipes.bench_figures import Figure, seconds_of

SCAN = (1800, 2200)
SMALL = (96, 120)
MAX_SIDE = 640
QUALITY = 95
DRAWN = 12  # different pictures; all the others are these with another comment inside
LINKS = 5000  # names for one file, below what file systems allow


@dataclass(frozen=True)
class BenchSizes:
    """How much is made up: pictures of scan size, small files (few and many), rows of an index, denoiser steps."""

    scans: int = 2_000
    few: int = 2_000
    many: int = 20_000
    rows: int = 500_000
    ldm_steps: int = 200

    def scaled(self, share: float) -> BenchSizes:
        """Return smaller sizes, for a quick look."""
        counts = (self.scans, self.few, self.many, self.rows, self.ldm_steps)
        return BenchSizes(*(max(40, int(count * share)) for count in counts))


def bench_data(folder: Path, sizes: BenchSizes, parts: Sequence[str], device: str | None) -> Iterator[Figure]:
    """Yield the figures of the given parts: clean, memory, index, cache; ``folder`` is an empty one to work in."""
    for part in parts:
        place = folder / part
        place.mkdir()
        if part == "cache":
            # here, as the processes of the other parts import this module and must start fast
            from latentart.recipes.bench_cache import bench_cache
            from latentart.training.devices import Placement, choose_device

            yield from bench_cache(place, sizes.ldm_steps, Placement(choose_device(device)))
        else:
            yield from {"clean": bench_clean, "memory": bench_memory, "index": bench_index}[part](place, sizes)
        shutil.rmtree(place)


def bench_clean(folder: Path, sizes: BenchSizes) -> Iterator[Figure]:
    """Clean scans and compare with the plain pipeline: the same steps by Pillow alone, without any check."""
    workers = os.cpu_count() or 1
    plain, ours = 0.0, 0.0
    drawn: list[Path] = []
    # in turns, as the machine may get busier or calmer
    for turn, numbers in enumerate((range(sizes.scans // 2), range(sizes.scans // 2, sizes.scans))):
        raw = folder / f"raw{turn}"
        paths = write_pictures(raw, numbers, SCAN)
        drawn = drawn or paths[:DRAWN]
        plain += seconds_of(partial(_plain_pipeline, paths, folder / f"plain{turn}", workers))
        ours += seconds_of(partial(_clean, raw, folder / f"clean{turn}", workers))
    mean_bytes = sum(path.stat().st_size for path in drawn) / len(drawn)
    yield Figure("pictures of 1800 x 2200", f"{sizes.scans}, {mean_bytes / 1e6:.2f} MB each on average")
    yield Figure("plain pipeline", f"{sizes.scans / plain:.1f} pictures/s in {workers} processes")
    yield Figure("clean-data", f"{sizes.scans / ours:.1f} pictures/s in {workers} processes")
    ratio = plain / ours
    yield Figure("clean-data over plain pipeline", f"{ratio:.2f} times", "at least 1.8", ratio >= 1.8)
    psnr = min(_psnr_of_reduced_decoding(path) for path in drawn)
    yield Figure("PSNR of reduced decoding, worst picture", f"{psnr:.1f} dB", "at least 40 dB", psnr >= 40)


def bench_memory(folder: Path, sizes: BenchSizes) -> Iterator[Figure]:
    """Clean few and many small files and compare the peaks of all processes together."""
    peaks = []
    for count in (sizes.few, sizes.many):
        raw = folder / f"raw{count}"
        write_pictures(raw, range(count), SMALL)
        seconds, peak = run_measured([str(raw), "--out", str(folder / f"clean{count}"), "data.near_duplicates=keep"])
        peaks.append(peak)
        yield Figure(f"{count} small files", f"{seconds:.1f} s, peak {peak / 1e6:.0f} MB in all processes")
    growth = peaks[1] / peaks[0] - 1
    yield Figure("growth of the peak", f"{growth:.1%}", "at most 10 %", growth <= 0.1)


def bench_index(folder: Path, sizes: BenchSizes) -> Iterator[Figure]:
    """Clean a made-up folder a second time, in which nothing has changed."""
    raw, out = folder / "raw", folder / "clean"
    write_cleaned_folder(raw, out, sizes.rows)
    seconds, peak = run_measured([str(raw), "--out", str(out)])
    is_met = seconds < 120 and peak < 1e9
    yield Figure(
        f"second run over {sizes.rows} rows", f"{seconds:.0f} s, peak {peak / 1e6:.0f} MB", "120 s, 1000 MB", is_met
    )
    yield from bench_hashes(sizes.rows)


def bench_hashes(count: int) -> Iterator[Figure]:
    """Look up near-duplicates among made-up hashes, a third of them near to one of few."""
    rng = np.random.default_rng(0)
    hashes = rng.integers(0, 256, (count, 48), dtype=np.uint8)
    crowd = rng.choice(count, count // 3, replace=False)
    hashes[crowd] = hashes[crowd % 10]
    hashes[crowd, rng.integers(0, 32, len(crowd))] ^= 1
    texts = [row.tobytes().hex() for row in hashes]
    seconds = seconds_of(lambda: first_of_kind(texts))
    yield Figure(f"near-duplicates among {count} hashes", f"{seconds:.0f} s", "60 s", seconds < 60)


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
    rules = CleanRules(0, 1, MAX_SIDE, 4.0, "jpeg", QUALITY, WHITE, MAX_PIXELS, 60.0)
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


def run_measured(arguments: list[str]) -> tuple[float, int]:
    """Run clean-data in a process of its own; return its seconds and the peak of all its processes, in bytes."""
    rules = ["data.min_bytes=0", "data.min_side=1", f"data.max_side={MAX_SIDE}", f"data.quality={QUALITY}"]
    command = [sys.executable, "-m", "latentart", "clean-data", *arguments, *rules, "--quiet", "--json"]
    began = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:  # noqa: S603 - our own command
        peak = 0
        while process.poll() is None:
            peak = max(peak, _resident_bytes(process.pid))
            time.sleep(0.02)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    return time.perf_counter() - began, peak


def _resident_bytes(pid: int) -> int:
    """Return the memory a process and its children use now; 0 where the system does not tell."""
    total = 0
    with contextlib.suppress(OSError, ValueError):
        total += int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
            total += _resident_bytes(int(child))
    return total


def _plain_pipeline(paths: list[Path], out: Path, workers: int) -> None:
    out.mkdir()
    with ProcessPoolExecutor(workers, get_context("spawn")) as pool:
        for _ in pool.map(partial(_plain_picture, out), paths, chunksize=8):
            pass


def _plain_picture(out: Path, path: Path) -> None:
    image = Image.open(path).convert("RGB")
    scale = MAX_SIDE / min(image.size)
    size = (round(image.width * scale), round(image.height * scale))
    image.resize(size, Image.Resampling.LANCZOS).save(out / path.name, quality=QUALITY, subsampling=0)


def _clean(raw: Path, out: Path, workers: int) -> None:
    report = clean_folder(
        raw, out, min_bytes=0, min_side=1, max_side=MAX_SIDE, max_aspect=4.0, quality=QUALITY, workers=workers
    )
    assert report.num_dropped == 0, report.dropped[:3]


def _psnr_of_reduced_decoding(path: Path) -> float:
    whole = Image.open(path).convert("RGB")
    scale = MAX_SIDE / min(whole.size)
    size = (round(whole.width * scale), round(whole.height * scale))
    expected = np.asarray(whole.resize(size, Image.Resampling.LANCZOS), np.float64)
    error = np.asarray(decode_image(path, max_side=MAX_SIDE), np.float64) - expected
    return float(10 * np.log10(255**2 / np.square(error).mean()))
