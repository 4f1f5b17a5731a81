"""What drawing pictures costs beside the denoiser's own calls, and beside diffusers.

A model of one's own, or the demo's shape and the recommended one's with random weights: they take as long as trained
ones. All ways to draw take turns, as the machine may get busier or calmer.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from latentart.builders import build_autoencoder, build_task
from latentart.config.workspace import resolve
from latentart.core.latents import LatentNormalizer
from latentart.kinds import Sampler
from latentart.model.folder import load_model, require_denoiser
from latentart.model.generate import Generator, SamplerSettings
from latentart.planning.rates import products_of
from latentart.process.devices import Placement
from peers.denoisers import build_diffusers_unet, build_ours
from peers.figures import Figure
from peers.limits import count_flops
from peers.sampling import (
    Drawing,
    InTwoCalls,
    draw_in_turns,
    draw_like_a_pipeline,
    middle,
    middle_ratio,
)
from peers.setting import count_parameters, with_seed_0

SAMPLERS: tuple[Sampler, ...] = ("ddim", "dpmpp_2m", "unipc")
GUIDANCE = 1.5
NUM_STYLES = 27  # of random weights: WikiArt's


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


def bench_overhead(subject: Subject) -> Iterator[Figure]:
    """Measure what three samplers add to the denoiser's calls, and what guidance in one call is worth beside two."""
    generator, settings, title = subject.generator, subject.settings, subject.title
    everyone = {str(name): Drawing(generator, replace(settings, sampler=name), subject.count) for name in SAMPLERS}
    halved = replace(generator, denoiser=InTwoCalls(generator.denoiser))  # type: ignore[arg-type]  # keeps the contract
    products = products_of(generator.placement)
    per_image = flops_of_call(subject)
    everyone["two calls"] = Drawing(halved, settings, subject.count)
    found, seconds = draw_in_turns(everyone, subject.rounds, products)
    for name in SAMPLERS:
        share = middle(found[name], lambda one: one.overhead)
        what = f"{title}, {subject.steps} steps of {name}, overhead beside the denoiser's calls"
        yield Figure(what, f"{share:.2%}", share)
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
    import diffusers

    generator, settings = subject.generator, subject.settings
    side, channels = subject.side, generator.autoencoder.latent_channels
    wanted = count_parameters(generator.denoiser)
    stages = max(count for count in (1, 2, 3) if side % 2 ** (count - 1) == 0)
    network = build_diffusers_unet(diffusers, wanted, channels, side, subject.num_styles, stages)
    generator.placement.place(network).eval().requires_grad_(requires_grad=False)
    theirs = replace(generator, denoiser=network)  # type: ignore[arg-type]  # a peer keeps the contract
    draw = draw_like_a_pipeline(diffusers)
    contenders = {
        "latentart": Drawing(generator, settings, subject.count),
        "UNet2DModel": Drawing(theirs, settings, subject.count, draw),
        "our network in their loop": Drawing(generator, settings, subject.count, draw),
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
    contenders = {f"batch {size}": Drawing(subject.generator, subject.settings, size) for size in subject.batch_sizes}
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
    eager = Drawing(subject.generator, subject.settings, subject.count)
    found, _ = draw_in_turns({"eager": eager}, subject.rounds)
    subject.generator.denoiser.compile()
    compiled, _ = draw_in_turns({"compiled": eager}, subject.rounds)
    rates = {name: middle(timings, lambda one: one.rate) for name, timings in {**found, **compiled}.items()}
    value = ", ".join(f"{name} {rate:.3g}" for name, rate in rates.items())
    ratio = rates["compiled"] / rates["eager"]
    share = middle(compiled["compiled"], lambda one: one.overhead)
    yield Figure(f"{subject.title}, compiled", f"{value} images/s, {ratio:.2f} times", number=ratio, numbers=rates)
    what = f"{subject.title}, compiled, overhead beside the denoiser's calls"
    yield Figure(what, f"{share:.2%}", share)


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
    autoencoder: Any = with_seed_0(lambda: build_autoencoder(config.vae.model))
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
