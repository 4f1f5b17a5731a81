"""Averages of a network's weights: tracked as they are trained, and made afterwards from snapshots of others."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn


def power_decay(step: int, gamma: float) -> float:
    """Return ``β = (1 - 1/step)^(γ+1)``, the power-function profile (Karras et al. 2312.02696, eq. 1-2), step ≥ 1.

    The average then always spans the same share of the run so far: short runs and long ones need no other setting.
    """
    return (1.0 - 1.0 / max(step, 1)) ** (gamma + 1.0)


def gamma_from_relative_std(relative_std: float) -> float:
    """Return γ for a profile whose width is ``relative_std`` of the run (Karras et al., eq. 126).

    Solves ``σ² = (γ+1) / ((γ+2)² (γ+3))``.

    Raises:
        ValueError: not within 0…0.289, the width of a plain mean.
    """
    if not 0.0 < relative_std < 1.0 / math.sqrt(12.0):
        msg = f"relative_std must be between 0 and 0.289: got {relative_std}"
        raise ValueError(msg)
    low, high = 0.0, 1e7
    for _ in range(200):
        middle = 0.5 * (low + high)
        width = (middle + 1.0) / ((middle + 2.0) ** 2 * (middle + 3.0))
        low, high = (middle, high) if width > relative_std**2 else (low, middle)
    return 0.5 * (low + high)


class Ema:
    """A shadow of a network: ``shadow ← β shadow + (1-β) weights`` after each step, in float32.

    Args:
        network: the trained network.
        relative_std: width of the power profile as a share of the run; used when ``decay`` is None.
        decay: a constant β instead, capped by ``(1+step)/(10+step)`` while the run is young.
    """

    def __init__(self, network: nn.Module, *, relative_std: float = 0.1, decay: float | None = None) -> None:
        self.network = copy.deepcopy(network).requires_grad_(requires_grad=False).eval()
        self.relative_std = relative_std
        self.gamma = gamma_from_relative_std(relative_std)
        self._decay = decay

    def decay_at(self, step: int) -> float:
        """Return β of update number ``step`` (counted from 1)."""
        if self._decay is None:
            return power_decay(step, self.gamma)
        return min(self._decay, (1.0 + step) / (10.0 + step))

    @torch.no_grad()
    def update(self, network: nn.Module, step: int) -> None:
        """Move the shadow towards ``network``; ``step`` counts from 1."""
        amount = 1.0 - self.decay_at(step)
        torch._foreach_lerp_(_tensors_of(self.network), _tensors_of(network), amount)


def _tensors_of(network: nn.Module) -> list[Tensor]:
    """Return parameters and buffers: a quantizer's codes are averaged as the weights are that made them."""
    return [parameter.data for parameter in network.parameters()] + list(network.buffers())


def synthesis_weights(
    steps: Sequence[int], stds: Sequence[float], target_step: int, target_std: float
) -> tuple[Tensor, float]:
    """Return what each snapshot of an average counts in one of another width, float64 [n], and how far that misses.

    Snapshot i was taken after ``steps[i]`` updates of a power-function average of relative width ``stds[i]``. The
    weights are least squares over the profiles p(τ) = (γ+1) τ^γ / T^(γ+1) (Karras et al. 2312.02696, section 3.2).
    The miss is ‖Σ wᵢ pᵢ - p‖ / ‖p‖, 0 where the profile wanted is among those given.

    Differs from the paper: the weights sum to 1, so that what never moved in training does not move here either.

    Raises:
        ValueError: no snapshots, one given twice, one from after ``target_step``, or a width that no profile has.
    """
    _require_snapshots(steps, stds, target_step)
    time = torch.tensor([*steps, target_step], dtype=torch.float64)
    gamma = torch.tensor([gamma_from_relative_std(std) for std in (*stds, target_std)], dtype=torch.float64)
    products = _profile_products(time, gamma)
    scale = products.diagonal().rsqrt()  # to profiles of norm 1: late, narrow ones would drown the others
    scaled = scale[:, None] * products * scale
    gram, wanted = scaled[:-1, :-1], scaled[:-1, -1]
    free, ones = torch.linalg.solve(gram, torch.stack([wanted, scale[:-1]], dim=1)).unbind(1)
    multiplier = (scale[-1] - scale[:-1] @ free) / (scale[:-1] @ ones)
    solution = free + multiplier * ones
    miss = (1.0 - 2.0 * solution @ wanted + solution @ gram @ solution).clamp(min=0.0).sqrt()
    return solution * scale[:-1] / scale[-1], float(miss)


def _profile_products(time: Tensor, gamma: Tensor) -> Tensor:
    """Return ∫ pᵢ pⱼ dτ, ``[n, n]``: (γᵢ+1)(γⱼ+1)/(γᵢ+γⱼ+1) · (m/Tᵢ)^γᵢ (m/Tⱼ)^γⱼ m/(Tᵢ Tⱼ), m the earlier end."""
    t_i, t_j, gamma_i, gamma_j = time[:, None], time[None], gamma[:, None], gamma[None]
    end = torch.minimum(t_i, t_j)
    overlap = (end / t_i) ** gamma_i * (end / t_j) ** gamma_j * end / (t_i * t_j)
    return (gamma_i + 1) * (gamma_j + 1) / (gamma_i + gamma_j + 1) * overlap


def _require_snapshots(steps: Sequence[int], stds: Sequence[float], target_step: int) -> None:
    given = list(zip(steps, stds, strict=True))
    if not given or len(set(given)) < len(given):
        raise ValueError(f"snapshots: got {len(given)}, {len(set(given))} of them different, expected different ones")
    if min(steps) < 1 or max(steps) > target_step:
        raise ValueError(f"steps: got {min(steps)} to {max(steps)}, expected 1 to {target_step}")
