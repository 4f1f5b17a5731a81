"""What the tests of samplers share: Gaussian x0, for which the best denoiser is known, and numbers of a seed."""

from __future__ import annotations

import torch
from torch import Tensor

from latentart.core.diffusion.process import target_from
from latentart.core.diffusion.samplers import make_denoise
from latentart.core.diffusion.schedules import NoiseSchedule
from latentart.core.diffusion.solvers import Denoise
from latentart.kinds import Target


def gaussian_denoise(schedule: NoiseSchedule, target: Target = "x0", *, mean: float, std: float) -> Denoise:
    """Return the exact denoiser for x0 ~ N(mean, std²): the posterior mean of x0, told in ``target``."""

    def predict(x_t: Tensor, t: Tensor) -> Tensor:
        alpha_bar_t = schedule.alpha_bar[t].reshape(-1, 1, 1, 1)
        gain = alpha_bar_t.sqrt() * std**2 / (alpha_bar_t * std**2 + 1 - alpha_bar_t)
        x0_hat = mean + gain * (x_t - alpha_bar_t.sqrt() * mean)
        eps_hat = (x_t - alpha_bar_t.sqrt() * x0_hat) / (1 - alpha_bar_t).sqrt()
        return target_from(target, x0_hat, eps_hat, schedule.alpha_bar[t])

    return make_denoise(predict, schedule, target)


def draw(seed: int, *shape: int) -> Tensor:
    """Return float64 normal numbers of a seed."""
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def refuse_noise(step: int) -> Tensor:
    """Fail: noise must not be asked for."""
    raise AssertionError(f"noise was asked for at step {step}")
