"""Samplers against exact answers: for Gaussian x0 the best denoiser is affine, and so is a DDIM run."""

from __future__ import annotations

import math
import runpy
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import get_args

import pytest
import torch
from torch import Tensor

from latentart.core.diffusion.process import add_noise
from latentart.core.diffusion.samplers import ddim_sigma, ddim_step, ddpm_step, make_denoise, sample
from latentart.core.diffusion.schedules import NoiseSchedule, make_betas, straight_alpha_bar, timestep_pairs
from latentart.kinds import Sampler, ScheduleKind, Target

MEAN, STD = 1.5, 0.5
ORACLE = runpy.run_path(str(Path(__file__).with_name("gaussian_oracle.py")))
draw, refuse_noise = ORACLE["draw"], ORACLE["refuse_noise"]
gaussian_denoise = partial(ORACLE["gaussian_denoise"], mean=MEAN, std=STD)
SCHEDULES = {kind: NoiseSchedule.from_betas(make_betas(kind, 1000)) for kind in ("linear", "cosine")}
FROM_PURE_NOISE = {
    "straight": NoiseSchedule.from_alpha_bar(straight_alpha_bar(1000)),
    "zero-terminal linear": SCHEDULES["linear"].to_zero_terminal_snr(),
    "zero-terminal cosine": SCHEDULES["cosine"].to_zero_terminal_snr(),
}


def affine_run(alpha_bar: list[float], pairs: Sequence[tuple[int, int]], eta: float) -> tuple[float, float, float]:
    """Return (slope, offset, var) of x0 = slope x_T + offset + N(0, var), by scalar recursion."""
    slope, offset, var = 1.0, 0.0, 0.0
    for t, t_prev in pairs:
        now, then = alpha_bar[t], alpha_bar[t_prev] if t_prev >= 0 else 1.0
        gain = math.sqrt(now) * STD**2 / (now * STD**2 + 1 - now)
        rest = MEAN * (1 - gain * math.sqrt(now))  # x0_hat = gain x_t + rest
        sigma2 = eta**2 * (1 - then) / (1 - now) * (1 - now / then)
        turn = math.sqrt(max(1 - then - sigma2, 0) / (1 - now))
        a = math.sqrt(then) * gain + turn * (1 - math.sqrt(now) * gain)
        b = math.sqrt(then) * rest - turn * math.sqrt(now) * rest
        slope, offset, var = a * slope, a * offset + b, a**2 * var + sigma2
    return slope, offset, var


@pytest.mark.parametrize("target", get_args(Target))
@pytest.mark.parametrize("kind", ["linear", "cosine"])
@pytest.mark.parametrize("num_steps", [1, 10, 333])
def test_ddim_is_the_affine_map_of_the_gaussian_oracle(kind: ScheduleKind, target: Target, num_steps: int) -> None:
    """A DDIM run on Gaussian data equals its closed form in float64, whatever the network predicts."""
    schedule = SCHEDULES[kind]
    pairs = timestep_pairs(schedule, num_steps)
    x_T = draw(0, 16, 1, 2, 2)
    slope, offset, _ = affine_run(schedule.alpha_bar.tolist(), pairs, eta=0.0)

    x0 = sample(gaussian_denoise(schedule, target), x_T, pairs, schedule, eta=0.0, noise=refuse_noise)

    torch.testing.assert_close(x0, slope * x_T + offset, atol=1e-9, rtol=0)


@pytest.mark.parametrize(("num_steps", "std"), [(10, 0.370), (50, 0.471), (250, 0.494), (1000, 0.4985)])
def test_ddim_approaches_the_spread_of_the_data(num_steps: int, std: float) -> None:
    """More steps bring the spread of the samples closer to 0.5, by known amounts."""
    schedule = SCHEDULES["linear"]
    pairs = timestep_pairs(schedule, num_steps)
    x_T = torch.tensor([0.0, 1.0], dtype=torch.float64).reshape(2, 1, 1, 1)

    at_0, at_1 = sample(gaussian_denoise(schedule, "eps"), x_T, pairs, schedule, eta=0.0, noise=refuse_noise)

    assert float(at_1 - at_0) == pytest.approx(std, abs=5e-4 if num_steps < 1000 else 5e-5)


@pytest.mark.parametrize(
    ("sampler", "eta", "mean", "std"),
    [("ddim", 0.8, 1.5000, 0.4748), ("ddim", 1.0, None, None), ("ddpm", 0.0, None, None)],
)
def test_noisy_samplers_have_the_oracle_moments(
    sampler: Sampler, eta: float, mean: float | None, std: float | None
) -> None:
    """Mean and spread of a noisy run, read off exactly by feeding each source of noise a unit in turn."""
    schedule = SCHEDULES["cosine"]
    pairs = timestep_pairs(schedule, 50)
    N = len(pairs)
    # image 0 meets no noise at all, image 1 a unit in x_T, image i + 2 a unit at step i
    units = torch.eye(N + 2, dtype=torch.float64)[:, :, None, None, None]

    x0 = sample(
        gaussian_denoise(schedule, "eps"),
        units[1],
        pairs,
        schedule,
        eta=eta,
        noise=lambda i: units[i + 2],
        sampler=sampler,
    ).flatten()

    slope, offset, var = affine_run(schedule.alpha_bar.tolist(), pairs, 1.0 if sampler == "ddpm" else eta)
    sample_std = float((x0[1:] - x0[0]).square().sum().sqrt())
    assert float(x0[0]) == pytest.approx(offset, abs=1e-9)
    assert sample_std == pytest.approx(math.sqrt(slope**2 + var), abs=1e-9)
    if mean is not None:
        assert float(x0[0]) == pytest.approx(mean, abs=5e-5)
        assert sample_std == pytest.approx(std, abs=5e-5)


@pytest.mark.parametrize("name", FROM_PURE_NOISE)
@pytest.mark.parametrize("target", ["x0", "v", "flow"])
@pytest.mark.parametrize(("sampler", "eta"), [("ddim", 0.0), ("ddim", 0.8), ("ddim", 1.0), ("ddpm", 1.0)])
@pytest.mark.parametrize("num_steps", [1, 50])
def test_samplers_start_from_pure_noise(
    sampler: Sampler, eta: float, target: Target, num_steps: int, name: str
) -> None:
    """Mean and spread of a run from ᾱ = 0 are those of the scalar recursion, whatever the network predicts."""
    schedule = FROM_PURE_NOISE[name]
    pairs = timestep_pairs(schedule, num_steps)
    units = torch.eye(num_steps + 2, dtype=torch.float64)[:, :, None, None, None]

    x0 = sample(
        gaussian_denoise(schedule, target),
        units[1],
        pairs,
        schedule,
        eta=eta,
        noise=lambda i: units[i + 2],
        sampler=sampler,
    ).flatten()

    slope, offset, var = affine_run(schedule.alpha_bar.tolist(), pairs, eta)
    assert float(x0[0]) == pytest.approx(offset, abs=1e-9)
    assert float((x0[1:] - x0[0]).square().sum().sqrt()) == pytest.approx(math.sqrt(slope**2 + var), abs=1e-9)


@pytest.mark.parametrize("kind", ["linear", "cosine"])
@pytest.mark.parametrize("num_steps", [10, 1000])
def test_ddpm_step_is_ddim_step_at_eta_1(kind: ScheduleKind, num_steps: int) -> None:
    """Two independent formulas of the ancestral step agree on every pair."""
    schedule = SCHEDULES[kind]
    x0_hat, eps_hat, noise = draw(0, 2, 4, 3, 3), draw(1, 2, 4, 3, 3), draw(2, 2, 4, 3, 3)

    for t, t_prev in timestep_pairs(schedule, num_steps):
        now, then = schedule.alpha_bar_at(t), schedule.alpha_bar_at(t_prev)
        x_t = add_noise(x0_hat, eps_hat, now)

        ddim = ddim_step(x0_hat, eps_hat, now, then, 1.0, noise)
        ddpm = ddpm_step(x_t, x0_hat, now, then, noise)

        torch.testing.assert_close(ddpm, ddim, atol=1e-13, rtol=0)


def test_sigma_runs_from_0_to_the_ancestral_deviation() -> None:
    """σ is proportional to eta and 0 at the clean end."""
    now, then, clean = torch.tensor([0.36, 0.75, 1.0], dtype=torch.float64)

    assert float(ddim_sigma(now, then, 0.0)) == 0
    assert float(ddim_sigma(now, then, 0.5)) == pytest.approx(0.5 * math.sqrt(0.25 / 0.64 * 0.52))
    assert float(ddim_sigma(now, clean, 1.0)) == 0


@pytest.mark.parametrize(("sampler", "eta"), [("ddim", 0.5), ("ddim", 1.0), ("ddpm", 0.0)])
def test_noise_is_asked_once_per_step_but_not_for_the_last(sampler: Sampler, eta: float) -> None:
    """The last step ends clean; each before it asks for the noise of its own index."""
    asked = []

    def noise(step: int) -> Tensor:
        asked.append(step)
        return draw(step, 2, 1, 2, 2)

    schedule = SCHEDULES["cosine"]
    sample(
        gaussian_denoise(schedule, "eps"),
        draw(9, 2, 1, 2, 2),
        timestep_pairs(schedule, 5),
        schedule,
        eta=eta,
        noise=noise,
        sampler=sampler,
    )

    assert asked == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("sampler", "eta"),
    [("ddim", 0.0), ("ddim", 0.8), *((sampler, 0.0) for sampler in get_args(Sampler) if sampler != "ddim")],
)
def test_image_does_not_depend_on_its_batch(sampler: Sampler, eta: float) -> None:
    """Image 2 of a batch of four is, bit for bit, the image made alone; float32 stays float32."""
    schedule = SCHEDULES["cosine"]
    pairs = timestep_pairs(schedule, 20)
    x_T = draw(0, 4, 1, 8, 8).float()
    noises = draw(1, 20, 4, 1, 8, 8).float()

    def run(part: slice) -> Tensor:
        denoise = make_denoise(lambda x_t, t: x_t.tanh() * (1 + t.reshape(-1, 1, 1, 1) / 1000), schedule, "v")
        return sample(denoise, x_T[part], pairs, schedule, eta=eta, noise=lambda i: noises[i, part], sampler=sampler)

    assert run(slice(0, 4)).dtype == torch.float32
    assert torch.equal(run(slice(0, 4))[2:3], run(slice(2, 3)))


def test_on_step_sees_every_step() -> None:
    """Each step reports its index, its state and x0_hat; the last state is the result and its x0_hat."""
    schedule = SCHEDULES["cosine"]
    seen: list[tuple[int, Tensor, Tensor]] = []

    x0 = sample(
        gaussian_denoise(schedule, "eps"),
        draw(0, 2, 1, 2, 2),
        timestep_pairs(schedule, 3),
        schedule,
        eta=0.0,
        noise=refuse_noise,
        on_step=lambda i, x_prev, x0_hat: seen.append((i, x_prev, x0_hat)),
    )

    assert [i for i, _, _ in seen] == [0, 1, 2]
    assert torch.equal(seen[-1][1], x0)
    torch.testing.assert_close(seen[-1][2], x0, atol=1e-12, rtol=0)


def test_sampling_keeps_no_graph() -> None:
    """A network's weights do not collect a gradient graph over the steps."""
    weight = torch.ones((), requires_grad=True)
    schedule = SCHEDULES["cosine"]
    denoise = make_denoise(lambda x_t, _: weight * x_t, schedule, "v")

    x0 = sample(denoise, draw(0, 1, 1, 2, 2), timestep_pairs(schedule, 2), schedule, eta=0.0, noise=refuse_noise)

    assert not x0.requires_grad


def test_denoise_clamps_x0_hat() -> None:
    """``x0_limit`` bounds every x0_hat a sampler sees."""
    schedule = SCHEDULES["cosine"]
    denoise = make_denoise(lambda x_t, _: torch.zeros_like(x_t), schedule, "eps", x0_limit=2.0)

    x0_hat, _ = denoise(torch.tensor([-1.0, 0.0, 1.0]).reshape(3, 1, 1, 1), 999)

    assert x0_hat.flatten().tolist() == [-2, 0, 2]


def test_unsound_sampling_is_refused() -> None:
    """An eta outside 0 … 1 or an unknown sampler says so."""
    schedule = SCHEDULES["cosine"]
    denoise, x_T, pairs = gaussian_denoise(schedule, "eps"), draw(0, 1, 1, 2, 2), timestep_pairs(schedule, 2)

    with pytest.raises(ValueError, match=r"eta: got 1\.5, expected 0 to 1"):
        sample(denoise, x_T, pairs, schedule, eta=1.5, noise=refuse_noise)
    with pytest.raises(ValueError, match="sampler: got 'lms', expected ddim, ddpm, euler, heun, dpmpp_2m, unipc"):
        sample(denoise, x_T, pairs, schedule, eta=0.0, noise=refuse_noise, sampler="lms")  # type: ignore[arg-type]
