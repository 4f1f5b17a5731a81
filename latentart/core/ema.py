"""Exponential moving averages of a network's weights."""

from __future__ import annotations

import copy
import math

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
        self._gamma = gamma_from_relative_std(relative_std)
        self._decay = decay

    def decay_at(self, step: int) -> float:
        """Return β of update number ``step`` (counted from 1)."""
        if self._decay is None:
            return power_decay(step, self._gamma)
        return min(self._decay, (1.0 + step) / (10.0 + step))

    @torch.no_grad()
    def update(self, network: nn.Module, step: int) -> None:
        """Move the shadow towards ``network``; ``step`` counts from 1."""
        amount = 1.0 - self.decay_at(step)
        torch._foreach_lerp_(_tensors_of(self.network), _tensors_of(network), amount)


def _tensors_of(network: nn.Module) -> list[Tensor]:
    """Return parameters and buffers: a quantizer's codes are averaged as the weights are that made them."""
    return [parameter.data for parameter in network.parameters()] + list(network.buffers())
