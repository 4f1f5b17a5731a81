"""The forward process and its inverses, side by side, and the loss that compares them.

Everywhere x_t = √ᾱ x0 + √(1-ᾱ) eps. ``alpha_bar_t`` is a float64 scalar tensor or [B]; coefficients are
computed in its precision and cast to the precision of the latents, which are float32 or wider.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

Target = Literal["eps", "x0", "v"]
Weighting = Literal["uniform", "min_snr"]

_SMALLEST_DIVISOR = 1e-12  # far below √ᾱ of any schedule; keeps the very ends finite


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
    """Return what the network should predict: eps, x0, or v = √ᾱ eps - √(1-ᾱ) x0.

    v is from Salimans & Ho 2202.00512, section 4.

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
    raise ValueError(f"target: got {target!r}, expected eps, x0 or v")


def x0_and_eps_from(
    target: Target, prediction: Tensor, x_t: Tensor, alpha_bar_t: Tensor, x0_limit: float | None = None
) -> tuple[Tensor, Tensor]:
    """Return (x0_hat, eps_hat), the two parts of ``x_t`` that ``prediction`` stands for, in the dtype of ``x_t``.

    With ``x0_limit`` x0_hat is clamped to ±limit, and eps_hat is what is then left of ``x_t``.

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
    else:
        raise ValueError(f"target: got {target!r}, expected eps, x0 or v")
    if x0_limit is not None:
        x0_hat = x0_hat.clamp(-x0_limit, x0_limit)
        eps_hat = (x_t - a * x0_hat) / b.clamp(min=_SMALLEST_DIVISOR)
    return x0_hat, eps_hat


def loss_weight(weighting: Weighting, target: Target, snr: Tensor, gamma: float = 5.0) -> Tensor:
    """Return the weight, of the shape of ``snr``, of a squared error taken in the target's own space.

    ``min_snr`` weighs the error of x0 by min(snr, γ) whatever the target is: min(snr, γ) for x0,
    min(snr, γ)/snr for eps, min(snr, γ)/(snr + 1) for v (Hang et al. 2303.09556).

    Raises:
        ValueError: an unknown weighting or target.
    """
    if weighting == "uniform":
        return torch.ones_like(snr)
    if weighting != "min_snr":
        raise ValueError(f"weighting: got {weighting!r}, expected uniform or min_snr")
    if target == "eps":
        return (gamma / snr).clamp(max=1)  # the same as min(snr, γ)/snr, and sound at snr = 0
    if target == "x0":
        return snr.clamp(max=gamma)
    if target == "v":
        return snr.clamp(max=gamma) / (snr + 1)
    raise ValueError(f"target: got {target!r}, expected eps, x0 or v")


def diffusion_loss(prediction: Tensor, truth: Tensor, weight: Tensor) -> Tensor:
    """Return the weighted mean squared error of each image, float32 [B]; ``weight`` is [B] or a scalar."""
    error = (prediction.float() - truth.float()).square().flatten(1).mean(dim=1)
    return weight.to(error) * error


def stratify(uniform: Tensor, position: Tensor, num_strata: int, shift: float | Tensor = 0.0) -> Tensor:
    """Return draws in [0, 1), float64 [B], of which the whole batch has one in each of ``num_strata`` strata.

    (shift + (i + u_i) / n) mod 1 for the image at ``position`` i of a whole batch of n = ``num_strata`` (after
    the low-discrepancy sampler of Kingma et al. 2107.00630). Each draw needs only its own uniform and place, so
    parts of a batch on several devices agree. A ``shift`` drawn uniformly once per step and shared by the batch
    turns the strata round, so that no place in the batch is bound to a noise level.
    """
    return (shift + (position + uniform.double()) / num_strata) % 1.0


def draw_timesteps(uniform: Tensor, num_steps: int) -> Tensor:
    """Return t = floor(T·u) for ``uniform`` in [0, 1), int64 [B] in 0 … T-1."""
    return (uniform * num_steps).long()
