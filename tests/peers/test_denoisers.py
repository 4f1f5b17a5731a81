"""All denoisers are of one size and get the same, in turns, and a figure says what came of it."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from latentart.config.denoiser import UNetConfig
from latentart.config.ldm import DiffusionConfig
from latentart.config.optim import OptimizerConfig
from latentart.config.workspace import resolve
from latentart.process.devices import Placement
from latentart.scoring.metrics.judge import Judge
from peers.arena import compare
from peers.denoisers import build_ours, build_peers
from peers.ldm import bench_speed
from peers.setting import Setting, count_parameters
from peers.training import TimedRun, build_step, noise_batch

pytest.importorskip("diffusers")
pytest.importorskip("denoising_diffusion_pytorch")
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")

CPU = Placement(torch.device("cpu"), "fp32")
TINY = Setting("tiny", UNetConfig(widths=(32, 64), attention=("linear", "full"), embedding_channels=64), 8, 2)


@pytest.mark.slow
def test_all_have_as_many_parameters_within_a_tenth() -> None:
    """For the two sizes of the speed part: the demo's and the recommended one, counted without memory."""
    for preset in ("demo", "wikiart-256"):
        with torch.device("meta"):
            ours = count_parameters(build_ours(resolve({"preset": preset}).ldm.model, 4, 27))
            peers = build_peers(ours, 4, 16, 27, 3)

        assert {name: abs(count_parameters(peer) / ours - 1) < 0.1 for name, peer in peers.items()} == {
            "UNet2DModel": True,
            "lucidrains Unet": True,
        }


@torch.no_grad()
def test_peers_keep_the_contract_of_our_denoisers() -> None:
    """Styles and the null style give predictions of their own, and an image alone what it gives among others."""
    for peer in build_peers(300_000, 4, 8, 3, 2).values():
        peer.eval()
        x_t = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0)).expand(4, -1, -1, -1)
        style_id, t = torch.arange(4), torch.full((4,), 500)

        together = peer(x_t, t, style_id)

        assert together.shape == x_t.shape
        assert peer.null_like(style_id).tolist() == [3] * 4
        assert (torch.cdist(together.flatten(1), together.flatten(1)) + torch.eye(4)).min() > 1e-3
        torch.testing.assert_close(peer(x_t[:1], t[:1], style_id[3:]), together[3:], atol=1e-4, rtol=1e-4)


@pytest.mark.slow
def test_speed_names_every_contender_and_its_rate() -> None:
    """Sizes, rates, the ratio to the faster of the others, arithmetic, and shares of the machine's own rate."""
    sizes, rates, ratio, costs, shares = bench_speed(TINY, CPU, rounds=1)

    for figure in (sizes, rates, costs, shares):
        assert list(figure.numbers) == ["latentart", "UNet2DModel", "lucidrains Unet"]
        assert all(name in figure.value for name in figure.numbers)
        assert figure.number == figure.numbers["latentart"]
    own, *others = rates.numbers.values()
    assert ratio.number == own / max(others)
    reached = [rates.numbers[name] * costs.numbers[name] / shares.numbers[name] for name in rates.numbers]
    assert reached == pytest.approx([reached[0]] * 3)  # of one limit


def test_a_run_that_diverges_stops_and_keeps_its_average() -> None:
    """At the tenth update in a row that is not finite; the average holds only finite weights."""
    step_fn = build_step(build_ours(TINY.model, 4, 27), DiffusionConfig(), OptimizerConfig(), CPU)
    good = noise_batch(TINY, CPU)
    run = TimedRun(
        "ours",
        step_fn,
        lambda step: good if step < 2 else replace(good, x0=good.x0 * float("nan")),
        OptimizerConfig(),
        60.0,
    )

    run.advance(30.0)

    assert (run.is_broken, run.steps, run.seconds) == (True, 12, 60.0)
    assert all(torch.isfinite(weight).all() for weight in step_fn.ema.network.parameters())


def test_scores_tell_good_samples_from_bad_ones() -> None:
    """The reference itself is at distance 0; noise is far from it."""
    torch.manual_seed(0)
    judge = Judge(2).eval().requires_grad_(requires_grad=False)
    real = torch.randint(0, 80, (12, 3, 16, 16), dtype=torch.uint8)
    style_id = torch.arange(12) % 2

    same = compare(judge, real, real, style_id)
    other = compare(judge, 255 - real, real, style_id)

    assert same.frechet < 1e-6 < other.frechet
