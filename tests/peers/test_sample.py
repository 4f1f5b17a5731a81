"""What drawing pictures costs beside the network's own calls, and beside diffusers."""

from __future__ import annotations

import os
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import torch

from latentart.process.devices import Placement
from peers.limits import bench_limits
from peers.sample import (
    Subject,
    bench_batches,
    bench_compile,
    bench_overhead,
    bench_peer,
    subject_of_model,
    subject_of_preset,
)

pytestmark = [pytest.mark.peers, pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")]
BAR = 0.05  # of overhead
OWN = os.environ.get("PEERS_MODEL")


@pytest.fixture(params=["model"] if OWN else ["demo", "wikiart-256"])
def subject(request: pytest.FixtureRequest, placement: Placement, *, is_quick: bool) -> Subject:
    """Return a model of one's own, or networks of a preset."""
    if OWN:
        return subject_of_model(Path(OWN), placement, is_quick=is_quick)
    return subject_of_preset(request.param, placement, is_quick=is_quick)


def test_overhead(show: Any, subject: Subject, placement: Placement) -> None:
    """Three samplers add 5 % at most to the denoiser's calls."""
    found = show(chain(bench_limits(placement), bench_overhead(subject)))

    overheads = [figure.number for name, figure in found.items() if "overhead beside" in name]
    assert len(overheads) == 3
    assert max(overheads) <= BAR


def test_peer(show: Any, subject: Subject) -> None:
    """Beside diffusers' loop with its UNet of as many parameters, and with our network; without a bar."""
    pytest.importorskip("diffusers")

    found = show(bench_peer(subject))

    (ratio,) = [figure.number for name, figure in found.items() if name.endswith("ours over diffusers")]
    assert ratio > 0


def test_batches(show: Any, subject: Subject) -> None:
    """Every batch has its rate."""
    found = show(bench_batches(subject))

    assert all(figure.number > 0 for figure in found.values())


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="CUDA only")
def test_compile(show: Any, subject: Subject) -> None:
    """Compiled calls leave 5 % of overhead at most as well."""
    found = show(bench_compile(subject))

    (overhead,) = [figure.number for name, figure in found.items() if "overhead beside" in name]
    assert overhead <= BAR
