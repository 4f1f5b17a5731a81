"""Where walks begin, on a mixture of Gaussians: its posterior mean is exact, and its path is found the slow way."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import get_args

import pytest
import torch
from torch import Tensor

from latentart.core.diffusion.editing import invert
from latentart.core.diffusion.process import target_from, x0_and_eps_from
from latentart.core.diffusion.samplers import make_denoise, sample, usual_spacing
from latentart.core.diffusion.schedules import NoiseSchedule, make_betas, straight_alpha_bar, timestep_pairs
from latentart.core.diffusion.solvers import Denoise
from latentart.kinds import Sampler, ScheduleKind, Spacing, Target
from latentart.model.generate import SamplerSettings

MEANS = torch.tensor([-1.2, 0.1, 1.0], dtype=torch.float64)
LOG_SHARES = torch.tensor([0.3, 0.2, 0.5], dtype=torch.float64).log()
STD = 0.25
LIMIT = SamplerSettings().noise_limit
SCHEDULES = {kind: NoiseSchedule.from_betas(make_betas(kind, 1000)) for kind in get_args(ScheduleKind)}
COSINE = SCHEDULES["cosine"]
X_T = torch.randn(1, 2000, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def posterior_mean(x_t: Tensor, alpha_bar_t: Tensor) -> Tensor:
    """Return E[x0 | x_t] of the mixture, by Bayes."""
    scale, variance = alpha_bar_t.sqrt(), alpha_bar_t * STD**2 + 1 - alpha_bar_t
    away = x_t[..., None] - scale * MEANS
    shares = (LOG_SHARES - away**2 / (2 * variance)).softmax(-1)
    return (shares * (MEANS + scale * STD**2 / variance * away)).sum(-1)


def mixture_denoise(target: Target, *, error: float = 0.0, rounds: bool = False) -> Denoise:
    """Return the exact denoiser on cosine, told in ``target``; off by a share ``error``, or rounded to bfloat16."""
    generator = torch.Generator().manual_seed(5)

    def predict(x_t: Tensor, t: Tensor) -> Tensor:
        alpha_bar_t = COSINE.alpha_bar[t[0]]
        x0_hat = posterior_mean(x_t, alpha_bar_t)
        eps_hat = (x_t - alpha_bar_t.sqrt() * x0_hat) / (1 - alpha_bar_t).sqrt()
        told = target_from(target, x0_hat, eps_hat, alpha_bar_t)
        told = told * (1 + error * torch.randn(told.shape, generator=generator, dtype=torch.float64))
        return told.bfloat16() if rounds else told

    return make_denoise(predict, COSINE, target, x0_limit=5.0)


def walk(denoise: Denoise, pairs: list[tuple[int, int]], sampler: Sampler) -> Tensor:
    """Return x0 from ``X_T``."""
    noise = torch.randn(len(pairs), *X_T.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    return sample(denoise, X_T, pairs, COSINE, eta=0.0, noise=lambda i: noise[i], sampler=sampler)


@pytest.mark.parametrize("target", get_args(Target))
@pytest.mark.parametrize("kind", SCHEDULES)
def test_no_error_is_magnified_beyond_the_limit(kind: ScheduleKind, target: Target) -> None:
    """An error of 1 in the prediction, at the first timestep of every spacing, is at most the limit in x0_hat."""
    schedule = SCHEDULES[kind]
    zero, one = torch.zeros(1, dtype=torch.float64), torch.ones(1, dtype=torch.float64)
    for spacing in get_args(Spacing):
        for num_steps in (1, 7, 100, 999, 1000):
            first = _first(schedule, num_steps, spacing, target)
            with_error, without = (
                x0_and_eps_from(target, prediction, zero, schedule.alpha_bar_at(first))[0] for prediction in (one, zero)
            )

            assert float((with_error - without).abs()) <= (164 if target == "eps" else 1)


def _first(schedule: NoiseSchedule, num_steps: int, spacing: Spacing, target: Target) -> int:
    limit = SamplerSettings(spacing=spacing).noise_limit_for(target)
    return timestep_pairs(schedule, num_steps, spacing, limit)[0][0]


def test_only_the_cosine_schedule_goes_beyond_the_limit() -> None:
    """Ho et al.'s linear schedule ends at 157, and is walked from its end as ever; cosine goes on to 20,291."""
    last = {kind: float(schedule.snr[-1] ** -0.5) for kind, schedule in SCHEDULES.items()}
    firsts = {kind: timestep_pairs(schedule, 50, "trailing", LIMIT)[0][0] for kind, schedule in SCHEDULES.items()}

    assert (round(last["linear"]), round(last["cosine"])) == (157, 20291)
    assert firsts == {"cosine": 995, "linear": 999, "quadratic": 999, "sigmoid": 999}
    assert float(COSINE.snr[995] ** -0.5) < 164 < float(COSINE.snr[996] ** -0.5)


@pytest.mark.parametrize("wrong", [{"error": 0.002}, {"rounds": True}], ids=["0.2 percent", "bfloat16"])
@pytest.mark.parametrize("sampler", ["ddim", "heun", "unipc"])
def test_a_small_error_in_eps_stays_small(sampler: Sampler, wrong: dict[str, float]) -> None:
    """What 0.2 % in the noise do to the picture is 0.002, and not 0.03 or 0.06 as from the last timestep of cosine."""
    changes = []
    for limit in (None, LIMIT):
        pairs = timestep_pairs(COSINE, 100, "trailing", limit)
        exact, found = (walk(mixture_denoise("eps", **how), pairs, sampler) for how in ({}, wrong))  # type: ignore[arg-type]
        changes.append(float((found - exact).abs().mean()))

    assert changes[0] > 0.025
    assert changes[1] < 0.0025


def test_ddpm_too_keeps_a_small_error_small() -> None:
    """The same by the same noise at every step, which the error must not outweigh."""
    pairs = timestep_pairs(COSINE, 100, "trailing", LIMIT)

    exact, found = (walk(mixture_denoise("eps", error=error), pairs, "ddpm") for error in (0.0, 0.002))

    assert float((found - exact).abs().mean()) < 0.0025


def test_an_inversion_in_eps_comes_back() -> None:
    """A picture inverted with an error of 0.2 % and drawn again without is the picture, up to some such errors."""
    pairs = timestep_pairs(COSINE, 100, "trailing", LIMIT)
    x0 = walk(mixture_denoise("x0"), pairs, "ddim")

    start = invert(mixture_denoise("eps", error=0.002), x0, pairs, COSINE)
    again = sample(mixture_denoise("x0"), start, pairs, COSINE, eta=0.0, noise=lambda _: x0)

    assert float((again - x0).abs().mean()) < 0.01
    assert float(start.std()) == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize("spacing", get_args(Spacing))
def test_more_steps_than_the_limit_leaves_are_all_it_leaves(spacing: Spacing) -> None:
    """Each of the 996 is visited once; a schedule wholly beyond the limit is walked in one step from t = 0."""
    beyond = NoiseSchedule.from_alpha_bar(straight_alpha_bar(3))

    assert timestep_pairs(COSINE, 1000, spacing, LIMIT) == [(t, t - 1) for t in range(995, -1, -1)]
    assert timestep_pairs(beyond, 3, spacing, 0.1) == [(0, -1)]


@pytest.mark.parametrize("spacing", get_args(Spacing))
def test_without_a_limit_every_timestep_may_be_visited(spacing: Spacing) -> None:
    """A limit beyond the schedule's end changes nothing."""
    assert timestep_pairs(COSINE, 20, spacing, math.inf) == timestep_pairs(COSINE, 20, spacing)


def exact_end(x_t: Tensor, alpha_bar_t: Tensor) -> Tensor:
    """Return where the probability flow dx̂/dσ̂ = eps_hat leads, by the classical fourth-order method, slowly."""
    log_sigma = float(-(alpha_bar_t / (1 - alpha_bar_t)).log() / 2)
    sigmas = torch.linspace(log_sigma, math.log(1e-4), 501, dtype=torch.float64).exp()

    def slope(x_hat: Tensor, sigma: Tensor) -> Tensor:
        return (x_hat - posterior_mean(x_hat / (1 + sigma**2).sqrt(), 1 / (1 + sigma**2))) / sigma

    x_hat = x_t / alpha_bar_t.sqrt()
    for sigma, sigma_prev in pairwise(sigmas):
        h = sigma_prev - sigma
        first = slope(x_hat, sigma)
        second = slope(x_hat + h / 2 * first, sigma + h / 2)
        third = slope(x_hat + h / 2 * second, sigma + h / 2)
        fourth = slope(x_hat + h * third, sigma_prev)
        x_hat = x_hat + h / 6 * (first + 2 * second + 2 * third + fourth)
    return x_hat


@pytest.fixture(scope="module")
def end() -> Tensor:
    """Return the exact end of the path from ``X_T`` at the last timestep of cosine."""
    return exact_end(X_T, COSINE.alpha_bar[-1])


def _distance(end: Tensor, sampler: Sampler, num_steps: int, spacing: Spacing, limit: float | None = LIMIT) -> float:
    pairs = timestep_pairs(COSINE, num_steps, spacing, limit if spacing == "log_snr" else None)
    return float((walk(mixture_denoise("v"), pairs, sampler) - end).abs().mean())


@pytest.mark.parametrize("sampler", ["dpmpp_2m", "unipc"])
@pytest.mark.parametrize(("num_steps", "share"), [(8, 0.7), (12, 0.7), (20, 0.75), (30, 0.75)])
def test_even_steps_come_nearer_within_the_limit(end: Tensor, sampler: Sampler, num_steps: int, share: float) -> None:
    """The error of few steps even in log-SNR falls by a quarter or more where they begin at the limit."""
    limited, whole = (_distance(end, sampler, num_steps, "log_snr", limit) for limit in (LIMIT, None))

    assert limited < share * whole


@pytest.mark.parametrize(("sampler", "even_from"), [("dpmpp_2m", 28), ("unipc", 14)])
def test_the_usual_spacing_of_few_steps_is_the_nearer_one(end: Tensor, sampler: Sampler, even_from: int) -> None:
    """Trailing is nearer with fewer than 12 steps, by far; beyond, evenly spaced ones overtake it, sooner or later."""
    for num_steps in (2, 4, 8, 11):
        assert usual_spacing(sampler, num_steps) == "trailing"
        assert _distance(end, sampler, num_steps, "trailing") < 0.75 * _distance(end, sampler, num_steps, "log_snr")
    for num_steps in (even_from, 30):
        assert usual_spacing(sampler, num_steps) == "log_snr"
        assert _distance(end, sampler, num_steps, "log_snr") < _distance(end, sampler, num_steps, "trailing")


@pytest.mark.parametrize("name", ["straight", "zero-terminal"])
def test_even_steps_of_a_schedule_that_ends_in_pure_noise_come_near(name: str) -> None:
    """They begin with a share of signal of 0.6 %, as if it were none, and are nearer than from pure noise itself."""
    schedule = COSINE.to_zero_terminal_snr()
    if name == "straight":
        schedule = NoiseSchedule.from_alpha_bar(straight_alpha_bar(1000))
    exact = exact_end(X_T, schedule.alpha_bar[-2])
    limit = SamplerSettings(spacing="log_snr").noise_limit_for("v")

    for num_steps in (12, 20, 30):
        limited, whole = (
            sample(
                make_denoise(
                    lambda x_t, t: posterior_mean(x_t, schedule.alpha_bar[t[0]]), schedule, "x0", x0_limit=5.0
                ),
                X_T,
                timestep_pairs(schedule, num_steps, "log_snr", one),
                schedule,
                eta=0.0,
                noise=lambda _: X_T,
                sampler="unipc",
            )
            for one in (limit, None)
        )
        assert float((limited - exact).abs().mean()) < 0.9 * float((whole - exact).abs().mean())
