"""What the denoiser learns: the process, the target, and what an error at each noise level weighs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass, replace

import torch
from torch import Tensor

from latentart.core.diffusion.process import add_noise, draw_timesteps, loss_weight, squared_error, target_from
from latentart.core.diffusion.schedules import NoiseSchedule
from latentart.core.diffusion.uncertainty import LearnedUncertainty
from latentart.kinds import Target, Timesteps, Weighting

Predict = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class DiffusionTask:
    """What the denoiser learns: process, target, weights, and how often it meets each noise level."""

    schedule: NoiseSchedule
    target: Target = "v"
    weighting: Weighting = "uniform"
    gamma: float = 5.0
    _: KW_ONLY
    timesteps: Timesteps = "uniform"
    timestep_mean: float = 0.0
    timestep_std: float = 1.0
    floor: float = 0.0

    def to(self, device: torch.device | str) -> DiffusionTask:
        """Return the task with its tables on ``device``."""
        return replace(self, schedule=self.schedule.to(device))

    def draw_timesteps(self, uniform: Tensor) -> Tensor:
        """Return the timesteps, int64 [B], that ``uniform`` numbers in [0, 1) stand for."""
        return draw_timesteps(uniform, self.schedule.num_steps, self.timesteps, self.timestep_mean, self.timestep_std)

    def losses(
        self, predict: Predict, x0: Tensor, eps: Tensor, t: Tensor, uncertainty: LearnedUncertainty | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return the weighted loss and the plain squared error of every image, each ``[B]``, in the target's space.

        They are those of ``predict(x_t)`` for ``x0`` noised to ``t`` [B]. ``learned`` weights are error/e^u + u with u
        from ``uncertainty``, and only they need it.

        Raises:
            ValueError: the weights are learned, and there is no ``uncertainty``.
        """
        if self.weighting == "learned" and uncertainty is None:
            raise ValueError("uncertainty: got None, expected a LearnedUncertainty for learned weights")
        alpha_bar_t, snr = self.schedule.alpha_bar_at(t), self.schedule.snr[t]
        prediction = predict(add_noise(x0, eps, alpha_bar_t))
        plain = squared_error(prediction, target_from(self.target, x0, eps, alpha_bar_t))
        if self.weighting == "learned" and uncertainty is not None:
            u = uncertainty(snr)
            return plain * (-u).exp() + u, plain
        return loss_weight(self.weighting, self.target, snr, self.gamma, self.floor).to(plain) * plain, plain

    def loss_per_image(
        self, predict: Predict, x0: Tensor, eps: Tensor, t: Tensor, uncertainty: LearnedUncertainty | None = None
    ) -> Tensor:
        """Return the weighted loss of every image alone, see ``losses``."""
        return self.losses(predict, x0, eps, t, uncertainty)[0]
