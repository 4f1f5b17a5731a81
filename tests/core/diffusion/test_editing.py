"""Pictures from pictures: inversion against exact answers, kept regions, and ways between two starts."""

from __future__ import annotations

import math
import runpy
from functools import partial
from pathlib import Path
from typing import get_args

import pytest
import torch
from torch import Tensor, nn

from latentart.core.diffusion.editing import feather, invert, keep_known, mask_latents, slerp
from latentart.core.diffusion.process import add_noise
from latentart.core.diffusion.samplers import make_denoise, sample
from latentart.core.diffusion.schedules import NoiseSchedule, make_betas, timestep_pairs
from latentart.core.diffusion.solvers import Denoise
from latentart.kinds import Sampler, ScheduleKind, Target

MEAN, STD = 0.4, 1.1
ORACLE = runpy.run_path(str(Path(__file__).with_name("gaussian_oracle.py")))
draw, refuse_noise = ORACLE["draw"], ORACLE["refuse_noise"]
gaussian_denoise = partial(ORACLE["gaussian_denoise"], mean=MEAN, std=STD)
SCHEDULES = {kind: NoiseSchedule.from_betas(make_betas(kind, 1000)) for kind in ("linear", "cosine")}


def network_denoise(schedule: NoiseSchedule) -> Denoise:
    """Return the denoiser of a small smooth network with random weights, float64, that predicts v."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        layers = nn.Conv2d(4, 16, 3, padding=1), nn.Tanh(), nn.Conv2d(16, 4, 3, padding=1)
        network = nn.Sequential(*layers).double().requires_grad_(requires_grad=False)
    return make_denoise(lambda x_t, t: network(x_t * (1 + t.reshape(-1, 1, 1, 1) / 1000)), schedule, "v")


@pytest.mark.parametrize("target", ["eps", "x0", "v"])
@pytest.mark.parametrize("kind", ["linear", "cosine"])
@pytest.mark.parametrize("num_steps", [5, 50])
def test_inversion_is_the_exact_inverse_on_the_gaussian_oracle(
    kind: ScheduleKind, target: Target, num_steps: int
) -> None:
    """DDIM from the inverted start ends at x0, and the inverted start is where x0 came from."""
    schedule = SCHEDULES[kind]
    pairs = timestep_pairs(schedule, num_steps)
    denoise, x_T = gaussian_denoise(schedule, target), draw(0, 8, 1, 2, 2)
    x0 = sample(denoise, x_T, pairs, schedule, eta=0.0, noise=refuse_noise)

    found = invert(denoise, x0, pairs, schedule, passes=40)

    torch.testing.assert_close(found, x_T, atol=1e-6, rtol=0)
    torch.testing.assert_close(
        sample(denoise, found, pairs, schedule, eta=0.0, noise=refuse_noise), x0, atol=1e-7, rtol=0
    )


@pytest.mark.parametrize(("passes", "bound"), [(1, 0.02), (2, 1e-3), (4, 3e-6)])
def test_inversion_of_a_network_comes_back(passes: int, bound: float) -> None:
    """Up and down again through a network: the relative error of the latents stays below a bound that passes shrink."""
    schedule = SCHEDULES["cosine"]
    pairs, denoise, x0 = timestep_pairs(schedule, 30), network_denoise(schedule), draw(1, 3, 4, 8, 8)

    start = invert(denoise, x0, pairs, schedule, passes=passes)
    again = sample(denoise, start, pairs, schedule, eta=0.0, noise=refuse_noise)

    assert bound / 10 < float((again - x0).norm() / x0.norm()) < bound


def test_inversion_takes_a_part_of_the_way() -> None:
    """With the last pairs alone it goes as far up as these begin; with none it stays."""
    schedule = SCHEDULES["cosine"]
    pairs, denoise, x0 = timestep_pairs(schedule, 30), network_denoise(schedule), draw(1, 1, 4, 8, 8)

    start = invert(denoise, x0, pairs[20:], schedule)

    assert torch.equal(invert(denoise, x0, [], schedule), x0)
    torch.testing.assert_close(
        sample(denoise, start, pairs[20:], schedule, eta=0.0, noise=refuse_noise), x0, atol=1e-4, rtol=0
    )
    with pytest.raises(ValueError, match="passes: got 0, expected at least 1"):
        invert(denoise, x0, pairs, schedule, passes=0)


@pytest.mark.parametrize("sampler", [name for name in get_args(Sampler) if name != "ddpm"])
def test_what_is_known_is_noised_anew_at_each_step(sampler: Sampler) -> None:
    """Without noise of its own a solver holds the known region at √ᾱ x0 + √(1-ᾱ) eps, and paints the rest."""
    schedule = SCHEDULES["cosine"]
    pairs, x0, eps = timestep_pairs(schedule, 20), draw(0, 2, 4, 8, 8), draw(1, 2, 4, 8, 8)
    mask = torch.zeros(1, 1, 8, 8)
    mask[..., 4:] = 1
    states: list[Tensor] = []

    sample(
        keep_known(network_denoise(schedule), x0, mask, schedule),
        add_noise(x0, eps, schedule.alpha_bar_at(pairs[0][0])),
        pairs,
        schedule,
        eta=0.0,
        noise=refuse_noise,
        sampler=sampler,
        on_step=lambda _i, x_prev, _x0_hat: states.append(x_prev),
    )

    for (_, t_prev), state in zip(pairs, states, strict=True):
        expected = add_noise(x0, eps, schedule.alpha_bar_at(t_prev))
        torch.testing.assert_close(state[..., :4], expected[..., :4], atol=1e-8, rtol=0)
    assert float((states[-1] - x0)[..., 4:].abs().mean()) > 0.1


@pytest.mark.parametrize(("sampler", "eta"), [("ddim", 0.7), ("ddpm", 0.0)])
def test_what_is_known_ends_as_it_was_in_noisy_samplers(sampler: Sampler, eta: float) -> None:
    """Noise of each step or not, the known region comes out exact."""
    schedule = SCHEDULES["cosine"]
    x0, mask = draw(0, 1, 4, 8, 8), torch.zeros(1, 1, 8, 8)
    mask[..., 2:5, :] = 1

    found = sample(
        keep_known(network_denoise(schedule), x0, mask, schedule),
        draw(1, 1, 4, 8, 8),
        timestep_pairs(schedule, 10),
        schedule,
        eta=eta,
        noise=lambda i: draw(i, 1, 4, 8, 8),
        sampler=sampler,
    )

    is_known = (mask == 0).expand_as(x0)
    assert torch.equal(found[is_known], x0[is_known])
    assert not torch.isclose(found[~is_known], x0[~is_known]).any()


def test_the_way_between_two_noises_is_an_arc() -> None:
    """Its ends are the noises bit for bit, its points as long as noise, its angle in proportion to the share."""
    start, end = draw(0, 5, 4, 32, 32).float(), draw(1, 5, 4, 32, 32).float()
    share = torch.tensor([0.0, 0.25, 0.5, 0.75, 1.0])

    way = slerp(start, end, share)

    assert way.dtype == torch.float32
    assert torch.equal(way[0], start[0])
    assert torch.equal(way[-1], end[-1])
    torch.testing.assert_close(way.flatten(1).std(dim=1), torch.ones(5), atol=0.03, rtol=0)
    cosines = nn.functional.cosine_similarity(start.flatten(1), way.flatten(1))
    whole = nn.functional.cosine_similarity(start.flatten(1), end.flatten(1)).acos()
    torch.testing.assert_close(cosines[1:4].acos(), (share * whole)[1:4], atol=0.02, rtol=0)


def test_the_way_from_a_noise_to_itself_stays_there() -> None:
    """No angle, nothing to divide by."""
    noise = draw(0, 2, 4, 4, 4)

    torch.testing.assert_close(slerp(noise, noise, torch.tensor([0.3, 0.5])), noise)


def test_a_latent_is_painted_where_any_of_its_pixels_is() -> None:
    """One white pixel is enough."""
    mask = torch.zeros(1, 1, 8, 12)
    mask[0, 0, 3, 4] = 1

    assert mask_latents(mask, 4).tolist() == [[[[0, 1, 0], [0, 0, 0]]]]


def test_a_mask_falls_off_outside_of_the_white() -> None:
    """White pixels are wholly new, also a thin line; two radii away nothing is."""
    mask = torch.zeros(1, 1, 9, 33)
    mask[..., 16] = 1

    soft = feather(mask, 4)

    assert torch.equal(soft[..., 16], torch.ones(1, 1, 9))
    assert math.isclose(float(soft[0, 0, 0, 20]), 5 / 9, rel_tol=1e-5)
    assert (soft[0, 0, 4, 16:].diff() <= 0).all()
    assert not soft[..., :8].any()
    assert not soft[..., 25:].any()
