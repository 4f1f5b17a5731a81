"""Our denoiser beside those of diffusers and lucidrains, few steps beside many, and what techniques are worth."""

from __future__ import annotations

import os
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import torch

from latentart.config.workspace import resolve
from latentart.process.devices import Placement
from peers.arena import Arena, build_arena, describe_arena
from peers.ldm import bench_batch_sizes, bench_quality, bench_speed, bench_steps
from peers.limits import bench_limits
from peers.recipes import bench_recipes
from peers.setting import Setting
from peers.training import DenoiserSetting, LdmRun, timed, train_in_turns

pytestmark = [pytest.mark.peers, pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")]


@pytest.fixture(scope="module")
def arena(tmp_path_factory: Any, own_pictures: Path | None, placement: Placement, *, is_quick: bool) -> Arena:
    """Build what all contenders share, once."""
    return build_arena(tmp_path_factory.mktemp("arena"), own_pictures, placement, is_quick=is_quick)


@pytest.fixture(scope="module")
def ours(arena: Arena, *, is_quick: bool) -> LdmRun:
    """Return our run, yet to be trained."""
    seconds = float(os.environ.get("PEERS_SECONDS", "120"))
    return timed(arena, "latentart", arena.workspace.config.ldm, seconds / 20 if is_quick else seconds)


def setting_of(preset: str, *, on_gpu: bool) -> DenoiserSetting:
    """Return the demo's size, or the recommended one."""
    model: Any = resolve({"preset": preset}).ldm.model
    side, batch_size = {"demo": (16, 16), "wikiart-256": (32, 128 if on_gpu else 4)}[preset]
    return Setting(preset, model, side, batch_size)


@pytest.mark.parametrize(("preset", "rounds"), [("demo", 15), ("wikiart-256", 5)])
def test_speed(show: Any, preset: str, rounds: int, placement: Placement, *, on_gpu: bool, is_quick: bool) -> None:
    """Updates are at least 1.5 times as fast as the faster peer's of as many parameters."""
    pytest.importorskip("diffusers")
    pytest.importorskip("denoising_diffusion_pytorch")
    figures = bench_speed(setting_of(preset, on_gpu=on_gpu), placement, rounds=1 if is_quick else rounds)

    found = show(chain(bench_limits(placement), figures))

    (ratio,) = [figure.number for name, figure in found.items() if name.endswith("ours over the faster peer")]
    assert ratio >= 1.5


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="CUDA only")
def test_batch_sizes(show: Any, placement: Placement) -> None:
    """At the preset's batch the update reaches 35 % of the matrix rate."""
    found = show(bench_batch_sizes(setting_of("wikiart-256", on_gpu=True), placement))

    assert found["batch 128"].numbers["share of the matrix rate"] >= 0.35


def test_quality(show: Any, arena: Arena, ours: LdmRun) -> None:
    """After equal time ours is at half the better peer's Fréchet distance at most, and as well known as real ones."""
    pytest.importorskip("diffusers")
    pytest.importorskip("denoising_diffusion_pytorch")

    found = show(chain(describe_arena(arena), bench_quality(arena, ours)))

    assert found["Fréchet distance, ours over the better peer"].number <= 0.5
    assert found["recognized, ours over real pictures"].number >= 0.95


def test_steps(show: Any, arena: Arena, ours: LdmRun, *, is_quick: bool) -> None:
    """The better of two fast samplers needs 20 steps for what DDIM does in 100."""
    train_in_turns([ours])

    found = show(chain(describe_arena(arena), bench_steps(arena, ours, turns=1 if is_quick else 3)))

    assert found["Fréchet distance, the better of 20 steps over DDIM"].number <= 1


def test_recipes(show: Any, arena: Arena, *, is_quick: bool) -> None:
    """What each technique is worth, without a bar but that the seed's recipe is not the better one."""
    found = show(chain(describe_arena(arena), bench_recipes(arena, seconds=4.0 if is_quick else 75.0)))

    assert found["recommended"].number < found["the seed's"].number
