"""Pictures from pictures: the probability flow walked upwards, parts that are kept, and ways between two starts."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from latentart.core.diffusion.process import expand_to
from latentart.core.diffusion.schedules import NoiseSchedule
from latentart.core.diffusion.solvers import Denoise

_SMALLEST_DIVISOR = 1e-12


def slerp(start: Tensor, end: Tensor, share: Tensor) -> Tensor:
    """Return what lies ``share`` [B] of the way from ``start`` to ``end``, each [B, …], on the arc between them.

    sin((1-u)θ)/sin θ · start + sin(uθ)/sin θ · end, θ the angle of each pair (Shoemake 1985). Unlike on the straight
    line, what lies between noise and noise is as long as noise. At 0 and 1 it is either end, bit for bit.
    """
    a, b, u = start.double().flatten(1), end.double().flatten(1), share.double()
    theta = (functional.normalize(a, dim=1) * functional.normalize(b, dim=1)).sum(1).clamp(-1, 1).acos()
    is_arc = theta.sin() > 1e-6
    weights = [torch.where(is_arc, (part * theta).sin() / theta.sin(), part) for part in (1 - u, u)]
    return expand_to(weights[0], start) * start + expand_to(weights[1], end) * end


def invert(
    denoise: Denoise, x0: Tensor, pairs: Sequence[tuple[int, int]], schedule: NoiseSchedule, *, passes: int = 4
) -> Tensor:
    """Return the start from which DDIM at η = 0 walks ``pairs`` down to ``x0``, of the shape and dtype of ``x0``.

    DDIM, section 4.3. Differs from the paper: each step up is solved for the x_t whose own step down leads back, by
    ``passes`` fixed-point iterations of one network call each (Pan et al. 2309.04907), and not taken with the
    prediction at its lower end. Of two forms of the step, x_t = (x_prev - gain · x0_hat)/kept and
    x_t = √(ᾱ_t/ᾱ_prev) (x_prev - √(1-ᾱ_prev) eps_hat) + √(1-ᾱ_t) eps_hat, the one is taken that contracts more on
    data of variance 1. One pass is the paper's, but for the timestep.

    Raises:
        ValueError: less than one pass.
    """
    if passes < 1:
        raise ValueError(f"passes: got {passes}, expected at least 1")
    with torch.no_grad():
        for t, t_prev in reversed(pairs):
            x0 = _step_up(denoise, x0, t, schedule.alpha_bar_at(t), schedule.alpha_bar_at(t_prev), passes)
    return x0


def _step_up(
    denoise: Denoise, x_prev: Tensor, t: int, alpha_bar_t: Tensor, alpha_bar_prev: Tensor, passes: int
) -> Tensor:
    a, b = alpha_bar_t.sqrt(), (1 - alpha_bar_t).sqrt()
    a_prev, b_prev = alpha_bar_prev.sqrt(), (1 - alpha_bar_prev).sqrt()
    by_x0 = bool(a * a_prev < b * b_prev)
    x_t = x_prev
    for _ in range(passes):
        x0_hat, eps_hat = denoise(x_t, t)
        if by_x0:
            x_t = (b / b_prev) * (x_prev - a_prev * x0_hat) + a * x0_hat
        else:
            x_t = (a / a_prev) * (x_prev - b_prev * eps_hat) + b * eps_hat
    return x_t


def keep_known(denoise: Denoise, x0: Tensor, mask: Tensor, schedule: NoiseSchedule) -> Denoise:
    """Return ``denoise`` that finds ``x0`` wherever ``mask`` is 0, and is itself where it is 1.

    Inpainting. From x_t = √ᾱ x0 + √(1-ᾱ) eps every solver, knowing x0, goes to √ᾱ_prev x0 + √(1-ᾱ_prev) eps: the known
    region is noised anew and put back at each step, as in RePaint (Lugmayr et al. 2201.09865, eq. 8). Differs from it:
    by the same eps, where no sampler adds its own, and without going back and forth. ``mask`` broadcasts over ``x0``.
    """

    def denoise_kept(x_t: Tensor, t: int) -> tuple[Tensor, Tensor]:
        x0_hat, eps_hat = denoise(x_t, t)
        alpha_bar_t = schedule.alpha_bar_at(t)
        known_eps = (x_t - alpha_bar_t.sqrt() * x0) / (1 - alpha_bar_t).sqrt().clamp(min=_SMALLEST_DIVISOR)
        return torch.where(mask > 0, x0_hat, x0), torch.where(mask > 0, eps_hat, known_eps)

    return denoise_kept


def mask_latents(mask: Tensor, factor: int) -> Tensor:
    """Return the mask of latents ``[B, 1, h, w]`` of a mask of pixels ``[B, 1, H, W]``: 1 where any of theirs is."""
    return functional.max_pool2d(mask, factor)


def feather(mask: Tensor, radius: int) -> Tensor:
    """Return a mask ``[B, 1, H, W]`` that is 1 where it was and falls to 0 within 2 · ``radius`` pixels around."""
    grown = functional.max_pool2d(mask, 2 * radius + 1, stride=1, padding=radius)
    return functional.avg_pool2d(grown, 2 * radius + 1, stride=1, padding=radius, count_include_pad=False)
