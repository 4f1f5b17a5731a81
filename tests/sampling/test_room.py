"""What drawing takes of the memory, reckoned before anything is built."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from latentart.core.latents import split_moments
from latentart.errors import ResourceError
from latentart.model.folder import load_model
from latentart.process.devices import Placement
from latentart.sampling.room import LargestUse, autoencoder_bytes, denoiser_bytes, require_room_to_pass

Run = Callable[..., Any]


def test_the_peak_counts_what_lives_at_once() -> None:
    """Of three tensors of 4,000 bytes, made one after the other, two are there at a time."""
    with LargestUse() as use:
        one = torch.zeros(1000)
        two = one + 1
        del one
        three = two + 1
        del two, three

    assert use.peak == 8000


def test_the_peak_of_a_real_pass_is_reckoned(workspace: Path) -> None:
    """Without allocating anything it finds what the same pass over real tensors takes, byte for byte."""
    model = load_model(workspace / "runs/ldm/model", Placement(torch.device("cpu"), "fp32"))
    denoiser, autoencoder = model.denoiser, model.autoencoder
    assert denoiser is not None
    shape, images = (2, autoencoder.latent_channels, 32, 32), torch.zeros(2, 3, 64, 64)
    numbers = torch.zeros(2, dtype=torch.int64)
    with torch.no_grad(), LargestUse() as drawn:
        denoiser(torch.zeros(shape), numbers, numbers)
    with torch.no_grad(), LargestUse() as passed:
        autoencoder.decode(split_moments(autoencoder.encode(images + 0))[0])

    assert denoiser_bytes(denoiser, shape) == pytest.approx(drawn.peak, rel=0.05)
    assert autoencoder_bytes(autoencoder, tuple(images.shape)) == pytest.approx(passed.peak, rel=0.05)


def test_what_an_autoencoder_is_sent_is_bounded_by_the_memory(workspace: Path) -> None:
    """A million large pictures at once are refused, a large one in tiles is not."""
    network = load_model(workspace / "runs/vae/model", Placement(torch.device("cpu"), "fp32")).autoencoder
    cpu = torch.device("cpu")

    require_room_to_pass(network, (512, 512), cpu, "Try less.", tile=256)
    with pytest.raises(ResourceError, match=r"1000000 pictures of 9000x9000 would take .* are left\. Try less\."):
        require_room_to_pass(network, (9000, 9000), cpu, "Try less.", count=10**6)


@pytest.mark.parametrize(
    ("words", "constant"),
    [
        ("reconstruct {}", "PASSED_BYTES"),
        ("evaluate vae", "PASSED_BYTES"),
        ("evaluate ldm -n 1", "KEPT_BYTES"),
        ("sample -s Cubism -n 1", "KEPT_BYTES"),
    ],
)
def test_every_canvas_is_bounded_by_the_memory(
    run: Run, story: Any, snapshot: Run, monkeypatch: pytest.MonkeyPatch, words: str, constant: str
) -> None:
    """Were a pixel to take a terabyte, one line would refuse it before anything is written."""
    monkeypatch.setattr(f"latentart.sampling.room.{constant}", 10**12)
    before, picture = snapshot(story.folder), next((story.folder / "data").glob("*/*.*"))

    done = run(story.folder, *words.format(picture).split())

    assert "GB of memory, and" in done.error(5)
    assert "step" not in done.err
    assert snapshot(story.folder) == before


@pytest.mark.parametrize("words", [("--size", "9000x9000", "-n", "4096"), ("--size", "9000x9000", "--grid", "64x64")])
def test_more_than_the_memory_is_refused(run: Run, workspace: Path, words: tuple[str, ...]) -> None:
    """Before anything is drawn: 4,096 pictures of 81 megapixels are a thousand gigabytes."""
    line = run(workspace, "sample", "-s", "Cubism", *words).error(5)

    assert "4096 pictures of 9000x9000 would take" in line
    assert "Give a smaller --size" in line


@pytest.mark.parametrize("words", [("-n", "1000000000"), ("-n", "1000000000", "--walk", "3"), ("--walk", "1000000000")])
def test_too_many_are_refused_before_they_are_listed(run: Run, workspace: Path, words: tuple[str, ...]) -> None:
    """A thousand million pictures take no memory to be refused."""
    assert "pictures, and 4096 are the most" in run(workspace, "sample", "-s", "Cubism", *words).error(2)
