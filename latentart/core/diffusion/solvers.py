"""Solvers of the probability-flow equation: from noise to x0 along one path, without noise of their own.

In x̂ = x/√ᾱ and σ̂ = √((1-ᾱ)/ᾱ) the path is dx̂/dσ̂ = eps_hat (DDIM, eq. 14); λ = -log σ̂ is half of the log-SNR.
Each solver here is Euler's step plus a multiple of how x0_hat changes along the path. So x0_hat that does not change
is exact in all of them, nothing is divided by √ᾱ, and at the clean end, where λ = ∞, each returns x0_hat itself.

| solver         | order        | network calls of N steps |
|----------------|--------------|--------------------------|
| ``euler_step`` | 1            | N                        |
| ``heun``       | 2            | 2N - 1                   |
| ``dpmpp_2m``   | 2            | N                        |
| ``unipc``      | 2, corrected | N                        |
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property

from torch import Tensor

Denoise = Callable[[Tensor, int], tuple[Tensor, Tensor]]

_LONGEST_HEUN_STEP = math.log(10)  # in λ; the 18 steps of Karras et al. stay below 1.4


@dataclass(frozen=True, kw_only=True)
class Step:
    """Step ``i`` of a walk, down to ``t_prev``, and the parts of ``x_t`` that the network saw; ᾱ float64 scalars."""

    i: int
    t_prev: int
    x_t: Tensor
    x0_hat: Tensor
    eps_hat: Tensor
    alpha_bar_t: Tensor
    alpha_bar_prev: Tensor

    @cached_property
    def h(self) -> Tensor:
        """Its length λ_prev - λ_t, ∞ to the clean end and from pure noise."""
        odds = self.alpha_bar_prev * (1 - self.alpha_bar_t) / (self.alpha_bar_t * (1 - self.alpha_bar_prev))
        return odds.log() / 2

    @cached_property
    def kept(self) -> Tensor:
        """The share of ``x_t`` that Euler's step keeps, √((1-ᾱ_prev)/(1-ᾱ_t))."""
        return ((1 - self.alpha_bar_prev) / (1 - self.alpha_bar_t)).sqrt()

    @cached_property
    def gain(self) -> Tensor:
        """The share of ``x0_hat`` that Euler's step takes in, √ᾱ_prev (1 - e^-h)."""
        return self.alpha_bar_prev.sqrt() - self.alpha_bar_t.sqrt() * self.kept


@dataclass(frozen=True)
class Walk:
    """What the steps of one call of ``sample`` share; ``past`` is what a multistep solver keeps, the newest last."""

    denoise: Denoise
    noise: Callable[[int], Tensor]
    eta: float
    past: deque[Step] = field(default_factory=lambda: deque(maxlen=2))


def euler_step(step: Step) -> Tensor:
    """Return x_prev of x̂_prev = x̂ + (σ̂_prev - σ̂) eps_hat, told in x0_hat; the same as DDIM without noise."""
    return step.kept * step.x_t + step.gain * step.x0_hat


def heun(step: Step, walk: Walk) -> Tensor:
    """Return x_prev of x̂_prev = x̂ + (σ̂_prev - σ̂) (eps_hat + eps_hat') / 2, eps_hat' at the end of Euler's step.

    Karras et al. 2206.00364, algorithm 1 without churn. Two network calls; one where Euler's step is all, at the
    clean end and over more than a factor of 10 in σ̂. Differs from the paper in the latter: the correction is
    √ᾱ_prev (e^h - 1)/2 times the change of x0_hat, which the first of 50 steps of a cosine schedule would magnify
    tenfold.
    """
    x_prev = euler_step(step)
    if step.h > _LONGEST_HEUN_STEP:
        return x_prev
    x0_next, _ = walk.denoise(x_prev, step.t_prev)
    return x_prev + step.alpha_bar_prev.sqrt() * step.h.expm1() / 2 * (x0_next - step.x0_hat)


def dpmpp_2m(step: Step, walk: Walk) -> Tensor:
    """Return x_prev by DPM-Solver++ 2M (Lu et al. 2211.01095, algorithm 2); the first and the last step are Euler's."""
    x_prev = _extrapolate(step, walk)
    walk.past.append(step)
    return x_prev


def unipc(step: Step, walk: Walk) -> Tensor:
    """Return x_prev by UniPC of order 2 with B_2(h) = e^h - 1, predicting data (Zhao et al. 2302.04867).

    The predictor is that of ``dpmpp_2m``; x_t is first corrected by the x0_hat the network found at it, at no
    further call.
    """
    if walk.past:
        step = replace(step, x_t=_correct(step.x0_hat, *walk.past))
    x_prev = _extrapolate(step, walk)
    walk.past.append(step)
    return x_prev


def _extrapolate(step: Step, walk: Walk) -> Tensor:
    """Return x_prev with x0_hat followed along its last change for half of the step."""
    x_prev = euler_step(step)
    if not walk.past or step.t_prev < 0:
        return x_prev
    last = walk.past[-1]
    return x_prev + step.gain * (step.h / last.h) / 2 * (step.x0_hat - last.x0_hat)


def _correct(x0_hat: Tensor, *past: Step) -> Tensor:
    """Return where the last of the ``past`` steps would have led, had it known ``x0_hat`` at its end.

    With two steps the x0_hat of all three timesteps make a parabola in λ, of which the path is exact: b_1 and b_2 are
    the means of u and u² over the step, u = 0 … 1, in the weight e^(h u).
    """
    step = past[-1]
    change = x0_hat - step.x0_hat
    if len(past) == 1:
        return euler_step(step) + step.gain / 2 * change
    ratio = step.h / past[-2].h
    before = ratio * (step.x0_hat - past[-2].x0_hat)  # what the change would be, had it gone on
    inverse = -1 / (-step.h).expm1()
    b_1 = inverse - 1 / step.h
    b_2 = inverse - 2 * b_1 / step.h
    weight = (b_1 - b_2) * ratio / (1 + ratio)
    return euler_step(step) + step.gain * (weight * before + (b_1 - weight) * change)
