"""Times add up, all ways to draw do the same work, and a figure says what came of it."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from latentart.builders import build_autoencoder, build_task
from latentart.config.denoiser import UNetConfig
from latentart.config.ldm import DiffusionConfig
from latentart.config.vae import AutoencoderConfig
from latentart.core.diffusion.guidance import guided
from latentart.core.diffusion.samplers import make_denoise, sample
from latentart.core.diffusion.schedules import timestep_pairs
from latentart.core.latents import LatentNormalizer
from latentart.model.generate import Generator, SamplerSettings
from latentart.process.devices import Placement
from peers.denoisers import build_ours
from peers.sample import Subject, bench_batches, bench_overhead, bench_peer
from peers.sampling import (
    Drawing,
    InTwoCalls,
    Stopwatch,
    Timing,
    build_scheduler,
    draw_in_turns,
    draw_ours,
    middle,
    middle_ratio,
    walk_like_a_pipeline,
)

CPU = Placement(torch.device("cpu"), "fp32")
SETTINGS = SamplerSettings(steps=4, guidance=1.5)


@pytest.fixture(scope="module")
def generator() -> Generator:
    """Return tiny networks whose weights are all noise, as new ones predict nothing but zero."""
    vae = AutoencoderConfig(widths=(8, 8), groups=4, head_channels=8, attention=("none", "none"))
    unet = UNetConfig(widths=(8, 16), attention=("none", "linear"), groups=4, head_channels=8, embedding_channels=16)
    torch.manual_seed(0)
    autoencoder, denoiser = build_autoencoder(vae).eval(), build_ours(unet, 4, 3).eval()
    noise = torch.Generator().manual_seed(1)
    for parameter in denoiser.parameters():
        parameter.data += 0.05 * torch.randn(parameter.shape, generator=noise)
    task, normalizer = build_task(DiffusionConfig(target="v")), LatentNormalizer((0.0,) * 4, (1.0,) * 4)
    return Generator(autoencoder, denoiser, normalizer, task, CPU, 16)  # type: ignore[arg-type]


@pytest.fixture
def subject(generator: Generator) -> Subject:
    """Return them with as little to do as there can be."""
    return Subject("tiny", generator, 3, steps=3, count=2, batch_sizes=(1, 3), rounds=2)


def timing(total: float, denoiser: float = 1.0, decoder: float = 0.0, images: int = 4) -> Timing:
    """Return a timing of made-up seconds."""
    return Timing(images, total, denoiser, decoder, 1, images)


def test_overhead_is_what_is_neither_network_beside_the_denoiser() -> None:
    """Of 10 s the denoiser has 5 and the decoder 4.5: half a second is a tenth of 5."""
    one = timing(10.0, 5.0, 4.5)

    assert (one.rate, one.overhead, one.decode_share) == (0.4, 0.1, 0.45)


def test_ratios_are_of_the_same_round() -> None:
    """A machine twice as busy in the second round changes no ratio; one far off does not count."""
    ours, theirs = [timing(1.0), timing(2.0), timing(1.0)], [timing(3.0), timing(6.0), timing(90.0)]

    assert middle_ratio(ours, theirs) == 3.0
    assert middle(ours, lambda one: one.total) == 1.0


def test_a_stopwatch_begins_anew_when_it_is_read() -> None:
    """Two pieces of work are added up, and only they."""
    watch = Stopwatch(CPU.device)
    for _ in range(2):
        with watch.running():
            torch.randn(64, 64) @ torch.randn(64, 64)

    assert watch.take() > 0
    assert watch.take() == 0


@pytest.mark.parametrize("sampler", ["ddim", "dpmpp_2m", "unipc"])
def test_guidance_is_one_call_of_twice_the_batch_each_step(generator: Generator, sampler: str) -> None:
    """So it is counted, whichever the sampler; in two calls the network is called as often again."""
    settings = replace(SETTINGS, sampler=sampler)  # type: ignore[arg-type]  # one of them
    found = Drawing(generator, settings, 3)()

    assert (found.images, found.calls, found.denoised) == (3, 4, 24)
    assert found.total > found.denoiser + found.decoder
    assert found.denoiser > 0 < found.decoder


def test_all_is_drawn_in_one_batch(generator: Generator) -> None:
    """The size of the batch is the contender's, and not that of the settings."""
    assert Drawing(generator, replace(SETTINGS, batch_size=2), 5)(steps=2).calls == 2


def test_being_timed_changes_no_picture(generator: Generator) -> None:
    """Nor does it to take the branches one by one."""
    style_id = torch.zeros(2, dtype=torch.int64)
    expected = draw_ours(generator, style_id, SETTINGS)
    halved = replace(generator, denoiser=InTwoCalls(generator.denoiser))  # type: ignore[arg-type]
    timed = Drawing(generator, SETTINGS, 2).generator

    assert expected.float().std() > 1
    assert draw_ours(timed, style_id, SETTINGS).equal(expected)
    assert (draw_ours(halved, style_id, SETTINGS).float() - expected.float()).abs().max() <= 1


def test_their_loop_walks_where_ours_does(generator: Generator) -> None:
    """With our network, diffusers' DDIM and loop give our latents: both do the same work."""
    diffusers = pytest.importorskip("diffusers")
    settings, schedule = replace(SETTINGS, x0_limit=None, steps=10), generator.task.schedule
    x_T = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(2))
    style_id = torch.tensor([0, 2])
    predict = guided(generator.denoiser, generator.denoiser.null_like, settings.guidance)
    denoise = make_denoise(lambda x_t, t: predict(x_t, t, style_id), schedule, "v")
    ours = sample(
        denoise, x_T, timestep_pairs(schedule, 10, "trailing"), schedule, eta=0.0, noise=lambda _: torch.zeros(0)
    )

    scheduler = build_scheduler(diffusers, generator.task, settings)
    theirs = walk_like_a_pipeline(scheduler, generator, x_T, style_id, settings)

    assert (ours - x_T).abs().mean() > 0.1
    torch.testing.assert_close(theirs, ours, atol=2e-3, rtol=2e-3)


def test_everyone_has_a_turn_in_every_round(generator: Generator) -> None:
    """Each draws, then the other work is done, and once more; what is done to warm up is not timed."""
    done: list[str] = []

    def noting(name: str) -> Drawing:
        def draw(*arguments: object) -> torch.Tensor:
            done.append(name)
            return draw_ours(*arguments)  # type: ignore[arg-type]

        return Drawing(generator, SETTINGS, 1, draw)

    found, seconds = draw_in_turns({name: noting(name) for name in "ab"}, 2, lambda: done.append("other"))

    assert done == ["a", "b", *["a", "b", "other"] * 2]
    assert [len(found[name]) for name in "ab"] == [2, 2] == [2, len(seconds)]


@pytest.mark.slow
def test_every_sampler_has_its_overhead(subject: Subject) -> None:
    """Three overheads, then rates and shares that belong together."""
    figures = list(bench_overhead(subject))
    overheads, (rate, decoding, gain, share) = figures[:3], figures[3:]

    for sampler, figure in zip(("ddim", "dpmpp_2m", "unipc"), overheads, strict=True):
        assert figure.name == f"tiny, 16 px, batch 2, 3 steps of {sampler}, overhead beside the denoiser's calls"
        assert figure.value == f"{figure.number:.2%}"
    assert (rate.unit, gain.value[-5:]) == ("images/s", "times")
    assert 0 < decoding.number < 1
    assert share.value.startswith(f"{share.number:.0%} of ")


@pytest.mark.slow
def test_diffusers_is_drawn_beside_ours(subject: Subject) -> None:
    """Three rates, the ratio of the first two, and what each loop adds."""
    pytest.importorskip("diffusers")

    rates, ratio, overheads = bench_peer(subject)

    assert list(rates.numbers) == list(overheads.numbers) == ["latentart", "UNet2DModel", "our network in their loop"]
    assert rates.number == rates.numbers["latentart"]
    assert ratio.value.startswith(f"{ratio.number:.2f} times, ")


def test_every_batch_size_has_its_rate(subject: Subject) -> None:
    """And all are said to have been drawn at once."""
    figures = list(bench_batches(subject))

    assert [figure.name for figure in figures] == ["tiny, 16 px, batch 1", "tiny, 16 px, batch 3"]
    assert not any("in parts" in figure.value for figure in figures)
