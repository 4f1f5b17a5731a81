"""What the denoiser learns: the process, the target, and what an error at each noise level weighs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from latentart.core.diffusion.process import (
    Target,
    Weighting,
    add_noise,
    diffusion_loss,
    loss_weight,
    target_from,
)
from latentart.core.diffusion.schedules import NoiseSchedule


@dataclass(frozen=True)
class DiffusionTask:
    """What the denoiser learns: process, target and weights."""

    schedule: NoiseSchedule
    target: Target = "v"
    weighting: Weighting = "uniform"
    gamma: float = 5.0

    def to(self, device: torch.device | str) -> DiffusionTask:
        """Return the task with its tables on ``device``."""
        return replace(self, schedule=self.schedule.to(device))

    def loss_per_image(self, predict: Callable[[Tensor], Tensor], x0: Tensor, eps: Tensor, t: Tensor) -> Tensor:
        """Return the weighted loss of every image, ``[B]``, of ``predict(x_t)`` for ``x0`` noised to ``t`` [B]."""
        alpha_bar_t = self.schedule.alpha_bar_at(t)
        prediction = predict(add_noise(x0, eps, alpha_bar_t))
        truth = target_from(self.target, x0, eps, alpha_bar_t)
        weight = loss_weight(self.weighting, self.target, self.schedule.snr[t], self.gamma)
        return diffusion_loss(prediction, truth, weight)
