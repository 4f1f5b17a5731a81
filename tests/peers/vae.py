"""Our autoencoder beside `diffusers.AutoencoderKL` of the same channels, in one process.

Both learn by the same loss, in the same precision, with the same kind of optimizer. They take turns, as the machine
may get busier or calmer.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from statistics import median

import torch
from PIL import Image
from torch import Tensor

from latentart.core.losses import psnr_per_image
from latentart.planning.rates import products_of, wait_for
from latentart.process.devices import Placement
from latentart.scoring.metrics.grid_artifacts import grid_strength
from latentart.training.steps.optim import set_learning_rate
from peers.contenders import (
    AutoencoderSetting,
    Contender,
    autoencoder_setting,
    build_our_autoencoder,
    build_peer,
    compile_halves,
    demo_optimizer,
    noise_images,
    posterior_noise,
)
from peers.figures import Figure
from peers.limits import count_flops, shares_of_matrix_rate, time_in_turns
from peers.pictures import crops_at, middle_squares, split
from peers.setting import count_parameters
from peers.training import TimedRun, train_in_turns

SMALL = autoencoder_setting("demo-like", (32, 64, 128), 64, 16)
LARGE = autoencoder_setting("wikiart-like", (64, 128, 256, 256), 256, 2)
DEMO = autoencoder_setting("demo", (16, 32, 64), 32, 8)  # its first stage: enough updates in two minutes of a CPU
LARGE_ON_GPU = replace(LARGE, batch_size=16)
PEER_RATES = (1e-4, 4.5e-4, 1e-3, 3e-3, 1e-2)  # beyond our own, so that the best one is among them
SPEED_RATE = 1e-4  # both only have to keep finite
PILOT_SHARE = 0.25
COLORS = (
    (0.0, 0.0, 0.0),
    (0.6, -0.6, -0.6),
    (-0.6, 0.4, -0.4),
    (-0.5, -0.3, 0.6),
    (0.7, 0.5, -0.2),
    (0.9, 0.85, 0.8),
)


def bench_speed(setting: AutoencoderSetting, placement: Placement, *, rounds: int) -> Iterator[Figure]:
    """Measure updates of both on images of noise, in turns with products of matrices.

    On CUDA both are compiled, and the memory they take is measured.
    """
    on_gpu = placement.device.type == "cuda"
    images, noise = placement.send(noise_images(setting)), placement.send(posterior_noise(setting))
    ours, peer = contenders = (build_our_autoencoder(setting, placement), build_peer(setting, placement))
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
    name = f"{setting.name} ({setting.side} px, batch {setting.batch_size})"
    compiled = ", both compiled" if on_gpu else ""
    counts: dict[str, float] = {contender.name: count_parameters(contender.network) for contender in contenders}
    value = ", ".join(f"{other} {count:,}" for other, count in counts.items())
    yield Figure(f"{name}, parameters", value, number=counts[ours.name], numbers=counts)
    value = f"ours {our_rate:.2f}, {peer.name} {peer_rate:.2f} images/s{compiled}"
    yield Figure(f"{name}, training", value, number=our_rate, unit="images/s", numbers=rates)
    ratio = our_rate / peer_rate
    yield Figure(f"{name}, ours over {peer.name}", f"{ratio:.2f} times", ratio)
    yield from shares_of_matrix_rate(name, flops, rates, products.rate(of_products))
    if on_gpu:
        peak, peer_peak = (peak_bytes(one, other, images, noise) for one, other in ((ours, peer), (peer, ours)))
        value = f"ours {peak / 1e9:.2f}, {peer.name} {peer_peak / 1e9:.2f} GB"
        numbers: dict[str, float] = {ours.name: peak, peer.name: peer_peak}
        yield Figure(f"{name}, peak memory", value, peak, "B", numbers)


def bench_quality(
    pictures: Sequence[Image.Image],
    setting: AutoencoderSetting,
    placement: Placement,
    *,
    seconds: float,
    at_a_time: float,
) -> Iterator[Figure]:
    """Train both from scratch for the same time on the same crops, and compare them on pictures held out."""
    training, held_out = split(pictures)
    crops = partial(crops_at, pictures=training, resolution=setting.side, batch_size=setting.batch_size)
    judged = middle_squares(held_out, setting.side)
    yield Figure("pictures", f"{len(training)} to train on, {len(held_out)} held out")

    start = partial(timed_autoencoder, setting=setting, crops=crops)
    pilots = [start(build_peer(setting, placement), rate, PILOT_SHARE * seconds) for rate in PEER_RATES]
    train_in_turns(pilots, at_a_time)
    tried = {run.optimizer.lr: mean_psnr(run.step_fn, judged, setting.batch_size) for run in pilots}
    best, name = max(tried, key=lambda rate: tried[rate]), pilots[0].name
    found = ", ".join(f"{psnr:.2f} dB at {rate:g}" for rate, psnr in tried.items())
    yield Figure(f"learning rate of {name}", f"{best:g}, as {PILOT_SHARE * seconds:g} s each gave {found}", number=best)
    del pilots

    ours = start(build_our_autoencoder(setting, placement), demo_optimizer().lr, seconds)
    peer = start(build_peer(setting, placement), best, seconds)
    train_in_turns([ours, peer], at_a_time)
    value = f"ours {ours.steps}, {name} {peer.steps}, of {setting.batch_size} images of {setting.side} px"
    numbers: dict[str, float] = {"ours": ours.steps, name: peer.steps}
    yield Figure(f"updates in {seconds:g} s each", value, number=ours.steps, numbers=numbers)
    psnr, peer_psnr = (mean_psnr(run.step_fn, judged, setting.batch_size) for run in (ours, peer))
    value, numbers = f"ours {psnr:.2f}, {name} {peer_psnr:.2f} dB", {"ours": psnr, name: peer_psnr}
    yield Figure("PSNR on the pictures held out", value, number=psnr, unit="dB", numbers=numbers)
    gain = psnr - peer_psnr
    yield Figure(f"PSNR, ours over {name}", f"{gain:+.2f} dB", gain, "dB")
    grid, peer_grid = (strongest_grid(run.step_fn, setting) for run in (ours, peer))
    value = f"ours {grid:.4f}, {name} {peer_grid:.4f} of -1 to 1"
    numbers = {"ours": grid, name: peer_grid}
    yield Figure("strongest grid in flat colors", value, grid, "", numbers)


def timed_autoencoder(
    contender: Contender, peak: float, seconds: float, setting: AutoencoderSetting, crops: Callable[[int], Tensor]
) -> TimedRun[Contender]:
    """Return a run of an autoencoder on crops of each step; what is done the first time only is done already."""
    send = contender.placement.send

    def batch_at(step: int) -> tuple[Tensor, Tensor]:
        return send(crops(step)), send(posterior_noise(setting, step))

    contender.backward(*batch_at(0))
    contender.optimizer.zero_grad(set_to_none=True)
    optimizer = demo_optimizer().model_copy(update={"lr": peak})
    return TimedRun(contender.name, contender, batch_at, optimizer, seconds)


def train_for(contender: Contender, images: Tensor, noise: Tensor, steps: int = 1) -> None:
    """Update so often on the same images, and wait until the device has done it."""
    for _ in range(steps):
        contender.step(images, noise)
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


def strongest_grid(contender: Contender, setting: AutoencoderSetting) -> float:
    """Return the strongest grid that upsampling leaves in any of a few flat colors, as an amplitude of -1…1."""
    side = 2 * setting.side  # so that half of it is far from every edge
    colors = torch.tensor(COLORS)[:, :, None, None].expand(-1, -1, side, side)
    decoded = contender.reconstruct(contender.placement.send(colors.contiguous()))
    return float(grid_strength(decoded, setting.model.factor).max())
