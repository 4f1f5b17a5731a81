"""`latentart bench vae`: our autoencoder beside `diffusers.AutoencoderKL` of the same channels, in one process.

Both learn by the same loss, in the same precision, with the same kind of optimizer. They take turns, as the machine
may get busier or calmer.
"""

from __future__ import annotations

import os
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from statistics import median

import torch
from PIL import Image
from torch import Tensor

from latentart.bench.contenders import (
    Contender,
    Setting,
    build_ours,
    build_peer,
    compile_halves,
    demo_optimizer,
    find_peer,
)
from latentart.bench.figures import Figure, seconds_of, time_in_turns
from latentart.bench.limits import bench_limits, count_flops, products_of, shares_of_matrix_rate, wait_for
from latentart.bench.pictures import crops_at, make_up_pictures, middle_squares, read_pictures, split
from latentart.bench.stages import bench_stages
from latentart.core.losses import psnr_per_image
from latentart.errors import TrainingDivergedError
from latentart.process.devices import Placement
from latentart.scoring.metrics.grid_artifacts import grid_strength
from latentart.training.build import build_rate_plan
from latentart.training.steps.optim import set_learning_rate

SMALL = Setting("demo-like", (32, 64, 128), 64, 16)
LARGE = Setting("wikiart-like", (64, 128, 256, 256), 256, 2)
DEMO = Setting("demo", (16, 32, 64), 32, 8)  # its first stage: enough updates in two minutes of a CPU
LARGE_ON_GPU = replace(LARGE, batch_size=16)
PEER_RATES = (1e-4, 4.5e-4, 1e-3, 3e-3, 1e-2)  # beyond our own, so that the best one is among them
SPEED_RATE = 1e-4  # both only have to keep finite
PILOT_SHARE = 0.25
CLOCK_STEPS = 10_000
COLORS = (
    (0.0, 0.0, 0.0),
    (0.6, -0.6, -0.6),
    (-0.6, 0.4, -0.4),
    (-0.5, -0.3, 0.6),
    (0.7, 0.5, -0.2),
    (0.9, 0.85, 0.8),
)


@dataclass
class TimedRun:
    """A contender in training, whose rate follows the clock, so that its cycle ends just when its time does.

    Attributes:
        limit: seconds of training in all. seconds: what it has had of them.
    """

    contender: Contender
    peak: float
    limit: float
    seconds: float = 0.0
    steps: int = 0

    def __post_init__(self) -> None:
        self.plan = build_rate_plan(demo_optimizer(), CLOCK_STEPS, self.peak)

    def advance(self, until: float, crops: Callable[[int], Tensor], setting: Setting) -> None:
        """Train until it has had so many seconds; what crops and a first warm-up take does not count."""
        contender, send = self.contender, self.contender.placement.send
        while self.seconds < min(until, self.limit):
            images, noise = send(crops(self.steps)), send(setting.noise(self.steps))
            if self.steps == 0:
                contender.backward(images, noise)
                contender.optimizer.zero_grad(set_to_none=True)
            set_learning_rate(contender.optimizer, self.plan(int(self.seconds / self.limit * CLOCK_STEPS)))
            wait_for(contender.placement.device)
            try:
                self.seconds += seconds_of(partial(train_for, contender, images, noise, clips=True))
            except TrainingDivergedError:  # it is judged by its last sound weights
                self.seconds = self.limit
            self.steps += 1


def bench_vae(parts: Sequence[str], placement: Placement, pictures: Path | None, *, is_quick: bool) -> Iterator[Figure]:
    """Yield the figures of the given parts: speed, quality, stages; ``pictures`` is the user's own folder for quality.

    Raises:
        UsageError: diffusers is not installed.
        DataError: there is no such folder, or it holds too few pictures.
    """
    has_peer, on_cpu = set(parts) != {"stages"}, placement.device.type == "cpu"
    peer = f", diffusers {find_peer().__version__}" if has_peer else ""
    side, own = 2 * DEMO.resolution, None
    if pictures is not None and "quality" in parts:  # first of all, as a wrong folder should not cost minutes
        own = read_pictures(pictures, DEMO.resolution, side)
    threads = f", {torch.get_num_threads()} threads of {os.cpu_count()}" if on_cpu else ""
    yield Figure("runs on", f"{placement.device}{threads}, {placement.precision}{peer}")
    for part in parts:
        if part == "speed":
            yield from bench_limits(placement)
            large = LARGE_ON_GPU if placement.device.type == "cuda" else LARGE
            yield from bench_speed(SMALL, placement, rounds=3 if is_quick else 15)
            yield from bench_speed(large, placement, rounds=1 if is_quick else 5)
        elif part == "stages":
            with tempfile.TemporaryDirectory(prefix="latentart-bench-") as folder:
                yield from bench_stages(Path(folder), placement, is_quick=is_quick)
        else:
            seconds, at_a_time = (10.0, 2.5) if is_quick else (120.0, 5.0)
            found = own or make_up_pictures(side)
            yield from bench_quality(found, DEMO, placement, seconds=seconds, at_a_time=at_a_time)


def bench_speed(setting: Setting, placement: Placement, *, rounds: int) -> Iterator[Figure]:
    """Measure updates of both on images of noise, in turns with products of matrices.

    On CUDA both are compiled, and the memory they take is measured.
    """
    on_gpu = placement.device.type == "cuda"
    images, noise = placement.send(setting.images()), placement.send(setting.noise())
    ours, peer = contenders = (build_ours(setting, placement), build_peer(setting, placement))
    flops = {}
    for contender in contenders:
        set_learning_rate(contender.optimizer, SPEED_RATE)
        flops[contender.name] = float(count_flops(partial(train_for, contender, images[:1], noise[:1])))
        if on_gpu:
            compile_halves(contender.network)
        with warnings.catch_warnings():  # of how diffusers asks for versions
            warnings.filterwarnings("ignore", "Dynamo detected a call to a `functools.lru_cache`")
            train_for(contender, images, noise, 5 if on_gpu else 1)
    steps = 10 if on_gpu else 1
    works, products = [partial(train_for, one, images, noise, steps) for one in contenders], products_of(placement)
    *times, of_products = time_in_turns([*works, products], rounds)
    our_rate, peer_rate = (setting.batch_size * steps / median(seconds) for seconds in times)
    rates = {ours.name: our_rate, peer.name: peer_rate}
    name = f"{setting.name} ({setting.resolution} px, batch {setting.batch_size})"
    compiled = ", both compiled" if on_gpu else ""
    counts: dict[str, float] = {contender.name: contender.num_parameters() for contender in contenders}
    value = ", ".join(f"{other} {count:,}" for other, count in counts.items())
    yield Figure(f"{name}, parameters", value, number=counts[ours.name], numbers=counts)
    value = f"ours {our_rate:.2f}, {peer.name} {peer_rate:.2f} images/s{compiled}"
    yield Figure(f"{name}, training", value, number=our_rate, unit="images/s", numbers=rates)
    ratio, bar = our_rate / peer_rate, 1.5 if on_gpu else 1.3
    yield Figure(f"{name}, ours over {peer.name}", f"{ratio:.2f} times", f"at least {bar}", ratio >= bar, ratio)
    yield from shares_of_matrix_rate(name, flops, rates, products.rate(of_products))
    if on_gpu:
        peak, peer_peak = (peak_bytes(one, other, images, noise) for one, other in ((ours, peer), (peer, ours)))
        value = f"ours {peak / 1e9:.2f}, {peer.name} {peer_peak / 1e9:.2f} GB"
        numbers: dict[str, float] = {ours.name: peak, peer.name: peer_peak}
        yield Figure(f"{name}, peak memory", value, "ours no more", peak <= peer_peak, peak, "B", numbers)


def bench_quality(
    pictures: Sequence[Image.Image], setting: Setting, placement: Placement, *, seconds: float, at_a_time: float
) -> Iterator[Figure]:
    """Train both from scratch for the same time on the same crops, and compare them on pictures held out."""
    training, held_out = split(pictures)
    crops = partial(crops_at, pictures=training, resolution=setting.resolution, batch_size=setting.batch_size)
    judged = middle_squares(held_out, setting.resolution)
    yield Figure("pictures", f"{len(training)} to train on, {len(held_out)} held out")

    pilots = [TimedRun(build_peer(setting, placement), rate, PILOT_SHARE * seconds) for rate in PEER_RATES]
    train_in_turns(pilots, crops, setting, at_a_time)
    tried = {run.peak: mean_psnr(run.contender, judged, setting.batch_size) for run in pilots}
    best, name = max(tried, key=lambda rate: tried[rate]), pilots[0].contender.name
    found = ", ".join(f"{psnr:.2f} dB at {rate:g}" for rate, psnr in tried.items())
    yield Figure(f"learning rate of {name}", f"{best:g}, as {PILOT_SHARE * seconds:g} s each gave {found}", number=best)
    del pilots

    ours = TimedRun(build_ours(setting, placement), demo_optimizer().lr, seconds)
    peer = TimedRun(build_peer(setting, placement), best, seconds)
    train_in_turns([ours, peer], crops, setting, at_a_time)
    value = f"ours {ours.steps}, {name} {peer.steps}, of {setting.batch_size} images of {setting.resolution} px"
    numbers: dict[str, float] = {"ours": ours.steps, name: peer.steps}
    yield Figure(f"updates in {seconds:g} s each", value, number=ours.steps, numbers=numbers)
    psnr, peer_psnr = (mean_psnr(run.contender, judged, setting.batch_size) for run in (ours, peer))
    value, numbers = f"ours {psnr:.2f}, {name} {peer_psnr:.2f} dB", {"ours": psnr, name: peer_psnr}
    yield Figure("PSNR on the pictures held out", value, number=psnr, unit="dB", numbers=numbers)
    gain = psnr - peer_psnr
    yield Figure(f"PSNR, ours over {name}", f"{gain:+.2f} dB", "at least +1 dB", gain >= 1, gain, "dB")
    grid, peer_grid = (strongest_grid(run.contender, setting) for run in (ours, peer))
    value = f"ours {grid:.4f}, {name} {peer_grid:.4f} of -1 to 1"
    numbers = {"ours": grid, name: peer_grid}
    yield Figure("strongest grid in flat colors", value, "ours at most 0.01", grid <= 0.01, grid, "", numbers)


def train_in_turns(
    runs: Sequence[TimedRun], crops: Callable[[int], Tensor], setting: Setting, at_a_time: float
) -> None:
    """Train all to their limits, each for ``at_a_time`` seconds before the next has its turn."""
    until = 0.0
    while any(run.seconds < run.limit for run in runs):
        until += at_a_time
        for run in runs:
            run.advance(until, crops, setting)


def train_for(contender: Contender, images: Tensor, noise: Tensor, steps: int = 1, *, clips: bool = False) -> None:
    """Update so often on the same images, and wait until the device has done it."""
    for _ in range(steps):
        contender.step(images, noise, clips=clips)
    wait_for(contender.placement.device)


def peak_bytes(contender: Contender, other: Contender, images: Tensor, noise: Tensor) -> int:
    """Return the most memory in use on a CUDA device during a few updates, less what the other contender holds."""
    torch.cuda.reset_peak_memory_stats(images.device)
    train_for(contender, images, noise, 3)
    return torch.cuda.max_memory_allocated(images.device) - other.held_bytes()


def mean_psnr(contender: Contender, images: Tensor, batch_size: int) -> float:
    """Return the mean PSNR of reconstructions in dB."""
    sent = (contender.placement.send(batch) for batch in torch.split(images, batch_size))
    return float(torch.cat([psnr_per_image(contender.reconstruct(batch), batch) for batch in sent]).mean())


def strongest_grid(contender: Contender, setting: Setting) -> float:
    """Return the strongest grid that upsampling leaves in any of a few flat colors, as an amplitude of -1…1."""
    side = 2 * setting.resolution  # so that half of it is far from every edge
    colors = torch.tensor(COLORS)[:, :, None, None].expand(-1, -1, side, side)
    decoded = contender.reconstruct(contender.placement.send(colors.contiguous()))
    return float(grid_strength(decoded, setting.factor).max())
