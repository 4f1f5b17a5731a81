"""Solvers against exact answers: for Gaussian x0 the probability-flow path is affine in its start."""

from __future__ import annotations

import math
import runpy
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from latentart.core.diffusion.process import add_noise
from latentart.core.diffusion.samplers import make_denoise, sample
from latentart.core.diffusion.schedules import NoiseSchedule, make_betas, straight_alpha_bar, timestep_pairs
from latentart.core.diffusion.solvers import Denoise
from latentart.kinds import Sampler, Target

MEAN, STD = 1.5, 0.5
ORACLE = runpy.run_path(str(Path(__file__).with_name("gaussian_oracle.py")))
draw, refuse_noise = ORACLE["draw"], ORACLE["refuse_noise"]
gaussian_denoise = partial(ORACLE["gaussian_denoise"], mean=MEAN, std=STD)
SOLVERS: tuple[Sampler, ...] = ("euler", "heun", "dpmpp_2m", "unipc")
DETERMINISTIC: tuple[Sampler, ...] = ("ddim", *SOLVERS)
OTHERS: tuple[Target, ...] = ("eps", "v", "flow")
LINEAR, COSINE = (NoiseSchedule.from_betas(make_betas(kind, 1000)) for kind in ("linear", "cosine"))
STRAIGHT, SHIFTED = (NoiseSchedule.from_alpha_bar(straight_alpha_bar(1000, shift)) for shift in (1.0, 3.0))
FROM_PURE_NOISE = {
    "straight": STRAIGHT,
    "shifted": SHIFTED,
    "zero-terminal linear": LINEAR.to_zero_terminal_snr(),
    "zero-terminal cosine": COSINE.to_zero_terminal_snr(),
}


def even_schedule(num_steps: int = 20_001, reach: float = 3.0) -> NoiseSchedule:
    """Return a schedule, half of whose log-SNR falls evenly from ``reach`` to -``reach``."""
    alpha_bar = torch.linspace(2 * reach, -2 * reach, num_steps, dtype=torch.float64).sigmoid()
    before = torch.cat([torch.ones(1, dtype=torch.float64), alpha_bar[:-1]])
    return NoiseSchedule.from_betas(1 - alpha_bar / before)


def exact_path(schedule: NoiseSchedule, x_t: Tensor, t: int, t_prev: int) -> Tensor:
    """Return where the probability flow of N(MEAN, STD²) leads: as many deviations from the mean as at ``t``."""
    now, then = schedule.alpha_bar_at(t), schedule.alpha_bar_at(t_prev)
    deviation = ((then * STD**2 + 1 - then) / (now * STD**2 + 1 - now)).sqrt()
    return then.sqrt() * MEAN + deviation * (x_t - now.sqrt() * MEAN)


def curved(x_t: Tensor, t: Tensor | int) -> Tensor:
    """Predict what no data would: a wave of ``x_t`` that grows with ``t``, int64 [B] or one number."""
    return x_t.sin() * (1 + torch.as_tensor(t).reshape(-1, 1, 1, 1) / 1000)


def walk(
    sampler: Sampler, denoise: Denoise, schedule: NoiseSchedule, pairs: list[tuple[int, int]], x_T: Tensor
) -> list[Tensor]:
    """Return the state after each step."""
    states: list[Tensor] = []
    sample(
        denoise,
        x_T,
        pairs,
        schedule,
        eta=0.0,
        noise=refuse_noise,
        sampler=sampler,
        on_step=lambda _i, x_prev, _x0_hat: states.append(x_prev),
    )
    return states


def run(sampler: Sampler, denoise: Denoise, schedule: NoiseSchedule, num_steps: int, x_T: Tensor) -> Tensor:
    """Return x0 after so many steps with the usual spacing."""
    return walk(sampler, denoise, schedule, timestep_pairs(schedule, num_steps), x_T)[-1]


@pytest.mark.parametrize(
    ("sampler", "order", "error"),
    [("ddim", 1, 0.05), ("euler", 1, 0.05), ("heun", 2, 0.005), ("dpmpp_2m", 2, 0.003), ("unipc", 3, 0.0005)],
)
def test_error_falls_by_the_order_of_the_solver(sampler: Sampler, order: int, error: float) -> None:
    """From 10 to 80 steps, even in log-SNR and short of the clean end, the error falls as h^order or faster.

    UniPC corrects a predictor of second order, and has the third.
    """
    schedule, x_T = even_schedule(), draw(0, 16, 1, 1, 1)
    errors = []
    for num_steps in (10, 20, 40, 80):
        pairs = timestep_pairs(schedule, num_steps + 1, "log_snr")[:-1]

        x_0 = walk(sampler, gaussian_denoise(schedule), schedule, pairs, x_T)[-1]

        errors.append(float((x_0 - exact_path(schedule, x_T, pairs[0][0], 0)).abs().max()))
    assert math.log2(errors[0] / errors[-1]) / 3 >= order - (0.1 if order == 1 else 0.2)
    assert math.log2(errors[-2] / errors[-1]) == pytest.approx(order, abs=0.05)
    assert errors[2] < error


@pytest.mark.parametrize("schedule", [LINEAR, COSINE], ids=["linear", "cosine"])
@pytest.mark.parametrize("sampler", DETERMINISTIC)
def test_a_whole_walk_comes_to_the_exact_end(sampler: Sampler, schedule: NoiseSchedule) -> None:
    """With the default spacing and the clean end, 50 steps of a usual schedule are near, 1000 nearer."""
    x_T = draw(0, 16, 1, 1, 1)
    exact = exact_path(schedule, x_T, 999, -1)

    denoise = gaussian_denoise(schedule)
    at_50, at_1000 = (float((run(sampler, denoise, schedule, N, x_T) - exact).abs().max()) for N in (50, 1000))

    assert at_50 < (0.1 if sampler in ("ddim", "euler") else 0.01)
    assert at_1000 < min(0.005, at_50 / 5)


@pytest.mark.parametrize("name", FROM_PURE_NOISE)
@pytest.mark.parametrize("sampler", DETERMINISTIC)
def test_a_whole_walk_from_pure_noise_comes_to_the_exact_end(sampler: Sampler, name: str) -> None:
    """From ᾱ = 0, where the first step is endless in λ, 50 steps are near, 1000 nearer; one step is the mean."""
    schedule, x_T = FROM_PURE_NOISE[name], draw(0, 16, 1, 1, 1)
    exact = exact_path(schedule, x_T, 999, -1)

    denoise = gaussian_denoise(schedule)
    at_50, at_1000 = (float((run(sampler, denoise, schedule, N, x_T) - exact).abs().max()) for N in (50, 1000))

    assert schedule.alpha_bar[-1] == 0
    assert at_50 < (0.1 if sampler in ("ddim", "euler") else 0.015)
    assert at_1000 < min(0.005, at_50 / 5)
    torch.testing.assert_close(run(sampler, denoise, schedule, 1, x_T), torch.full_like(x_T, MEAN), atol=1e-12, rtol=0)


@pytest.mark.parametrize(("target", "name"), [("v", "zero-terminal linear"), ("flow", "shifted")])
@pytest.mark.parametrize("sampler", DETERMINISTIC)
def test_pure_noise_may_be_told_as_v_or_flow(sampler: Sampler, target: Target, name: str) -> None:
    """Where eps says nothing of x0 they still do: the walk is that of x0."""
    schedule, x_T = FROM_PURE_NOISE[name], draw(0, 16, 1, 1, 1)

    for num_steps in (1, 50):
        by_x0, told = (
            run(sampler, gaussian_denoise(schedule, how), schedule, num_steps, x_T) for how in ("x0", target)
        )
        torch.testing.assert_close(told, by_x0, atol=1e-9, rtol=0)


@pytest.mark.parametrize(("schedule", "shift"), [(STRAIGHT, 1), (SHIFTED, 3)], ids=["straight", "shifted"])
@pytest.mark.parametrize("num_steps", [1, 7, 50])
def test_euler_on_the_straight_path_is_the_textbooks(schedule: NoiseSchedule, shift: float, num_steps: int) -> None:
    """A walk in rectified flow's own variable, by hand: x' = x + (τ' - τ) u with x = x_t √((1-τ)² + τ²)."""
    x_T = draw(0, 2, 1, 4, 4)
    x = x_T
    for t, t_prev in timestep_pairs(schedule, num_steps):
        tau, tau_prev = (shift * p / (1 + (shift - 1) * p) for p in ((t + 1) / 1000, (t_prev + 1) / 1000))
        x = x + (tau_prev - tau) * curved(x / math.hypot(1 - tau, tau), t)

    x_0 = run("euler", make_denoise(curved, schedule, "flow"), schedule, num_steps, x_T)

    torch.testing.assert_close(x_0, x, atol=1e-11, rtol=0)


@pytest.mark.parametrize("schedule", [LINEAR, COSINE], ids=["linear", "cosine"])
@pytest.mark.parametrize("num_steps", [1, 10, 333])
def test_euler_is_ddim_without_noise(schedule: NoiseSchedule, num_steps: int) -> None:
    """Euler's step in x̂ = x/√ᾱ and DDIM at eta 0 are one, for a network that is no one's denoiser."""
    denoise = make_denoise(curved, schedule, "v")
    x_T = draw(0, 2, 1, 4, 4)

    torch.testing.assert_close(
        run("euler", denoise, schedule, num_steps, x_T), run("ddim", denoise, schedule, num_steps, x_T)
    )


@pytest.mark.parametrize("sampler", ["euler", "heun"])
def test_euler_and_heun_are_their_formulas_in_sigma(sampler: Sampler) -> None:
    """A walk in the papers' own variables, x̂ and σ̂, by hand."""
    x_T = draw(0, 2, 1, 4, 4)
    scale = LINEAR.alpha_bar_at(999).sqrt()
    x_hat = x_T / scale
    for t, t_prev in timestep_pairs(LINEAR, 10):
        scale, scale_prev = LINEAR.alpha_bar_at(t).sqrt(), LINEAR.alpha_bar_at(t_prev).sqrt()
        sigma, sigma_prev = ((1 - a**2).clamp(min=0).sqrt() / a for a in (scale, scale_prev))
        slope = curved(scale * x_hat, t)
        if sampler == "heun" and t_prev >= 0:
            slope = (slope + curved(scale_prev * (x_hat + (sigma_prev - sigma) * slope), t_prev)) / 2
        x_hat = x_hat + (sigma_prev - sigma) * slope

    x_0 = run(sampler, make_denoise(curved, LINEAR, "eps"), LINEAR, 10, x_T)

    torch.testing.assert_close(x_0, x_hat, atol=1e-9, rtol=1e-9)


@pytest.mark.parametrize("sampler", DETERMINISTIC)
@pytest.mark.parametrize("last_beta", [0.02, 1.0], ids=["usual", "no signal"])
def test_a_constant_x0_hat_is_reached_along_the_straight_path(sampler: Sampler, last_beta: float) -> None:
    """Every state is √ᾱ x0 + √(1-ᾱ) eps with the eps of the start, and the end is x0 to the bit; from ᾱ = 0 too."""
    betas = make_betas("linear", 1000)
    betas[-1] = last_beta
    schedule = NoiseSchedule.from_betas(betas)
    pairs = timestep_pairs(schedule, 7)
    x0, eps = draw(0, 2, 1, 3, 3), draw(1, 2, 1, 3, 3)
    x_T = add_noise(x0, eps, schedule.alpha_bar_at(999))

    states = walk(sampler, make_denoise(lambda _x_t, _t: x0, schedule, "x0"), schedule, pairs, x_T)

    for state, (_, t_prev) in zip(states, pairs, strict=True):
        torch.testing.assert_close(state, add_noise(x0, eps, schedule.alpha_bar_at(t_prev)), atol=1e-12, rtol=0)
    assert torch.equal(states[-1], x0)


@pytest.mark.parametrize("sampler", SOLVERS)
def test_it_does_not_matter_what_the_network_predicts(sampler: Sampler) -> None:
    """One denoiser told as eps, x0, v or flow gives one picture."""
    x_T = draw(0, 4, 1, 2, 2)

    by_x0, *others = (run(sampler, gaussian_denoise(COSINE, how), COSINE, 20, x_T) for how in ("x0", *OTHERS))

    for other in others:
        torch.testing.assert_close(other, by_x0, atol=1e-9, rtol=0)


@pytest.mark.parametrize("sampler", SOLVERS)
def test_a_call_knows_nothing_of_the_one_before(sampler: Sampler) -> None:
    """What a multistep solver remembers ends with its call; its start is left as it was."""
    x_T = draw(0, 2, 1, 2, 2)
    start = x_T.clone()

    first = run(sampler, gaussian_denoise(COSINE), COSINE, 10, x_T)
    run(sampler, gaussian_denoise(LINEAR), LINEAR, 4, draw(1, 2, 1, 2, 2))

    assert torch.equal(run(sampler, gaussian_denoise(COSINE), COSINE, 10, x_T), first)
    assert torch.equal(x_T, start)


@pytest.mark.parametrize("sampler", SOLVERS)
def test_float32_keeps_most_of_its_digits(sampler: Sampler) -> None:
    """From √ᾱ = 5e-5 on, float32 ends where float64 does: nothing is divided by √ᾱ."""
    x_T = draw(0, 4, 1, 2, 2)
    denoise = make_denoise(curved, COSINE, "v")

    narrow = run(sampler, denoise, COSINE, 20, x_T.float())

    assert narrow.dtype == torch.float32
    torch.testing.assert_close(narrow.double(), run(sampler, denoise, COSINE, 20, x_T), atol=3e-5, rtol=0)


@pytest.mark.parametrize(
    ("sampler", "schedule", "calls"),
    [
        ("euler", LINEAR, 20),
        ("dpmpp_2m", LINEAR, 20),
        ("unipc", LINEAR, 20),
        ("heun", LINEAR, 39),
        ("heun", COSINE, 38),
    ],
)
def test_network_calls_of_20_steps(sampler: Sampler, schedule: NoiseSchedule, calls: int) -> None:
    """Heun's method calls twice a step, but once for the last and once over the jump that begins a cosine schedule."""
    seen: list[int] = []
    inner = gaussian_denoise(schedule)

    def denoise(x_t: Tensor, t: int) -> tuple[Tensor, Tensor]:
        seen.append(t)
        return inner(x_t, t)

    run(sampler, denoise, schedule, 20, draw(0, 1, 1, 1, 1))

    assert len(seen) == calls
    assert min(seen) >= 0


def test_heun_survives_the_jump_of_a_cosine_schedule() -> None:
    """A mistake of 0.01 in x0_hat does not grow on the way: the long first step is not corrected."""
    x_T = draw(0, 16, 1, 2, 2)
    exact = gaussian_denoise(COSINE)

    def denoise(x_t: Tensor, t: int) -> tuple[Tensor, Tensor]:
        x0_hat = exact(x_t, t)[0] + 0.01 * math.cos(t)
        return x0_hat, torch.zeros_like(x_t)

    wrong, right = (run("heun", one, COSINE, 20, x_T) for one in (denoise, exact))

    assert (wrong - right).abs().max() < 0.03


@pytest.mark.parametrize(
    ("sampler", "states"),
    [
        ("dpmpp_2m", [-2.52164, -3.76835, -11.06739, -21.50647, -26.09012]),
        ("unipc", [-2.52164, -2.64073, -3.90394, -9.55452, -11.88095]),
    ],
)
def test_multistep_solvers_have_their_golden_values(sampler: Sampler, states: list[float]) -> None:
    """Five steps from 1, as diffusers 0.42 takes them in single precision."""
    x_T = torch.ones(1, 1, 1, 1, dtype=torch.float64)

    ours = walk(sampler, make_denoise(curved, LINEAR, "eps"), LINEAR, timestep_pairs(LINEAR, 5), x_T)

    assert [float(x_prev) for x_prev in ours] == pytest.approx(states, rel=1e-4)


# diffusers' names of the same solvers, at the settings at which they are the same
TWINS: dict[Sampler, tuple[str, dict[str, Any]]] = {
    "ddim": ("DDIMScheduler", {"clip_sample": False}),
    "euler": ("EulerDiscreteScheduler", {}),
    "heun": ("HeunDiscreteScheduler", {}),
    "dpmpp_2m": ("DPMSolverMultistepScheduler", {"final_sigmas_type": "zero"}),
    "unipc": ("UniPCMultistepScheduler", {"final_sigmas_type": "zero"}),
}


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # between diffusers and numpy
@pytest.mark.parametrize("num_steps", [5, 20])
@pytest.mark.parametrize("sampler", TWINS)
def test_walks_as_diffusers_does(sampler: Sampler, num_steps: int) -> None:
    """Every state of a walk is that of diffusers, as far as its single precision goes."""
    diffusers = pytest.importorskip("diffusers")
    name, settings = TWINS[sampler]
    twin = getattr(diffusers, name)(trained_betas=LINEAR.betas.numpy(), timestep_spacing="trailing", **settings)
    twin.set_timesteps(num_steps)
    pairs, x_T = timestep_pairs(LINEAR, num_steps), draw(0, 2, 1, 4, 4)
    is_in_sigma = sampler in ("euler", "heun")  # their states are x/√ᾱ
    theirs, state = [], x_T / LINEAR.alpha_bar_at(999).sqrt() if is_in_sigma else x_T
    for i, t in enumerate(twin.timesteps):
        state = twin.step(curved(twin.scale_model_input(state, t), t), t, state).prev_sample
        if sampler != "heun" or i % 2 or i == 2 * num_steps - 2:
            theirs.append(state)

    ours = walk(sampler, make_denoise(curved, LINEAR, "eps"), LINEAR, pairs, x_T)

    for x_prev, twins, (_, t_prev) in zip(ours, theirs, pairs, strict=True):
        scale = LINEAR.alpha_bar_at(t_prev).sqrt() if is_in_sigma else 1.0
        torch.testing.assert_close(x_prev, scale * twins, atol=1e-4, rtol=1e-4)


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # between diffusers and numpy
@pytest.mark.parametrize(("schedule", "shift"), [(STRAIGHT, 1.0), (SHIFTED, 3.0)], ids=["straight", "shifted"])
@pytest.mark.parametrize("num_steps", [5, 20])
def test_flows_as_diffusers_does(schedule: NoiseSchedule, shift: float, num_steps: int) -> None:
    """Every state of a walk along the straight path is that of diffusers' flow matching, told at unit variance."""
    diffusers = pytest.importorskip("diffusers")
    twin = diffusers.FlowMatchEulerDiscreteScheduler(shift=shift)
    pairs, x_T = timestep_pairs(schedule, num_steps), draw(0, 2, 1, 4, 4)
    twin.set_timesteps(sigmas=[(t + 1) / 1000 for t, _ in pairs])
    state, theirs = x_T, []
    for i, (t, _) in enumerate(pairs):
        u = curved(state / math.hypot(1 - twin.sigmas[i], twin.sigmas[i]), t)
        state = twin.step(u, twin.timesteps[i], state).prev_sample
        theirs.append(state / math.hypot(1 - twin.sigmas[i + 1], twin.sigmas[i + 1]))

    ours = walk("euler", make_denoise(curved, schedule, "flow"), schedule, pairs, x_T)

    for x_prev, twins in zip(ours, theirs, strict=True):
        torch.testing.assert_close(x_prev, twins.double(), atol=1e-5, rtol=1e-5)
