"""Noise schedules and the grids of timesteps sampling walks along.

Timesteps are ``t = 0 … T-1``, and ``t = -1`` is the clean end; the papers' ``t = 1 … T`` is ours + 1.
Tables are float64 and cast only where they are used.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import get_args

import torch
from torch import Tensor

from latentart.kinds import ScheduleKind, Spacing


def make_betas(
    kind: ScheduleKind,
    num_steps: int,
    *,
    beta_start: float = 1e-4,
    beta_end: float = 0.02,
    cosine_offset: float = 0.008,
    max_beta: float = 0.999,
    sigmoid_range: float = 6.0,
) -> Tensor:
    """Return the noise variances β of ``num_steps`` steps, float64 [T].

    - linear: evenly from ``beta_start`` to ``beta_end`` (DDPM, section 4)
    - quadratic: the square of evenly spaced square roots
    - sigmoid: ``beta_start + (beta_end - beta_start) · sigmoid(-r … r)`` with r = ``sigmoid_range``
    - cosine: β_t = min(1 - ᾱ_t/ᾱ_{t-1}, ``max_beta``), ᾱ = cos²(π/2 · (t/T + s)/(1 + s)) with
      s = ``cosine_offset`` (Nichol & Dhariwal 2102.09672, eq. 17)

    ``beta_start``, ``beta_end`` and ``sigmoid_range`` do not matter to cosine, ``cosine_offset`` and
    ``max_beta`` matter only to it.

    Raises:
        ValueError: an unknown kind, fewer than one step, or not 0 < ``beta_start`` <= ``beta_end`` <= 1.
    """
    if num_steps < 1:
        raise ValueError(f"num_steps: got {num_steps}, expected at least 1")
    if not 0 < beta_start <= beta_end <= 1:
        raise ValueError(f"betas: got {beta_start} … {beta_end}, expected 0 < beta_start <= beta_end <= 1")
    if kind == "cosine":
        u = torch.linspace(0, 1, num_steps + 1, dtype=torch.float64)
        alpha_bar = torch.cos((u + cosine_offset) / (1 + cosine_offset) * math.pi / 2) ** 2
        betas = (1 - alpha_bar[1:] / alpha_bar[:-1]).clamp(max=max_beta)
    elif kind == "linear":
        betas = torch.linspace(beta_start, beta_end, num_steps, dtype=torch.float64)
    elif kind == "quadratic":
        betas = torch.linspace(beta_start**0.5, beta_end**0.5, num_steps, dtype=torch.float64) ** 2
    elif kind == "sigmoid":
        ramp = torch.linspace(-sigmoid_range, sigmoid_range, num_steps, dtype=torch.float64)
        betas = beta_start + (beta_end - beta_start) * ramp.sigmoid()
    else:
        raise ValueError(f"kind: got {kind!r}, expected cosine, linear, quadratic or sigmoid")
    return betas


def straight_alpha_bar(num_steps: int, shift: float = 1.0) -> Tensor:
    """Return ᾱ of the straight path x = (1-τ) x0 + τ eps of rectified flow, float64 [T], exactly 0 at the last step.

    Our x_t is x/√((1-τ)² + τ²): the same pictures, at unit variance for the network. So ᾱ = (1-τ)²/((1-τ)² + τ²) at
    τ = (t+1)/T (Liu et al. 2209.03003; Lipman et al. 2210.02747). ``shift`` s takes s τ/(1 + (s-1) τ) in place of τ,
    more noise for larger latents (Esser et al. 2403.03206, eq. 23); it multiplies the noise against the signal by s.

    Raises:
        ValueError: fewer than one step, or ``shift`` not above 0.
    """
    if num_steps < 1:
        raise ValueError(f"num_steps: got {num_steps}, expected at least 1")
    if not 0 < shift < math.inf:
        raise ValueError(f"shift: got {shift}, expected a number above 0")
    t = torch.arange(1, num_steps + 1, dtype=torch.float64)
    signal, noise = (num_steps - t) ** 2, (shift * t) ** 2  # T times as large as above, to stay with whole numbers
    return signal / (signal + noise)


@dataclass(frozen=True, eq=False)
class NoiseSchedule:
    """How much of the picture is left after each step: ``betas`` and ``alpha_bar``, float64 [T]."""

    betas: Tensor
    alpha_bar: Tensor

    @classmethod
    def from_betas(cls, betas: Tensor) -> NoiseSchedule:
        """Return the schedule with ᾱ_t = Π_{s≤t} (1 - β_s) (DDPM, eq. 4).

        Raises:
            ValueError: ``betas`` is not float64 [T] with T >= 1, or leaves (0, 1]; 1 leaves no signal at all.
        """
        if betas.dtype != torch.float64 or betas.ndim != 1 or not len(betas):
            raise ValueError(f"betas: got {betas.dtype} {list(betas.shape)}, expected float64 [T], T >= 1")
        if not bool(((betas > 0) & (betas <= 1)).all()):
            raise ValueError(f"betas: got {betas.min():.3g} … {betas.max():.3g}, expected all in (0, 1]")
        return cls(betas, torch.cumprod(1 - betas, dim=0))

    @classmethod
    def from_alpha_bar(cls, alpha_bar: Tensor) -> NoiseSchedule:
        """Return the schedule with just this ᾱ, and β_t = 1 - ᾱ_t/ᾱ_{t-1}.

        Raises:
            ValueError: ``alpha_bar`` is not float64 [T] with T >= 1, or does not fall strictly within [0, 1).
        """
        if alpha_bar.dtype != torch.float64 or alpha_bar.ndim != 1 or not len(alpha_bar):
            raise ValueError(f"alpha_bar: got {alpha_bar.dtype} {list(alpha_bar.shape)}, expected float64 [T], T >= 1")
        before = torch.nn.functional.pad(alpha_bar[:-1], (1, 0), value=1.0)
        if not bool(((alpha_bar >= 0) & (alpha_bar < before)).all()):
            got = f"{alpha_bar[0]:.3g} … {alpha_bar[-1]:.3g}"
            raise ValueError(f"alpha_bar: got {got}, expected it to fall at every step, from below 1 to 0 at the least")
        return cls((before - alpha_bar) / before, alpha_bar)

    def to_zero_terminal_snr(self) -> NoiseSchedule:
        """Return the schedule with √ᾱ moved and stretched: 0 at the last step, the first as it was.

        √ᾱ_t' = (√ᾱ_t - √ᾱ_T) √ᾱ_1/(√ᾱ_1 - √ᾱ_T) (Lin et al. 2305.08891, algorithm 1), so that training sees the pure
        noise that sampling starts from. A schedule that ends so already is returned itself.

        Raises:
            ValueError: fewer than two steps, of which the last has some signal.
        """
        root = self.alpha_bar.sqrt()
        if root[-1] == 0:
            return self
        if self.num_steps < 2:
            raise ValueError("num_steps: got 1, expected at least 2 for a last step without signal")
        stretched = ((root - root[-1]) * (root[0] / (root[0] - root[-1]))) ** 2
        return NoiseSchedule.from_alpha_bar(torch.cat([self.alpha_bar[:1], stretched[1:]]))

    @property
    def num_steps(self) -> int:
        """T, the number of training steps."""
        return len(self.betas)

    @property
    def snr(self) -> Tensor:
        """The signal-to-noise ratio ᾱ/(1-ᾱ), float64 [T]."""
        return self.alpha_bar / (1 - self.alpha_bar)

    @cached_property
    def _alpha_bar_from_clean(self) -> Tensor:
        return torch.nn.functional.pad(self.alpha_bar, (1, 0), value=1.0)  # [T+1], indexed as in the papers

    def alpha_bar_at(self, t: int | Tensor) -> Tensor:
        """Return ᾱ at ``t`` in -1 … T-1, exactly 1 at the clean end -1: float64 of the shape of ``t``.

        Raises:
            ValueError: an int ``t`` out of range; a tensor is not checked, for that would wait for its device.
        """
        if isinstance(t, int) and not -1 <= t < self.num_steps:
            raise ValueError(f"t: got {t}, expected -1 to {self.num_steps - 1}")
        return self._alpha_bar_from_clean[t + 1]

    def to(self, device: torch.device | str) -> NoiseSchedule:
        """Return the schedule on ``device``, itself when it is there.

        Training moves it once, before the loop. Sampling leaves it on the CPU: there ᾱ is a number, which
        PyTorch hands to the kernels of any device without waiting for it.
        """
        betas = self.betas.to(device)
        return self if betas is self.betas else NoiseSchedule(betas, self.alpha_bar.to(device))


def timestep_pairs(
    schedule: NoiseSchedule, num_steps: int, spacing: Spacing = "trailing", noise_limit: float | None = None
) -> list[tuple[int, int]]:
    """Return the N = ``num_steps`` pairs (t, t_prev) sampling takes, noisiest first, down to t_prev = -1.

    T counts the timesteps that may be visited: all, or with ``noise_limit`` those of √((1-ᾱ)/ᾱ) up to it, t = 0 always.

    - trailing: T·k/N - 1, k = N … 1; starts from pure noise (Lin et al. 2305.08891, table 2)
    - leading: T·k/N, k = N-1 … 0; ends at t = 0, but starts up to T/N steps short of pure noise
    - linspace: N points from T-1 to 0, both included
    - log_snr: from T-1 to 0 too, even in log(ᾱ/(1-ᾱ)) as far as distinct timesteps can be (Lu et al. 2206.00927)

    Trailing and leading round down, in integers, so that the steps are distinct for every N. Where N is more than the
    limit leaves, each of these is visited.

    Raises:
        ValueError: an unknown spacing, or N outside 1 to the schedule's number of steps.
    """
    T, N = schedule.num_steps, num_steps
    if not 1 <= N <= T:
        raise ValueError(f"num_steps: got {N}, expected 1 to {T}")
    if noise_limit is not None:
        T = max(int((schedule.snr >= noise_limit**-2).sum()), 1)
        N = min(N, T)
    if spacing == "trailing":
        steps = [T * k // N - 1 for k in range(N, 0, -1)]
    elif spacing == "leading":
        steps = [T * k // N for k in range(N - 1, -1, -1)]
    elif spacing == "linspace":
        steps = [T - 1 - round(i * (T - 1) / max(N - 1, 1)) for i in range(N)]
    elif spacing == "log_snr":
        steps = _even_in_log_snr(schedule.snr[:T], N)
    else:
        raise ValueError(f"spacing: got {spacing!r}, expected {', '.join(get_args(Spacing))}")
    return list(zip(steps, [*steps[1:], -1], strict=True))


def _even_in_log_snr(snr: Tensor, num_steps: int) -> list[int]:
    """Return timesteps from T-1 to 0, each as near as can be to an even share of what the one before it left."""
    level = (-snr.log()).nan_to_num(posinf=1e3).tolist()  # rises with t; finite for no signal at all
    between = [(a + b) / 2 for a, b in pairwise(level)]
    steps = [len(level) - 1]
    for left in range(num_steps - 1, 0, -1):
        here = level[steps[-1]]
        nearest = bisect_left(between, here + (level[0] - here) / left)
        steps.append(max(min(nearest, steps[-1] - 1), left - 1))
    return steps
