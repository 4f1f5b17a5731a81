"""What drawing takes of the memory, reckoned before anything is built."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from latentart.model.folder import load_model
from latentart.process.devices import Placement
from latentart.sampling.room import LargestUse, forward_bytes

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
    denoiser = load_model(workspace / "runs/ldm/model", Placement(torch.device("cpu"), "fp32")).denoiser
    assert denoiser is not None
    channels = denoiser.state_dict()["conv_in.weight"].shape[1]
    shape = (2, channels, 32, 32)
    numbers = torch.zeros(2, dtype=torch.int64)
    with torch.no_grad(), LargestUse() as use:
        denoiser(torch.zeros(shape), numbers, numbers)

    assert forward_bytes(denoiser, shape) == pytest.approx(use.peak, rel=0.05)


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
