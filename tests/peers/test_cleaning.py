"""Cleaning beside a plain pipeline of Pillow, memory beside the number of files, latents beside a training step."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from latentart.process.devices import Placement
from peers.cache import bench_cache
from peers.clean import bench_clean
from peers.memory import BenchSizes, bench_hashes, bench_index, bench_memory

pytestmark = pytest.mark.peers


@pytest.fixture(scope="module")
def sizes(*, is_quick: bool) -> BenchSizes:
    """Return how much is made up."""
    return BenchSizes().scaled(0.05) if is_quick else BenchSizes()


def test_clean(show: Any, sizes: BenchSizes, tmp_path: Path) -> None:
    """At least 1.8 times the plain pipeline's rate; what is reduced while it is decoded keeps a PSNR of 40 dB."""
    found = show(bench_clean(tmp_path, sizes.scans))

    assert found["clean-data over plain pipeline"].number >= 1.8
    assert found["PSNR of reduced decoding, worst picture"].number >= 40


def test_memory(show: Any, sizes: BenchSizes, tmp_path: Path) -> None:
    """Ten times as many files take at most a tenth more."""
    assert show(bench_memory(tmp_path, sizes))["growth of the peak"].number <= 0.1


def test_index(show: Any, sizes: BenchSizes, tmp_path: Path) -> None:
    """A second run over half a million pictures: 120 s and a gigabyte."""
    (found,) = show(bench_index(tmp_path, sizes)).values()

    assert found.number < 120
    assert found.numbers["B"] < 1e9


def test_hashes(show: Any, sizes: BenchSizes) -> None:
    """Near-duplicates among half a million hashes in a minute."""
    (found,) = show(bench_hashes(sizes.rows)).values()

    assert found.number < 60


def test_cache(show: Any, sizes: BenchSizes, placement: Placement, tmp_path: Path) -> None:
    """Cached latents come 50 times as fast as by encoding, and a training waits for less than 2 % of a step."""
    found = show(bench_cache(tmp_path, sizes.ldm_steps, placement))

    assert found["reading over encoding"].number >= 50
    assert found["share of an LDM step spent waiting for data"].number < 0.02
