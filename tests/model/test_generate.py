"""The generator beneath `sample`: what it does without memory, without waiting, and how little it adds."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from latentart.builders import build_autoencoder, build_denoiser, build_task
from latentart.config.denoiser import UNetConfig
from latentart.config.ldm import DiffusionConfig
from latentart.config.vae import AutoencoderConfig
from latentart.core.latents import LatentNormalizer
from latentart.core.networks.conditioning import Denoiser
from latentart.errors import ResourceError
from latentart.kinds import Precision
from latentart.model.generate import Generator, Origin, SamplerSettings, Watch
from latentart.process.devices import Placement

SMALL = UNetConfig(widths=(8, 16), attention=("none", "linear"), groups=4, head_channels=8, embedding_channels=16)
DEMO = UNetConfig(
    widths=(32, 96, 192),
    blocks_per_stage=1,
    attention=("linear", "linear", "linear"),
    groups=8,
    head_channels=32,
    embedding_channels=256,
)
MAX_OVERHEAD = 0.05
BF16_LEVELS = 8  # of 255: what is left of eight bits after some steps


class Crowded(Denoiser):
    """A denoiser on a device that holds ``room`` pictures; it notes how many it is asked for."""

    def __init__(self, network: Denoiser, room: int) -> None:
        nn.Module.__init__(self)
        self.network, self.room, self.asked = network, room, list[int]()
        self.factor, self.style_embedding = network.factor, network.style_embedding

    def forward(self, x_t: Tensor, t: Tensor, style_id: Tensor) -> Tensor:
        """Return the network's prediction.

        Raises:
            OutOfMemoryError: there are too many pictures.
        """
        self.asked.append(len(x_t))
        if len(x_t) > self.room:
            raise torch.OutOfMemoryError
        return self.network(x_t, t, style_id)


def build(config: UNetConfig = SMALL, wrap: Callable[[Denoiser], Denoiser] = lambda network: network) -> Generator:
    """Return a generator of random networks, whose denoiser's last layer is not zero."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        autoencoder = build_autoencoder(
            AutoencoderConfig(widths=(8, 8, 16), attention=("none",) * 3, groups=4, head_channels=8)
        )
        denoiser = build_denoiser(config, autoencoder.latent_channels, [3])
        for parameter in denoiser.parameters():
            if not parameter.any():
                nn.init.normal_(parameter, std=0.02)
    normalizer = LatentNormalizer((0.0,) * 4, (1.0,) * 4)
    placement = Placement(torch.device("cpu"), "fp32")
    networks = autoencoder.eval().requires_grad_(False), wrap(denoiser.eval().requires_grad_(False))
    return Generator(*networks, normalizer, build_task(DiffusionConfig()), placement, 64)


def test_without_memory_batches_are_halved(caplog: pytest.LogCaptureFixture) -> None:
    """One line says so, once; the pictures are those of smaller batches, and each comes once."""
    settings = SamplerSettings(steps=2, guidance=2.0, batch_size=8)
    crowded: list[Crowded] = []

    def wrap(network: Denoiser) -> Denoiser:
        crowded.append(Crowded(network, room=4))
        return crowded[0]

    done: list[int] = []
    with caplog.at_level(logging.INFO):
        pixels = build(wrap=wrap)([0, 1, 2, 0, 1], [3, 4, 5, 6, 7], settings, done.append)
    plain = build()([0, 1, 2, 0, 1], [3, 4, 5, 6, 7], settings)

    assert (pixels.int() - plain.int()).abs().max() <= 1
    assert caplog.messages == ["out of memory with 5 pictures at once: going on with 2"]
    assert crowded[0].asked == [10, 4, 4, 4, 4, 2, 2]
    assert done == [2, 4, 5]


def test_without_memory_for_one_picture_it_is_said() -> None:
    """There is nothing to halve then."""
    generator = build(wrap=lambda network: Crowded(network, room=0))

    with pytest.raises(ResourceError, match="memory does not suffice for one picture"):
        generator([0, 1], [0, 1], SamplerSettings(steps=2, batch_size=2))


def test_a_batch_that_is_drawn_twice_is_seen_once() -> None:
    """Frames of a batch that did not fit are replaced by those of the smaller ones."""
    frames: dict[tuple[int, int], Tensor] = {}

    def see(first: int, frame: int, pixels: Tensor) -> None:
        frames.update({(frame, first + i): one for i, one in enumerate(pixels)})

    generator = build(wrap=lambda network: Crowded(network, room=1))
    generator([0, 1, 2], [0, 1, 2], SamplerSettings(steps=4, guidance=1.0), watch=Watch(10, see))

    assert sorted(frames) == [(frame, picture) for frame in range(3) for picture in range(3)]


@pytest.mark.parametrize(("precision", "levels"), [("fp32", 1), ("bf16", BF16_LEVELS)])
def test_a_picture_is_its_seeds_whatever_is_drawn_beside_it(precision: Precision, levels: int) -> None:
    """In a grid, in samples that join others, repeated or drawn again in other batches: alike, to what README says."""
    placement = Placement(torch.device("cpu"), precision)
    generator, settings = replace(build(), placement=placement), SamplerSettings(steps=2, eta=1.0)
    style_ids, seeds = [0, 1, 2], [3, 4, 5]

    beside = generator(style_ids, seeds, settings, size=(16, 16)).int()
    alone = generator(style_ids, seeds, replace(settings, batch_size=1), size=(16, 16)).int()
    plain = build()(style_ids, seeds, settings, size=(16, 16)).int()

    assert (alone - beside).abs().max() <= levels
    assert torch.equal(plain, beside) == (precision == "fp32")
    assert (plain - beside).abs().max() <= levels
    assert (beside[1] - beside[2]).abs().max() > 2 * BF16_LEVELS


@pytest.mark.parametrize(("frames", "num_steps", "seen"), [(29, 50, 29), (29, 30, 29), (29, 4, 3), (3, 100, 3)])
def test_frames_are_spread_evenly(frames: int, num_steps: int, seen: int) -> None:
    """The first step is among them, the last never; no step is seen twice."""
    steps = Watch(frames, lambda *_: None).steps(num_steps)
    numbers = list(steps)

    assert list(steps.values()) == list(range(seen))
    assert numbers[0] == 0
    assert numbers[-1] < num_steps - 1
    gaps = {b - a for a, b in zip(numbers, [*numbers[1:], num_steps - 1], strict=True)}
    assert max(gaps) - min(gaps) <= 1


def test_a_seed_may_lie_between_two() -> None:
    """At a whole number it is that seed, whatever kind of number it is."""
    settings = SamplerSettings(steps=3, eta=1.0)
    pixels = build()([0] * 4, [4, 4.0, 4.5, 5], settings).int()

    assert torch.equal(pixels[0], pixels[1])
    assert (pixels[2] - pixels[0]).abs().max() > 1
    assert (pixels[2] - pixels[3]).abs().max() > 1


def test_nothing_of_an_origin_is_left_at_full_strength_but_its_kept_part() -> None:
    """With all of the mask white it is the picture of noise alone, as near as the noisiest step allows."""
    generator, settings = build(), SamplerSettings(steps=5)
    given = torch.randint(0, 256, (3, 64, 64), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    white = torch.ones(1, 64, 64)

    plain = generator([1], [2], settings)
    anew = generator([1], [2], settings, origin=Origin(given, mask=white))
    kept = generator([1], [2], settings, origin=Origin(given, mask=0 * white))

    assert (plain.int() - anew.int()).abs().max() <= 1
    assert torch.equal(kept[0], given)


class Clock:
    """Adds up the seconds that networks run."""

    def __init__(self, *networks: nn.Module) -> None:
        self.seconds, self._began = 0.0, 0.0
        for network in networks:
            network.register_forward_pre_hook(self._begin)
            network.register_forward_hook(self._end)

    def _begin(self, *_: Any) -> None:
        self._began = time.perf_counter()

    def _end(self, *_: Any) -> None:
        self.seconds += time.perf_counter() - self._began


def measure_overhead(settings: SamplerSettings, batch_size: int = 8) -> float:
    """Return what drawing takes beside the forwards of networks of the demo's size, as a share of the denoiser's."""
    generator = build(DEMO)
    ours, decoder = Clock(generator.denoiser), Clock(generator.autoencoder.decoder)
    generator([0] * batch_size, range(batch_size), SamplerSettings(steps=1))
    ours.seconds = decoder.seconds = 0.0
    began = time.perf_counter()
    generator([0] * batch_size, range(batch_size), settings)
    return (time.perf_counter() - began - ours.seconds - decoder.seconds) / ours.seconds


@pytest.mark.slow
@pytest.mark.parametrize("changes", [{}, {"eta": 1.0}, {"guidance": 1.0}, {"sampler": "unipc"}])
def test_drawing_adds_little_to_the_networks(changes: dict[str, Any]) -> None:
    """Noise, guidance, steps and pixels take at most a twentieth of the time of the denoiser, small as it is here."""
    assert measure_overhead(SamplerSettings(steps=10, **changes)) < MAX_OVERHEAD
