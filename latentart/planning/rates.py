"""What a machine does in a second: products of matrices, copies, encoding, drawing. Each is timed by a plain clock.

What is called apart, in a process of its own, takes one argument and returns plain numbers.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from statistics import median

import torch

from latentart.builders import build_autoencoder, build_denoiser, build_task
from latentart.core.latents import LatentNormalizer
from latentart.model.folder import autoencoder_config
from latentart.model.generate import Generator
from latentart.planning.estimate import line_through
from latentart.planning.trial import GROWTH, Trial, time_encoding
from latentart.process.devices import Placement, choose_device
from latentart.process.host_memory import file_bytes, peak_bytes
from latentart.sampling.sample import settings_from

SIDE, SIDE_ON_GPU = 1024, 8192  # of the matrices: large enough that more makes no difference
COPIED, COPIED_ON_GPU = 1 << 28, 1 << 30  # bytes, beyond every cache
ROUNDS = 5
FEW_STEPS = 2  # of a walk from noise, when its batch is still to be found


def seconds_of(work: Callable[[], object]) -> float:
    """Return how long a piece of work takes."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def wait_for(device: torch.device) -> None:
    """Wait until a device has done what it was given; a CPU always has."""
    if device.type != "cpu":
        torch.get_device_module(device).synchronize()


class Products:
    """Products of large square matrices in one type: the most arithmetic that a device does in a while."""

    def __init__(self, device: torch.device, dtype: torch.dtype) -> None:
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
    return Products(placement.device, torch.bfloat16 if placement.precision == "bf16" else torch.float32)


def matrix_rate(products: Products) -> float:
    """Return the operations a second of matrix products alone."""
    products()  # what is done the first time only does not count
    return products.rate([seconds_of(products) for _ in range(ROUNDS)])


def copy_rate(copy: Copy) -> float:
    """Return the bytes copied a second."""
    return copy.rate([seconds_of(copy) for _ in range(ROUNDS)])


@dataclass(frozen=True)
class MachineRates:
    """What a device does at most: operations and bytes copied a second, and the type of the former."""

    device: str
    precision: str
    matrix: float
    copy: float


def measure_machine(trial: Trial) -> MachineRates:
    """Return the rates of the device that a trial would run on, in the type that it would train in."""
    placement = _placement(trial)
    rates = matrix_rate(products_of(placement)), copy_rate(Copy(placement.device))
    return MachineRates(str(placement.device), placement.precision, *rates)


@dataclass(frozen=True)
class Measured:
    """Pictures a second, so many at once, and bytes at the peak; ``is_whole`` unless some of it was only reckoned."""

    rate: float
    batch_size: int | None
    memory: int | None
    is_whole: bool = True


def measure_encoding(trial: Trial) -> Measured:
    """Return how fast the pictures of a trial's data folder are encoded into a latent cache."""
    placement, more = _placement(trial), _libraries_unseen(trial)
    seconds = time_encoding(trial, placement)
    return Measured(1 / max(seconds, 1e-9), None, _peak(placement, more))


def measure_drawing(trial: Trial) -> Measured:
    """Return how fast pictures are drawn by new networks of a config, which takes as long as by trained ones.

    Larger batches are tried up to the config's, as long as there is time. Where not all steps can be taken the rest is
    a straight line through two short walks.
    """
    placement = Placement(choose_device(trial.device), trial.workspace.config.sample.precision)
    more = _libraries_unseen(trial)
    generator, deadline = _new_generator(trial, placement), time.perf_counter() + trial.seconds
    wanted = settings_from(trial.workspace.config.sample, {"autoguidance": None})
    num_steps = min(wanted.steps, generator.task.schedule.num_steps)

    def draw(batch_size: int, steps: int) -> float:
        settings = replace(wanted, steps=steps, batch_size=batch_size, autoguidance=None, compile=False)
        return seconds_of(lambda: generator([0] * batch_size, range(batch_size), settings))

    few_steps = min(FEW_STEPS, num_steps)
    draw(1, few_steps)  # what is done the first time only does not count
    batch_size, few = 1, draw(1, few_steps)
    while batch_size < wanted.batch_size:
        larger = min(GROWTH * batch_size, wanted.batch_size)
        # twice here, and once more in as many steps again
        if 4 * few * larger / batch_size > deadline - time.perf_counter():
            break
        batch_size, few = larger, draw(larger, few_steps)
    left = deadline - time.perf_counter()
    steps = max(2 * few_steps, min(num_steps, int(few_steps * left / few)))
    many = draw(batch_size, min(steps, num_steps))
    is_whole = steps >= num_steps
    seconds = many if is_whole else line_through((few_steps, few), (steps, many), num_steps)
    return Measured(batch_size / seconds, batch_size, _peak(placement, more), is_whole)


def _new_generator(trial: Trial, placement: Placement) -> Generator:
    """Return networks with weights of seed 0, ready to draw one style."""
    config = trial.workspace.config
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        autoencoder = build_autoencoder(autoencoder_config(trial.workspace))
        denoiser = build_denoiser(config.ldm.model, autoencoder.latent_channels, [1])
    for network in (autoencoder, denoiser):
        placement.place(network).eval().requires_grad_(requires_grad=False)
    channels = autoencoder.latent_channels
    normalizer = LatentNormalizer((0.0,) * channels, (1.0,) * channels)
    task = build_task(config.ldm.diffusion)
    return Generator(autoencoder, denoiser, normalizer, task, placement, config.ldm.training.resolution)


def _placement(trial: Trial) -> Placement:
    return Placement(choose_device(trial.device), trial.workspace.config.ldm.training.run.precision)


def _libraries_unseen(trial: Trial) -> int:
    """Return the bytes of libraries that a command would hold and this process, born with them, does not show."""
    return max(0, trial.libraries - file_bytes())


def _peak(placement: Placement, more: int) -> int | None:
    peak = peak_bytes(placement.device)
    return peak if peak is None or placement.device.type != "cpu" else peak + more
