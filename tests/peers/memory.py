"""What cleaning costs in memory, and what doing it again costs, on made-up folders of many files."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from latentart.data.cleaning.near_duplicates import first_of_kind
from latentart.planning.rates import seconds_of
from peers.figures import Figure
from peers.raw import MAX_SIDE, QUALITY, write_cleaned_folder, write_pictures

SMALL = (96, 120)


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


def bench_memory(folder: Path, sizes: BenchSizes) -> Iterator[Figure]:
    """Clean few and many small files and compare the peaks of all processes together."""
    peaks = []
    for count in (sizes.few, sizes.many):
        raw = folder / f"raw{count}"
        write_pictures(raw, range(count), SMALL)
        seconds, peak = run_measured([str(raw), "--out", str(folder / f"clean{count}"), "data.near_duplicates=keep"])
        peaks.append(peak)
        value = f"{seconds:.1f} s, peak {peak / 1e6:.0f} MB in all processes"
        yield Figure(f"{count} small files", value, number=peak, unit="B", numbers={"s": seconds})
    growth = peaks[1] / peaks[0] - 1
    yield Figure("growth of the peak", f"{growth:.1%}", number=growth)


def bench_index(folder: Path, sizes: BenchSizes) -> Iterator[Figure]:
    """Clean a made-up folder a second time, in which nothing has changed."""
    raw, out = folder / "raw", folder / "clean"
    write_cleaned_folder(raw, out, sizes.rows)
    seconds, peak = run_measured([str(raw), "--out", str(out)])
    value = f"{seconds:.0f} s, peak {peak / 1e6:.0f} MB"
    yield Figure(f"second run over {sizes.rows} rows", value, seconds, "s", {"B": peak})


def bench_hashes(count: int) -> Iterator[Figure]:
    """Look up near-duplicates among made-up hashes, a third of them near to one of few."""
    rng = np.random.default_rng(0)
    hashes = rng.integers(0, 256, (count, 48), dtype=np.uint8)
    crowd = rng.choice(count, count // 3, replace=False)
    hashes[crowd] = hashes[crowd % 10]
    hashes[crowd, rng.integers(0, 32, len(crowd))] ^= 1
    texts = [row.tobytes().hex() for row in hashes]
    seconds = seconds_of(lambda: first_of_kind(texts))
    yield Figure(f"near-duplicates among {count} hashes", f"{seconds:.0f} s", seconds, "s")


def run_measured(arguments: list[str]) -> tuple[float, int]:
    """Run clean-data in a process of its own; return its seconds and the peak of all its processes, in bytes."""
    rules = ["data.min_bytes=0", "data.min_side=1", f"data.max_side={MAX_SIDE}", f"data.quality={QUALITY}"]
    command = [sys.executable, "-m", "latentart", "clean-data", *arguments, *rules, "--quiet", "--json"]
    began = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
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
