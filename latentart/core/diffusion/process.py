"""The forward process and its inverses, side by side, and the loss that compares them.

Everywhere x_t = √ᾱ x0 + √(1-ᾱ) eps. ``alpha_bar_t`` is a float64 scalar tensor or [B]; coefficients are
computed in its precision and cast to the precision of the latents, which are float32 or wider.
"""

from __future__ import annotations

from typing import get_args

import torch
from torch import Tensor

from latentart.kinds import Target, Timesteps, Weighting

_SMALLEST_DIVISOR = 1e-12  # keeps the very ends finite: no x0 can be told from eps alone, nor eps from x0


def expand_to(x: Tensor, like: Tensor) -> Tensor:
    """Return ``x``, a scalar or [B], in the dtype of ``like`` and ready to broadcast over it, as [B,1,1,1].

    A scalar stays where it is (a CPU scalar combines with any device); [B] moves to the device of ``like``.
    """
    if x.ndim == 0:
        return x.to(like.dtype)
    return x.to(like).reshape(-1, *[1] * (like.ndim - 1))


def _signal_and_noise(alpha_bar_t: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
    """Return √ᾱ and √(1-ᾱ)."""
    return expand_to(alpha_bar_t.sqrt(), like), expand_to((1 - alpha_bar_t).sqrt(), like)


def add_noise(x0: Tensor, eps: Tensor, alpha_bar_t: Tensor) -> Tensor:
    """Return x_t = √ᾱ x0 + √(1-ᾱ) eps (DDPM, eq. 4)."""
    a, b = _signal_and_noise(alpha_bar_t, x0)
    return a * x0 + b * eps


def target_from(target: Target, x0: Tensor, eps: Tensor, alpha_bar_t: Tensor) -> Tensor:
    """Return what the network should predict: eps, x0, v = √ᾱ eps - √(1-ᾱ) x0, or the flow u = eps - x0.

    v is from Salimans & Ho 2202.00512, section 4; u is the velocity along the straight path from x0 to eps
    (Liu et al. 2209.03003, eq. 1; Lipman et al. 2210.02747, eq. 23, both with time the other way round).

    Raises:
        ValueError: an unknown target.
    """
    if target == "eps":
        return eps
    if target == "x0":
        return x0
    if target == "v":
        a, b = _signal_and_noise(alpha_bar_t, x0)
        return a * eps - b * x0
    if target == "flow":
        return eps - x0
    raise _unknown_target(target)


def _unknown_target(target: object) -> ValueError:
    return ValueError(f"target: got {target!r}, expected {', '.join(get_args(Target))}")


def x0_and_eps_from(
    target: Target, prediction: Tensor, x_t: Tensor, alpha_bar_t: Tensor, x0_limit: float | None = None
) -> tuple[Tensor, Tensor]:
    """Return (x0_hat, eps_hat), the two parts of ``x_t`` that ``prediction`` stands for, in the dtype of ``x_t``.

    The flow u gives x0_hat = (x_t - √(1-ᾱ) u)/(√ᾱ + √(1-ᾱ)) and eps_hat = (x_t + √ᾱ u)/(√ᾱ + √(1-ᾱ)), sound at
    every ᾱ. With ``x0_limit`` x0_hat is clamped to ±limit, and eps_hat is what is then left of ``x_t``.

    Raises:
        ValueError: an unknown target.
    """
    a, b = _signal_and_noise(alpha_bar_t, x_t)
    prediction = prediction.to(x_t.dtype)
    if target == "eps":
        x0_hat, eps_hat = (x_t - b * prediction) / a.clamp(min=_SMALLEST_DIVISOR), prediction
    elif target == "x0":
        x0_hat, eps_hat = prediction, (x_t - a * prediction) / b.clamp(min=_SMALLEST_DIVISOR)
    elif target == "v":
        x0_hat, eps_hat = a * x_t - b * prediction, b * x_t + a * prediction
    elif target == "flow":
        x0_hat, eps_hat = (x_t - b * prediction) / (a + b), (x_t + a * prediction) / (a + b)
    else:
        raise _unknown_target(target)
    if x0_limit is not None:
        x0_hat = x0_hat.clamp(-x0_limit, x0_limit)
        eps_hat = (x_t - a * x0_hat) / b.clamp(min=_SMALLEST_DIVISOR)
    return x0_hat, eps_hat


def loss_weight(weighting: Weighting, target: Target, snr: Tensor, gamma: float = 5.0, floor: float = 0.0) -> Tensor:
    """Return the weight, of the shape of ``snr``, of a squared error taken in the target's own space.

    ``min_snr`` weighs the error of x0 by w = min(snr, γ) (Hang et al. 2303.09556), ``soft_min_snr`` by
    w = snr γ/(snr + γ) (Crowson et al. 2401.11605), whatever the target is. The same mistake is snr times as large,
    squared, in eps, snr + 1 times in v and (√snr + 1)² times in the flow, so there the weight is w divided by that.
    ``uniform`` is 1 in the target's space, and so is ``learned``, whose weights are those of ``LearnedUncertainty``.

    Differs from the papers where ``floor`` is not 0: w is no less, so that x0, v and flow are trained in nearly pure
    noise too, where sampling begins and w falls to 0. In eps the weight there is 1 as it is.

    Raises:
        ValueError: an unknown weighting or target.
    """
    if target not in get_args(Target):
        raise _unknown_target(target)
    if weighting in ("uniform", "learned"):
        return torch.ones_like(snr)
    if weighting == "min_snr":
        weight, weight_of_eps = snr.clamp(max=gamma), (gamma / snr).clamp(max=1)
    elif weighting == "soft_min_snr":
        weight, weight_of_eps = gamma / (1 + gamma / snr), gamma / (snr + gamma)
    else:
        raise ValueError(f"weighting: got {weighting!r}, expected {', '.join(get_args(Weighting))}")
    if target == "eps":
        return weight_of_eps  # the same as weight / snr, and sound at snr = 0
    weight = weight.clamp(min=floor)
    if target == "v":
        return weight / (snr + 1)
    return weight / (snr.sqrt() + 1) ** 2 if target == "flow" else weight


def squared_error(prediction: Tensor, truth: Tensor) -> Tensor:
    """Return the mean squared error of each image, float32 [B]."""
    return (prediction.float() - truth.float()).square().flatten(1).mean(dim=1)


def stratify(uniform: Tensor, position: Tensor, num_strata: int, shift: float | Tensor = 0.0) -> Tensor:
    """Return draws in [0, 1), float64 [B], of which the whole batch has one in each of ``num_strata`` strata.

    (shift + (i + u_i) / n) mod 1 for the image at ``position`` i of a whole batch of n = ``num_strata`` (after
    the low-discrepancy sampler of Kingma et al. 2107.00630). Each draw needs only its own uniform and place, so
    parts of a batch on several devices agree. A ``shift`` drawn uniformly once per step and shared by the batch
    turns the strata round, so that no place in the batch is bound to a noise level.
    """
    return (shift + (position + uniform.double()) / num_strata) % 1.0


def draw_timesteps(
    uniform: Tensor, num_steps: int, kind: Timesteps = "uniform", mean: float = 0.0, std: float = 1.0
) -> Tensor:
    """Return t = floor(T τ) for ``uniform`` u in [0, 1), int64 [B] in 0 … T-1.

    τ is u itself, or for ``logit_normal`` sigmoid(``mean`` + ``std`` Φ⁻¹(u)), so that its logit is normal (Esser et al.
    2403.03206, eq. 19); strata of u are strata of τ.

    Raises:
        ValueError: an unknown kind, or ``std`` not above 0.
    """
    if kind == "uniform":
        return (uniform * num_steps).long()
    if kind != "logit_normal":
        raise ValueError(f"kind: got {kind!r}, expected {', '.join(get_args(Timesteps))}")
    if not std > 0:
        raise ValueError(f"std: got {std}, expected more than 0")
    place = (mean + std * torch.special.ndtri(uniform.double())).sigmoid()
    return (place * num_steps).long().clamp(max=num_steps - 1)  # the sigmoid of a large number is 1
