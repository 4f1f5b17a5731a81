"""Cleaning beside a plain pipeline of Pillow, full decoding and the disk."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from PIL import Image

from latentart.data.cleaning.clean import clean_folder
from latentart.data.cleaning.picture import CleanRules
from latentart.data.pictures.decode import decode_image
from peers.figures import Figure
from peers.limits import decode_all, write_rate
from peers.raw import DRAWN, MAX_SIDE, QUALITY, write_pictures

SCAN = (1800, 2200)


def bench_clean(folder: Path, count: int) -> Iterator[Figure]:
    """Clean so many scans, and compare with the plain pipeline: the same steps by Pillow alone, without any check.

    Full decoding alone and the disk are measured beside them as limits; what is reduced while it is decoded can exceed
    the former.
    """
    from latentart.planning.rates import seconds_of  # here, as the processes of the pipeline import this module

    workers = os.cpu_count() or 1
    names, seconds = ("plain pipeline", "clean-data", "full decoding alone"), [0.0, 0.0, 0.0]
    drawn: list[Path] = []
    # in turns, as the machine may get busier or calmer
    for turn, numbers in enumerate((range(count // 2), range(count // 2, count))):
        raw, clean = folder / f"raw{turn}", folder / f"clean{turn}"
        paths = write_pictures(raw, numbers, SCAN)
        drawn = drawn or paths[:DRAWN]
        works = (
            partial(_plain_pipeline, paths, folder / f"plain{turn}", workers),
            partial(_clean, raw, clean, workers),
            partial(decode_all, paths, workers),
        )
        seconds = [sum(both) for both in zip(seconds, map(seconds_of, works), strict=True)]
    mean_bytes = sum(path.stat().st_size for path in drawn) / len(drawn)
    value = f"{count}, {mean_bytes / 1e6:.2f} MB each on average"
    yield Figure("pictures of 1800 x 2200", value, number=count, numbers={"B": mean_bytes})
    rates = {name: count / each for name, each in zip(names, seconds, strict=True)}
    for name, rate in rates.items():
        value = f"{rate:.1f} pictures/s in {workers} processes"
        yield Figure(name, value, number=rate, unit="pictures/s")
    plain, ours, decoding = rates.values()
    ratio = ours / plain
    yield Figure("clean-data over plain pipeline", f"{ratio:.2f} times", ratio)
    yield Figure("clean-data over full decoding alone", f"{ours / decoding:.2f} times", number=ours / decoding)
    written = sum(path.stat().st_size for path in folder.glob("clean*/**/*.jpg")) / count * ours
    limit = write_rate(folder)
    value = f"{written / limit:.1%} of {limit / 1e6:.0f} MB/s"
    yield Figure(
        "clean-data's pictures, share of the disk's rate", value, number=written / limit, numbers={"B/s": limit}
    )
    psnr = min(_psnr_of_reduced_decoding(path) for path in drawn)
    yield Figure("PSNR of reduced decoding, worst picture", f"{psnr:.1f} dB", psnr, "dB")


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
    rules = CleanRules(min_bytes=0, min_side=1, max_side=MAX_SIDE, max_aspect=4.0, quality=QUALITY)
    report = clean_folder(raw, out, rules, workers=workers)
    assert report.num_dropped == 0, report.dropped[:3]


def _psnr_of_reduced_decoding(path: Path) -> float:
    whole = Image.open(path).convert("RGB")
    scale = MAX_SIDE / min(whole.size)
    size = (round(whole.width * scale), round(whole.height * scale))
    expected = np.asarray(whole.resize(size, Image.Resampling.LANCZOS), np.float64)
    error = np.asarray(decode_image(path, max_side=MAX_SIDE), np.float64) - expected
    return float(10 * np.log10(255**2 / np.square(error).mean()))
