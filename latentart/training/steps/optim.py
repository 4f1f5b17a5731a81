"""The optimizer, and the learning rate as a pure function of the step, so that resuming needs no scheduler."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from latentart.errors import TrainingDivergedError

Schedule = Literal["onecycle", "multistep", "constant", "cosine"]


def build_adamw(
    parameters: Iterable[nn.Parameter], *, lr: float, betas: tuple[float, float], weight_decay: float
) -> torch.optim.AdamW:
    """Return AdamW (Loshchilov & Hutter 2019) that decays matrices and kernels, but no bias and no norm.

    Raises:
        ValueError: no parameter wants a gradient.
    """
    trained = [parameter for parameter in parameters if parameter.requires_grad]
    groups = [
        {"params": [p for p in trained if p.ndim >= 2], "weight_decay": weight_decay},
        {"params": [p for p in trained if p.ndim < 2], "weight_decay": 0.0},
    ]
    # fused: one pass over the weights; on a CPU seven times faster than the default
    return torch.optim.AdamW([group for group in groups if group["params"]], lr=lr, betas=betas, fused=True)


def learning_rate(
    step: int,
    *,
    kind: Schedule,
    peak: float,
    total_steps: int,
    warmup_share: float = 0.3,
    div_factor: float = 25.0,
    final_div_factor: float = 1e4,
    milestones: Sequence[float] = (),
    gamma: float = 0.1,
    warmup_steps: int = 0,
) -> float:
    """Return the learning rate of update ``step``, counted from 0.

    - ``onecycle``: from peak / div_factor up to peak over ``warmup_share`` of the run, down to
      peak / (div_factor · final_div_factor), both as half a cosine (Smith & Topin 2017, as torch's OneCycleLR).
    - ``multistep``: peak · gamma^k after k milestones, given as shares of the run (as torch's MultiStepLR).
    - ``cosine``: peak · (1 + cos(π · step / total_steps)) / 2 (Loshchilov & Hutter 2017, equation 5).
    - ``constant``: peak.

    Over the first ``warmup_steps`` the rate also rises linearly from peak / warmup_steps; with ``cosine`` the
    fall starts after them. Past the end the last rate stays.

    Raises:
        ValueError: an unknown kind, a negative step or a run of no steps.
    """
    if step < 0 or total_steps < 1:
        raise ValueError(f"step, total_steps: got {step}, {total_steps}, expected at least 0, 1")
    ramp = min(1.0, (step + 1) / warmup_steps) if warmup_steps > 0 else 1.0
    if kind == "onecycle":
        lowest = peak / div_factor / final_div_factor
        rate = _onecycle(min(step, total_steps - 1), total_steps, warmup_share, (peak / div_factor, peak, lowest))
    elif kind == "multistep":
        passed = bisect_right(sorted(round(share * total_steps) for share in milestones), step)
        rate = peak * gamma**passed
    elif kind == "cosine":
        progress = (step - warmup_steps) / max(total_steps - warmup_steps, 1)
        rate = _half_cosine(peak, 0.0, min(max(progress, 0.0), 1.0))
    elif kind == "constant":
        rate = peak
    else:
        raise ValueError(f"kind: got {kind!r}, expected 'onecycle', 'multistep', 'constant' or 'cosine'")
    return rate * ramp


def set_learning_rate(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Give every group of an optimizer the same learning rate, times its own ``lr_scale`` where it has one."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group.get("lr_scale", 1.0)


def gradient_norm(network: nn.Module) -> Tensor:
    """Return the norm of all gradients of a network."""
    return nn.utils.get_total_norm([p.grad for p in network.parameters() if p.grad is not None])


def clip_gradients(network: nn.Module, norm: Tensor, clip_norm: float) -> None:
    """Scale gradients of that norm down to ``clip_norm``; 0 leaves them."""
    if clip_norm > 0:
        nn.utils.clip_grads_with_norm_(network.parameters(), clip_norm, norm)


def clip_finite(network: nn.Module, loss: Tensor, clip_norm: float, what: str, step: int) -> Tensor:
    """Clip gradients where a run has nothing to go back to, and return their norm before that.

    Raises:
        TrainingDivergedError: the loss or the norm is not finite; no weight was touched.
    """
    norm = gradient_norm(network)
    if not bool(torch.isfinite(loss) & torch.isfinite(norm)):
        numbers = f"loss {float(loss.detach()):.4g}, gradient norm {float(norm):.4g}"
        msg = f"the {what} diverged at step {step + 1}: {numbers}."
        raise TrainingDivergedError(msg, "Its last checkpoint is sound; go on from it with a lower learning rate.")
    clip_gradients(network, norm, clip_norm)
    return norm


def _onecycle(step: int, total_steps: int, warmup_share: float, rates: tuple[float, float, float]) -> float:
    first, peak, last = rates
    top = warmup_share * total_steps - 1  # torch's edge between the two halves: a real number, not a step
    if step <= top:
        return _half_cosine(first, peak, step / top if top > 0 else 1.0)
    return _half_cosine(peak, last, (step - top) / (total_steps - 1 - top))


def _half_cosine(start: float, end: float, share: float) -> float:
    return end + (start - end) / 2 * (1 + math.cos(math.pi * share))
