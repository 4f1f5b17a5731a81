"""Both autoencoders get the same, in turns, and a figure says what came of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor

from latentart.core.latents import kl_per_image, sample_posterior
from latentart.errors import DataError
from latentart.process.devices import Placement
from peers.contenders import (
    Contender,
    autoencoder_setting,
    build_our_autoencoder,
    build_peer,
    demo_optimizer,
    noise_images,
    posterior_noise,
)
from peers.figures import Figure
from peers.pictures import crops_at, make_up_pictures, middle_squares, read_pictures, split
from peers.setting import count_parameters
from peers.stages import longest_rise
from peers.training import TimedRun, train_in_turns
from peers.vae import PEER_RATES, bench_quality, bench_speed, mean_psnr, strongest_grid, timed_autoencoder

TINY = autoencoder_setting("tiny", (8, 16), 32, 2)
CPU = Placement(torch.device("cpu"), "fp32")


def gray(brightness: int) -> Image.Image:
    """Return a picture of one gray, by which its crops are known."""
    return Image.new("RGB", (80, 64), (brightness, brightness, brightness))


def grays_in(images: Tensor) -> list[int]:
    """Return the brightness of each image of one gray."""
    return [round(value) for value in ((images[:, 0, 0, 0] + 1) * 127.5).tolist()]


def by_name(figures: Sequence[Figure]) -> dict[str, Figure]:
    """Return figures by the first words of their names."""
    return {figure.name.removeprefix("tiny (32 px, batch 2), "): figure for figure in figures}


@pytest.mark.slow
def test_speed_compares_both_at_the_same_setting() -> None:
    """The ratio is of ours to theirs, and its verdict follows the bar for a CPU."""
    pytest.importorskip("diffusers")

    found = by_name(list(bench_speed(TINY, CPU, rounds=3)))

    assert list(found) == [
        *("parameters", "training", "ours over AutoencoderKL", "arithmetic", "share of the matrix rate")
    ]
    assert f"ours {count_parameters(build_our_autoencoder(TINY, CPU).network):,}, " in found["parameters"].value
    rates = [float(word) for word in found["training"].value.replace(",", "").split() if word[0].isdigit()]
    ratio = found["ours over AutoencoderKL"]
    assert float(ratio.value.split()[0]) == pytest.approx(rates[0] / rates[1], abs=0.02)
    numbers = found["training"].numbers
    assert ratio.number == numbers["ours"] / numbers["AutoencoderKL"]


@pytest.mark.slow
def test_quality_ends_with_scores_of_both() -> None:
    """Half a second each is enough for updates and for figures."""
    pytest.importorskip("diffusers")
    pictures = make_up_pictures(64, count=8)

    found = by_name(list(bench_quality(pictures, TINY, CPU, seconds=0.4, at_a_time=0.1)))

    assert found["pictures"].value == "14 to train on, 2 held out"
    assert found["learning rate of AutoencoderKL"].value.split(",")[0] in {f"{rate:g}" for rate in PEER_RATES}
    psnr, peer_psnr = (
        float(word)
        for word in found["PSNR on the pictures held out"].value.replace(",", "").split()
        if word[0].isdigit()
    )
    gain = found["PSNR, ours over AutoencoderKL"]
    assert float(gain.value.split()[0]) == pytest.approx(psnr - peer_psnr, abs=0.02)
    assert 0 <= found["strongest grid in flat colors"].number < 1


def test_both_speak_of_moments_and_latents_of_one_shape() -> None:
    """So one loss and one draw serve both, and an update lowers it."""
    pytest.importorskip("diffusers")
    images, noise = noise_images(TINY), posterior_noise(TINY)
    for contender in (build_our_autoencoder(TINY, CPU), build_peer(TINY, CPU)):
        moments = contender.encode(images)
        images_hat = contender.decode(sample_posterior(moments, noise))
        expected = (images_hat - images).abs().mean() + 1e-6 * kl_per_image(moments).mean()

        losses = [float(contender.step(images, noise, clips=True)) for _ in range(4)]

        assert moments.shape == (2, 8, 16, 16)
        assert losses[0] == pytest.approx(float(expected.detach()), rel=1e-5)
        assert losses[-1] < losses[0]
        assert contender.reconstruct(images).shape == images.shape


def test_what_is_held_between_steps_is_weights_and_moments() -> None:
    """AdamW keeps two moments per weight, and no gradient stays."""
    contender = build_our_autoencoder(TINY, CPU)
    contender.step(noise_images(TINY), posterior_noise(TINY))

    weights = 4 * count_parameters(contender.network)
    assert 3 * weights <= contender.held_bytes() < 3 * weights + 4 * 500  # and a counter per tensor
    assert all(parameter.grad is None for parameter in contender.network.parameters())


def run_of(limit: float, crops: Callable[[int], Tensor] = lambda _: noise_images(TINY)) -> TimedRun[Contender]:
    """Return a run of ours at a rate of 1e-3."""
    return timed_autoencoder(build_our_autoencoder(TINY, CPU), 1e-3, limit, TINY, crops)


def test_runs_have_equal_time_and_the_same_crops() -> None:
    """Each trains to its limit and no further than its last step, and asks for the crops of step 0, 1, 2."""
    asked: list[int] = []

    def crops(step: int) -> Tensor:
        asked.append(step)
        return noise_images(TINY)

    runs = [run_of(0.4, crops) for _ in range(2)]
    asked.clear()
    train_in_turns(runs, at_a_time=0.02)

    assert all(run.seconds >= 0.4 for run in runs)
    assert sorted(asked) == sorted(step for run in runs for step in range(run.steps))
    assert asked.index(0, 1) < runs[0].steps  # the second began before the first had ended


def test_the_rate_ends_with_the_time() -> None:
    """The cycle follows the clock: at its end there is next to nothing left, however many steps there were."""
    last, middle = run_of(1.0), run_of(1.0)
    last.seconds, middle.seconds = 0.9999, 0.2999
    last.advance(1.0)
    middle.advance(0.3)

    assert last.step_fn.optimizer.param_groups[0]["lr"] < 1e-6
    assert middle.step_fn.optimizer.param_groups[0]["lr"] == pytest.approx(1e-3, rel=1e-3)


def test_a_run_that_diverges_ends_with_its_last_sound_weights() -> None:
    """So it can still be judged."""
    run = run_of(60.0, lambda _: noise_images(TINY) * float("nan"))

    run.advance(60.0)

    assert (run.seconds, run.is_broken) == (60.0, True)
    assert all(bool(parameter.isfinite().all()) for parameter in run.step_fn.network.parameters())


def test_crops_are_a_function_of_the_step_and_see_each_picture_once_an_epoch() -> None:
    """Both contenders get the same, without a copy being kept."""
    pictures = [gray(10 * number) for number in range(8)]
    crops = partial(crops_at, pictures=pictures, resolution=32, batch_size=4)

    assert crops(3).equal(crops(3))
    assert not crops(0).equal(crops(1))
    assert sorted(grays_in(torch.cat([crops(0), crops(1)]))) == [10 * number for number in range(8)]
    assert crops(0).shape == (4, 3, 32, 32)


def test_pictures_held_out_are_not_trained_on() -> None:
    """Every eighth is kept back, and none is in both."""
    pictures = [gray(number) for number in range(20)]

    training, held_out = split(pictures)

    assert grays_in(middle_squares(held_out, 32)) == [0, 8, 16]
    assert grays_in(middle_squares(training, 32)) == [number for number in range(20) if number % 8]


def test_a_folder_is_read_but_for_what_is_no_picture_or_too_small(tmp_path: Path) -> None:
    """Broken files are passed over, pictures of all styles are there, large ones come reduced."""
    for style in ("a", "b"):
        (tmp_path / style).mkdir()
        for number in range(9):
            gray(number).resize((400, 300)).save(tmp_path / style / f"{number}.png")
    (tmp_path / "a" / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 no picture")
    gray(200).resize((40, 30)).save(tmp_path / "b" / "small.png")

    found = read_pictures(tmp_path, 64, 128)

    assert [picture.size for picture in found] == [(171, 128)] * 18


def test_a_folder_without_pictures_is_refused(tmp_path: Path) -> None:
    """Before anything is measured, in one line that says what to do."""
    with pytest.raises(DataError, match="holds 0 sound pictures of at least 64 pixels"):
        read_pictures(tmp_path, 64, 128)
    with pytest.raises(DataError, match="is not a folder"):
        read_pictures(tmp_path / "nowhere", 64, 128)


class Copy(torch.nn.Module):
    """A network that gives back what it got, plus a constant pattern."""

    def __init__(self, pattern: Tensor) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(2, 2))
        self.pattern = pattern


def copier(pattern: Tensor) -> Contender:
    """Return a contender whose reconstructions are the images plus a pattern."""
    return Contender(
        "copy",
        Copy(pattern),
        lambda images: torch.cat([images, torch.zeros_like(images)], 1),
        lambda z: z + pattern,
        demo_optimizer(),
        CPU,
    )


def test_scores_are_those_of_what_is_decoded() -> None:
    """A constant error of 0.2 is 20 dB; a checkerboard of amplitude 0.02 is a grid of 0.02, above the bar."""
    images = torch.zeros(3, 3, 32, 32)
    checkerboard = 0.02 * (1 - 2 * (torch.arange(64)[:, None] + torch.arange(64)).remainder(2))

    assert mean_psnr(copier(torch.tensor(0.2)), images, 2) == pytest.approx(20.0, abs=1e-3)
    assert strongest_grid(copier(torch.tensor(0.05)), TINY) == pytest.approx(0.0, abs=1e-6)
    assert strongest_grid(copier(checkerboard), TINY) == pytest.approx(0.02, abs=1e-4)


@pytest.mark.parametrize(
    ("errors", "expected"),
    [
        ([], 0),
        ([(0, 1.0), (25, 0.8), (50, 0.6), (75, 0.5)], 0),
        ([(0, 1.0), (25, 1.09), (50, 1.09), (500, 1.1)], 0),
        ([(0, 1.0), (25, 1.2), (50, 0.9)], 0),
        ([(0, 1.0), (25, 1.2), (50, 1.3), (75, 1.15), (100, 1.0)], 50),
        ([(0, 1.0), (25, 1.2), (50, 1.2), (75, 1.0), (100, 1.2), (125, 1.2), (150, 1.2)], 50),
        ([(0, 1.0), (25, 1.2), (50, 1.09), (75, 1.2), (100, 1.2)], 25),
        ([(0, 2.0), (25, 1.0), (50, 1.5), (200, 1.5)], 150),
    ],
)
def test_the_longest_rise_is_the_longest_span_above_the_best_so_far(
    errors: list[tuple[int, float]], expected: int
) -> None:
    """Falling and small rises count nothing, a span ends where the error is back, the best is that of the past."""
    assert longest_rise(errors) == expected
