"""Samplers: from noise to x0 along explicit pairs of timesteps.

A sampler sees the network through one closure, ``denoise(x_t, t) -> (x0_hat, eps_hat)``. What the network
predicts, its style, guidance and autocast are the closure's affair, made once by ``make_denoise``.

| sampler    | eta | is                                                         |
|------------|-----|------------------------------------------------------------|
| ``ddim``   | 0   | DDIM, deterministic: never asks for noise                  |
| ``ddim``   | 0…1 | between the two: σ_t = η · the ancestral deviation         |
| ``ddim``   | 1   | DDPM                                                       |
| ``ddpm``   | —   | DDPM by its own formula; ``eta`` does not matter           |
| the others | —   | deterministic, see ``solvers``; ``eta`` does not matter    |

The state keeps the dtype of x_T (float32 or wider). Coefficients are float64 scalars. Every operation is
elementwise, so image i does not depend on the batch it is made in.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from latentart.core.diffusion.process import x0_and_eps_from
from latentart.core.diffusion.schedules import NoiseSchedule
from latentart.core.diffusion.solvers import Denoise, Step, Walk, dpmpp_2m, euler_step, heun, unipc
from latentart.kinds import Sampler, Spacing, Target

_FEWEST_EVEN_STEPS = 12  # with less, trailing comes nearer; with 14 and more UniPC does evenly


def usual_spacing(sampler: Sampler, num_steps: int) -> Spacing:
    """Return how to space the steps of a sampler if nobody says.

    Even in log-SNR where it takes λ for its time, but for fewer than 12 steps: too many of them see nearly pure noise.
    """
    is_even = sampler in ("dpmpp_2m", "unipc") and num_steps >= _FEWEST_EVEN_STEPS
    return "log_snr" if is_even else "trailing"


def is_noise_limited(target: Target, spacing: Spacing) -> bool:
    """Tell whether a walk keeps to timesteps within a limit of noise.

    An error of the network is √((1-ᾱ)/ᾱ) times as large in the x0_hat of eps, without bound towards pure noise; it is
    as large in that of x0, and never larger in those of v and of the flow. Even in log-SNR, where pure noise is
    endlessly far, most of few steps would see nothing but noise, whatever the target.
    """
    return target == "eps" or spacing == "log_snr"


def make_denoise(
    predict: Callable[[Tensor, Tensor], Tensor],
    schedule: NoiseSchedule,
    target: Target,
    x0_limit: float | None = None,
) -> Denoise:
    """Return the closure a sampler needs around ``predict(x_t, t) -> prediction``, t int64 [B] on the CPU.

    There it can be looked at without waiting for a device; ``predict`` moves it where it needs it.
    """

    def denoise(x_t: Tensor, t: int) -> tuple[Tensor, Tensor]:
        prediction = predict(x_t, torch.full((len(x_t),), t))
        return x0_and_eps_from(target, prediction, x_t, schedule.alpha_bar_at(t), x0_limit)

    return denoise


def ddim_sigma(alpha_bar_t: Tensor, alpha_bar_prev: Tensor, eta: float) -> Tensor:
    """Return σ_t = η √((1-ᾱ_prev)/(1-ᾱ_t)) √(1 - ᾱ_t/ᾱ_prev), 0 at the clean end (DDIM, eq. 16)."""
    beta = (alpha_bar_prev - alpha_bar_t) / alpha_bar_prev
    return eta * ((1 - alpha_bar_prev) / (1 - alpha_bar_t) * beta).sqrt()


def ddim_step(
    x0_hat: Tensor,
    eps_hat: Tensor,
    alpha_bar_t: Tensor,
    alpha_bar_prev: Tensor,
    eta: float = 0.0,
    noise: Tensor | None = None,
) -> Tensor:
    """Return x_prev = √ᾱ_prev x0_hat + √(1 - ᾱ_prev - σ²) eps_hat + σ noise (DDIM, eq. 12); no noise is 0."""
    # 1 - ᾱ_prev - σ² with σ² put in and sorted by η², for σ² can come so near that their difference is all rounding
    kept = alpha_bar_t * (1 - alpha_bar_prev) / (alpha_bar_prev * (1 - alpha_bar_t))
    direction = ((1 - alpha_bar_prev) * (1 - eta**2 + eta**2 * kept)).sqrt()
    x_prev = alpha_bar_prev.sqrt() * x0_hat + direction * eps_hat
    return x_prev if noise is None else x_prev + ddim_sigma(alpha_bar_t, alpha_bar_prev, eta) * noise


def ddpm_step(
    x_t: Tensor, x0_hat: Tensor, alpha_bar_t: Tensor, alpha_bar_prev: Tensor, noise: Tensor | None = None
) -> Tensor:
    """Return x_prev = μ̃ + √β̃ noise, a draw from the posterior given x_t and x0_hat; no noise is 0.

    μ̃ = √ᾱ_prev β/(1-ᾱ_t) x0_hat + √α (1-ᾱ_prev)/(1-ᾱ_t) x_t and β̃ = (1-ᾱ_prev)/(1-ᾱ_t) β, with
    α = 1-β = ᾱ_t/ᾱ_prev (DDPM, eq. 6 and 7).
    """
    alpha = alpha_bar_t / alpha_bar_prev
    beta = (alpha_bar_prev - alpha_bar_t) / alpha_bar_prev  # keeps the digits that 1 - alpha loses
    kept = (1 - alpha_bar_prev) / (1 - alpha_bar_t)
    mean = alpha_bar_prev.sqrt() * beta / (1 - alpha_bar_t) * x0_hat + alpha.sqrt() * kept * x_t
    return mean if noise is None else mean + (kept * beta).sqrt() * noise


def _ddim(step: Step, walk: Walk) -> Tensor:
    noise = walk.noise(step.i) if walk.eta > 0 and step.t_prev >= 0 else None
    return ddim_step(step.x0_hat, step.eps_hat, step.alpha_bar_t, step.alpha_bar_prev, walk.eta, noise)


def _ddpm(step: Step, walk: Walk) -> Tensor:
    noise = walk.noise(step.i) if step.t_prev >= 0 else None
    return ddpm_step(step.x_t, step.x0_hat, step.alpha_bar_t, step.alpha_bar_prev, noise)


ADVANCE: dict[Sampler, Callable[[Step, Walk], Tensor]] = {
    "ddim": _ddim,
    "ddpm": _ddpm,
    "euler": lambda step, _: euler_step(step),
    "heun": heun,
    "dpmpp_2m": dpmpp_2m,
    "unipc": unipc,
}


@torch.no_grad()
def sample(
    denoise: Denoise,
    x_T: Tensor,
    pairs: Sequence[tuple[int, int]],
    schedule: NoiseSchedule,
    *,
    eta: float,
    noise: Callable[[int], Tensor],
    sampler: Sampler = "ddim",
    on_step: Callable[[int, Tensor, Tensor], None] | None = None,
) -> Tensor:
    """Return x0 by walking ``pairs`` (t, t_prev) from ``x_T``.

    ``noise(i)`` gives the noise of step i, of the shape of ``x_T``; it is asked only where noise is added, so
    never at the clean end t_prev = -1. ``on_step(i, x_prev, x0_hat)`` sees each step's result.

    Raises:
        ValueError: an unknown sampler, or ``eta`` outside 0 … 1.
    """
    if sampler not in ADVANCE:
        raise ValueError(f"sampler: got {sampler!r}, expected {', '.join(ADVANCE)}")
    if not 0 <= eta <= 1:
        raise ValueError(f"eta: got {eta}, expected 0 to 1")
    walk = Walk(denoise, noise, eta)
    x_t = x_T
    for i, (t, t_prev) in enumerate(pairs):
        x0_hat, eps_hat = denoise(x_t, t)
        step = Step(
            i=i,
            t_prev=t_prev,
            x_t=x_t,
            x0_hat=x0_hat,
            eps_hat=eps_hat,
            alpha_bar_t=schedule.alpha_bar_at(t),
            alpha_bar_prev=schedule.alpha_bar_at(t_prev),
        )
        x_t = ADVANCE[sampler](step, walk)
        if on_step is not None:
            on_step(i, x_t, x0_hat)
    return x_t
