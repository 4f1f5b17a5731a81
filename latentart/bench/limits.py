"""What the machine itself can do, as every `latentart bench` measures it beside its work: what no program exceeds.

torch is imported where it is needed: the processes that `bench data` starts import this module and must start fast.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

from PIL import Image

from latentart.bench.figures import Figure, seconds_of

if TYPE_CHECKING:
    import torch

    from latentart.process.devices import Placement

SIDE, SIDE_ON_GPU = 1024, 8192  # of the matrices: large enough that more makes no difference
COPIED, COPIED_ON_GPU = 1 << 28, 1 << 30  # bytes, beyond every cache
WRITTEN = 1 << 26  # bytes
ROUNDS = 5


class Products:
    """Products of large square matrices in one type: the most arithmetic that a device does in a while."""

    def __init__(self, device: torch.device, dtype: torch.dtype) -> None:
        import torch

        on_gpu = device.type == "cuda"
        self.device, self.repeats, self.side = device, 20 if on_gpu else 4, SIDE_ON_GPU if on_gpu else SIDE
        generator = torch.Generator().manual_seed(0)
        self.factors = [torch.randn(self.side, self.side, generator=generator).to(device, dtype) for _ in range(2)]

    @property
    def flops(self) -> int:
        """Floating-point operations of one call: 2 n³ for each product."""
        return int(2 * self.repeats * self.side**3)

    def __call__(self) -> None:
        """Multiply, and wait until the device has done it."""
        for _ in range(self.repeats):
            self.factors[0] @ self.factors[1]
        wait_for(self.device)

    def rate(self, seconds: Sequence[float]) -> float:
        """Return the operations a second by the median of several calls."""
        return self.flops / median(seconds)


class Copy:
    """A copy from memory to memory of the same device."""

    def __init__(self, device: torch.device) -> None:
        import torch

        self.device = device
        self.num_bytes = COPIED_ON_GPU if device.type == "cuda" else COPIED
        # both are written to: memory that never was is one page of zeros, which stays in the cache
        self.source = torch.ones(self.num_bytes, dtype=torch.uint8, device=device)
        self.target = self.source.clone()

    def __call__(self) -> None:
        """Copy, and wait until the device has done it."""
        self.target.copy_(self.source)
        wait_for(self.device)

    def rate(self, seconds: Sequence[float]) -> float:
        """Return the bytes copied a second, each read and written once, by the median of several calls."""
        return self.num_bytes / median(seconds)


def products_of(placement: Placement) -> Products:
    """Return products in the type that networks run in there."""
    import torch

    return Products(placement.device, torch.bfloat16 if placement.precision == "bf16" else torch.float32)


def bench_limits(placement: Placement) -> Iterator[Figure]:
    """Measure how fast the device multiplies, in bf16 only where it has instructions for it, and copies."""
    import torch

    from latentart.process.devices import resolve_precision

    device = placement.device
    dtypes = [torch.float32, torch.bfloat16][: 1 + (resolve_precision("auto", device) == "bf16")]
    for dtype in dtypes:
        rate = matrix_rate(Products(device, dtype))
        name = "float32" if dtype == torch.float32 else "bf16"
        yield Figure(f"matrix rate, {name}", f"{rate / 1e9:.0f} GFLOP/s", number=rate, unit="FLOP/s")
    copy = Copy(device)
    rate = copy.rate([seconds_of(copy) for _ in range(ROUNDS)])
    yield Figure("copy rate", f"{rate / 1e9:.1f} GB/s", number=rate, unit="B/s")


def matrix_rate(products: Products) -> float:
    """Return the operations a second of matrix products alone."""
    products()  # what is done the first time only does not count
    return products.rate([seconds_of(products) for _ in range(ROUNDS)])


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


def wait_for(device: torch.device) -> None:
    """Wait until a device has done what it was given; a CPU always has."""
    import torch

    if device.type != "cpu":
        torch.get_device_module(device).synchronize()


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

    rate = WRITTEN / seconds_of(write)
    path.unlink()
    return rate
