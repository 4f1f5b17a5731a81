"""What the machine itself can do, measured beside the work: what no program exceeds.

torch is imported where it is needed: the processes that decode pictures import this module and must start fast.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

from peers.figures import Figure

if TYPE_CHECKING:
    from latentart.process.devices import Placement

WRITTEN = 1 << 26  # bytes


def time_in_turns(works: Sequence[Callable[[], object]], rounds: int) -> list[list[float]]:
    """Return each work's seconds in each round; every work is done once before any is done again."""
    from latentart.planning.rates import seconds_of

    turns = [[seconds_of(work) for work in works] for _ in range(rounds)]
    return [list(seconds) for seconds in zip(*turns, strict=True)]


def bench_limits(placement: Placement) -> Iterator[Figure]:
    """Measure how fast the device multiplies, in bf16 only where it has instructions for it, and copies."""
    import torch

    from latentart.planning.rates import Copy, Products, copy_rate, matrix_rate
    from latentart.process.devices import resolve_precision

    device = placement.device
    dtypes = [torch.float32, torch.bfloat16][: 1 + (resolve_precision("auto", device) == "bf16")]
    for dtype in dtypes:
        rate = matrix_rate(Products(device, dtype))
        name = "float32" if dtype == torch.float32 else "bf16"
        yield Figure(f"matrix rate, {name}", f"{rate / 1e9:.0f} GFLOP/s", number=rate, unit="FLOP/s")
    rate = copy_rate(Copy(device))
    yield Figure("copy rate", f"{rate / 1e9:.1f} GB/s", number=rate, unit="B/s")


def count_flops(work: Callable[[], object]) -> int:
    """Return the floating-point operations of a piece of eager work: of products, convolutions and attention."""
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        work()
    return int(counter.get_total_flops())


def shares_of_matrix_rate(
    name: str, flops: Mapping[str, float], rates: Mapping[str, float], limit: float
) -> list[Figure]:
    """Return what an image costs each contender, and which share of the matrix rate that is; ours is the first.

    Args:
        name: what begins the figures' names.
        flops: operations per image.
        rates: images per second.
        limit: operations per second of matrix products.
    """
    costs = ", ".join(f"{other} {value / 1e9:.2f}" for other, value in flops.items())
    shares = {other: rates[other] * value / limit for other, value in flops.items()}
    reached = ", ".join(f"{other} {share:.0%}" for other, share in shares.items())
    ours = next(iter(flops))
    return [
        Figure(f"{name}, arithmetic", f"{costs} GFLOP per image", number=flops[ours], unit="FLOP", numbers=flops),
        Figure(
            f"{name}, share of the matrix rate",
            f"{reached} of {limit / 1e9:.0f} GFLOP/s",
            number=shares[ours],
            numbers=shares,
        ),
    ]


def decode_all(paths: Sequence[Path], workers: int) -> None:
    """Decode pictures wholly by Pillow, in so many processes, and do nothing with them."""
    with ProcessPoolExecutor(workers, get_context("spawn")) as pool:
        for _ in pool.map(_decode, paths, chunksize=8):
            pass


def _decode(path: Path) -> None:
    with Image.open(path) as image:
        image.load()


def write_rate(folder: Path) -> float:
    """Return how many bytes a second reach the disk that a folder is on."""
    path, content = folder / "written", os.urandom(WRITTEN)

    def write() -> None:
        with path.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())

    from latentart.planning.rates import seconds_of

    rate = WRITTEN / seconds_of(write)
    path.unlink()
    return rate
