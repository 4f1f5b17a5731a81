"""`latentart bench sample`: what drawing pictures costs beside the denoiser's own calls, and beside diffusers.

A model of the user's, or the demo's shape and the recommended one's with random weights: they take as long as trained
ones. All ways to draw take turns, as the machine may get busier or calmer.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from latentart.bench.contenders import find_peer
from latentart.bench.denoisers import build_diffusers_unet, build_ours, count_parameters
from latentart.bench.figures import Figure
from latentart.bench.limits import bench_limits, count_flops, products_of
from latentart.bench.sampling import (
    Contender,
    InTwoCalls,
    draw_in_turns,
    draw_like_a_pipeline,
    middle,
    middle_ratio,
)
from latentart.builders import build_autoencoder, build_task
from latentart.config.workspace import resolve
from latentart.core.latents import LatentNormalizer
from latentart.errors import UsageError
from latentart.kinds import Sampler
from latentart.model.folder import load_model, require_denoiser
from latentart.model.generate import Generator, SamplerSettings
from latentart.process.devices import Placement

SAMPLERS: tuple[Sampler, ...] = ("ddim", "dpmpp_2m", "unipc")
GUIDANCE = 1.5
NUM_STYLES = 27  # of random weights: WikiArt's
BAR = 0.05


@dataclass(frozen=True)
class Subject:
    """Networks to draw with, and how much of it is enough to measure.

    Attributes:
        count: pictures in a batch.
        batch_sizes: of the part about batches.
    """

    name: str
    generator: Generator
    num_styles: int
    steps: int
    count: int
    batch_sizes: tuple[int, ...]
    rounds: int

    @property
    def settings(self) -> SamplerSettings:
        """How it is drawn with."""
        return SamplerSettings(steps=self.steps, guidance=GUIDANCE)

    @property
    def side(self) -> int:
        """Height and width of its latents."""
        return self.generator.resolution // self.generator.autoencoder.factor

    @property
    def title(self) -> str:
        """What the names of its figures begin with."""
        return f"{self.name}, {self.generator.resolution} px, batch {self.count}"


def bench_sample(parts: Sequence[str], placement: Placement, model: Path | None, *, is_quick: bool) -> Iterator[Figure]:
    """Yield the figures of the given parts, overhead, peer, batches and compile, of a model folder or of two shapes.

    Raises:
        UsageError: diffusers, which the part `peer` compares with, is not installed; or compile is all and not on CUDA.
        ModelError: there is no such model, or it has no denoiser.
    """
    on_gpu = placement.device.type == "cuda"
    if list(parts) == ["compile"] and not on_gpu:
        msg = f"compiling is measured on CUDA only, not on {placement.device}."
        raise UsageError(msg, "Leave --only compile out.")
    peer = f", diffusers {find_peer('sample').__version__}" if "peer" in parts else ""
    own = None if model is None else subject_of_model(model, placement, is_quick=is_quick)
    threads = "" if on_gpu else f", {torch.get_num_threads()} threads of {os.cpu_count()}"
    yield Figure("runs on", f"{placement.device}{threads}, {placement.precision}{peer}")
    yield from bench_limits(placement)
    works = {"overhead": bench_overhead, "peer": bench_peer, "batches": bench_batches, "compile": bench_compile}
    for preset in ("demo", "wikiart-256") if own is None else ("",):
        subject = own or subject_of_preset(preset, placement, is_quick=is_quick)
        for part in parts:
            if part != "compile" or on_gpu:
                yield from works[part](subject)


def bench_overhead(subject: Subject) -> Iterator[Figure]:
    """Measure what three samplers add to the denoiser's calls, and what guidance in one call is worth beside two."""
    generator, settings, title = subject.generator, subject.settings, subject.title
    everyone = {str(name): Contender(generator, replace(settings, sampler=name), subject.count) for name in SAMPLERS}
    halved = replace(generator, denoiser=InTwoCalls(generator.denoiser))  # type: ignore[arg-type]  # keeps the contract
    products = products_of(generator.placement)
    per_image = flops_of_call(subject)
    everyone["two calls"] = Contender(halved, settings, subject.count)
    found, seconds = draw_in_turns(everyone, subject.rounds, products)
    for name in SAMPLERS:
        share = middle(found[name], lambda one: one.overhead)
        what = f"{title}, {subject.steps} steps of {name}, overhead beside the denoiser's calls"
        yield Figure(what, f"{share:.2%}", "at most 5 %", share <= BAR, share)
    ours = found["ddim"]
    rate = middle(ours, lambda one: one.rate)
    value = f"{rate:.3g} images/s, {subject.steps} steps, guidance {settings.guidance:g}"
    yield Figure(f"{title}, drawing", value, number=rate, unit="images/s")
    share = middle(ours, lambda one: one.decode_share)
    yield Figure(f"{title}, share of decoding", f"{share:.1%}", number=share)
    gain = middle_ratio(ours, found["two calls"])
    yield Figure(f"{title}, guidance in one call over two", f"{gain:.2f} times", number=gain)
    limit = products.rate(seconds)
    share = middle(ours, lambda one: per_image * one.denoised / one.denoiser) / limit
    value = f"{share:.0%} of {limit / 1e9:.0f} GFLOP/s, at {per_image / 1e9:.2f} GFLOP per image and call"
    numbers = {"FLOP": per_image, "FLOP/s": limit}
    yield Figure(f"{title}, denoiser's share of the matrix rate", value, number=share, numbers=numbers)


def bench_peer(subject: Subject) -> Iterator[Figure]:
    """Measure ours beside diffusers: its UNet of as many parameters, its DDIM, and the loop of its pipelines.

    Then its DDIM and loop with our network, which tells the loops apart.
    """
    generator, settings, diffusers = subject.generator, subject.settings, find_peer("sample")
    side, channels = subject.side, generator.autoencoder.latent_channels
    wanted = count_parameters(generator.denoiser)
    stages = max(count for count in (1, 2, 3) if side % 2 ** (count - 1) == 0)
    network = build_diffusers_unet(diffusers, wanted, channels, side, subject.num_styles, stages)
    generator.placement.place(network).eval().requires_grad_(requires_grad=False)
    theirs = replace(generator, denoiser=network)  # type: ignore[arg-type]  # a peer keeps the contract
    draw = draw_like_a_pipeline(diffusers)
    contenders = {
        "latentart": Contender(generator, settings, subject.count),
        "UNet2DModel": Contender(theirs, settings, subject.count, draw),
        "our network in their loop": Contender(generator, settings, subject.count, draw),
    }
    found, _ = draw_in_turns(contenders, subject.rounds)
    rates = {name: middle(timings, lambda one: one.rate) for name, timings in found.items()}
    value = ", ".join(f"{name} {rate:.3g}" for name, rate in rates.items())
    own = rates["latentart"]
    name = f"{subject.title}, {subject.steps} steps"
    yield Figure(f"{name}, beside diffusers", f"{value} images/s", number=own, unit="images/s", numbers=rates)
    ratio = middle_ratio(found["latentart"], found["UNet2DModel"])
    value = f"{ratio:.2f} times, {wanted / 1e6:.2f} M parameters to {count_parameters(network) / 1e6:.2f} M"
    yield Figure(f"{name}, ours over diffusers", value, number=ratio)
    shares = {name: middle(timings, lambda one: one.overhead) for name, timings in found.items()}
    value = ", ".join(f"{name} {share:.2%}" for name, share in shares.items())
    yield Figure(f"{name}, overheads", value, number=shares["latentart"], numbers=shares)


def bench_batches(subject: Subject) -> Iterator[Figure]:
    """Measure the rate at several sizes of a batch, and on CUDA the memory they take."""
    device = subject.generator.placement.device
    contenders = {f"batch {size}": Contender(subject.generator, subject.settings, size) for size in subject.batch_sizes}
    found, _ = draw_in_turns(contenders, subject.rounds)
    for name, timings in found.items():
        rate, numbers, value = middle(timings, lambda one: one.rate), {}, ""
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
            contenders[name](steps=2)
            peak = torch.cuda.max_memory_allocated(device)
            numbers, value = {"B": float(peak)}, f", {peak / 1e9:.1f} GB"
        if timings[-1].calls > subject.steps:
            value += ", in parts, as the memory did not suffice"
        what = f"{subject.name}, {subject.generator.resolution} px, {name}"
        yield Figure(what, f"{rate:.3g} images/s{value}", number=rate, unit="images/s", numbers=numbers)


def bench_compile(subject: Subject) -> Iterator[Figure]:
    """Measure sample.compile beside eager calls; it comes last, as a network stays compiled."""
    eager = Contender(subject.generator, subject.settings, subject.count)
    found, _ = draw_in_turns({"eager": eager}, subject.rounds)
    subject.generator.denoiser.compile()
    compiled, _ = draw_in_turns({"compiled": eager}, subject.rounds)
    rates = {name: middle(timings, lambda one: one.rate) for name, timings in {**found, **compiled}.items()}
    value = ", ".join(f"{name} {rate:.3g}" for name, rate in rates.items())
    ratio = rates["compiled"] / rates["eager"]
    share = middle(compiled["compiled"], lambda one: one.overhead)
    yield Figure(f"{subject.title}, compiled", f"{value} images/s, {ratio:.2f} times", number=ratio, numbers=rates)
    what = f"{subject.title}, compiled, overhead beside the denoiser's calls"
    yield Figure(what, f"{share:.2%}", "at most 5 %", share <= BAR, share)


@torch.no_grad()
def flops_of_call(subject: Subject) -> float:
    """Return the floating-point operations of the denoiser for one image."""
    generator = subject.generator
    device, channels = generator.placement.device, generator.autoencoder.latent_channels
    x_t, zero = (
        torch.zeros(1, channels, subject.side, subject.side, device=device),
        torch.zeros(1, device=device).long(),
    )
    return float(count_flops(lambda: generator.denoiser(x_t, zero, zero)))


def subject_of_preset(preset: str, placement: Placement, *, is_quick: bool) -> Subject:
    """Return a preset's networks with weights of seed 0."""
    config = resolve({"preset": preset})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        autoencoder = build_autoencoder(config.vae.model)
    channels = autoencoder.latent_channels
    denoiser = build_ours(config.ldm.model, channels, NUM_STYLES)
    for network in (autoencoder, denoiser):
        placement.place(network).eval().requires_grad_(requires_grad=False)
    generator = Generator(
        autoencoder,
        denoiser,  # type: ignore[arg-type]  # built as a Denoiser
        LatentNormalizer((0.0,) * channels, (1.0,) * channels),
        build_task(config.ldm.diffusion),
        placement,
        config.ldm.training.resolution,
    )
    return sized(f"{preset} with random weights", generator, NUM_STYLES, is_quick=is_quick)


def subject_of_model(folder: Path, placement: Placement, *, is_quick: bool) -> Subject:
    """Return the networks of a model folder.

    Raises:
        ModelError: there is none, or it has no denoiser.
    """
    model = load_model(folder, placement)
    denoiser, task = require_denoiser(model, folder)
    generator = Generator(model.autoencoder, denoiser, model.normalizer, task, placement, model.resolution)
    return sized("the model", generator, len(model.style_names), is_quick=is_quick)


def sized(name: str, generator: Generator, num_styles: int, *, is_quick: bool) -> Subject:
    """Return a subject with as many steps, pictures and rounds as its device can do in minutes."""
    sizes: tuple[int, ...]
    if generator.placement.device.type == "cuda":
        steps, count, sizes, rounds = 50, 32, (1, 8, 32, 128), 5
    elif generator.resolution <= 64:
        steps, count, sizes, rounds = 20, 8, (1, 4, 16), 5
    else:
        steps, count, sizes, rounds = 6, 2, (1, 2, 4), 3
    if is_quick:
        steps, count, sizes, rounds = min(steps, 10) // 2, max(1, count // 4), sizes[:2], 1
    return Subject(name, generator, num_styles, min(steps, generator.task.schedule.num_steps), count, sizes, rounds)
