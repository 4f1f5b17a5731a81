"""The optimizer, and the learning rate as a pure function of the step, so that resuming needs no scheduler."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Generic, Literal, TypeVar

import torch
from torch import Tensor, nn

from latentart.core.ema import Ema
from latentart.errors import ModelError

Network = TypeVar("Network", bound=nn.Module)
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


@dataclass(frozen=True, kw_only=True)
class RatePlan:
    """The learning rate as a pure function of the step.

    - ``onecycle``: from peak / div_factor up to peak over ``warmup_share`` of the run, down to
      peak / (div_factor · final_div_factor), both as half a cosine (Smith & Topin 2017, as torch's OneCycleLR).
    - ``multistep``: peak · gamma^k after k milestones, given as shares of the run (as torch's MultiStepLR).
    - ``cosine``: peak · (1 + cos(π · step / total_steps)) / 2 (Loshchilov & Hutter 2017, equation 5).
    - ``constant``: peak.

    Over the first ``warmup_steps`` the rate also rises linearly from peak / warmup_steps; with ``cosine`` the
    fall starts after them. Past the end the last rate stays. With ``new_cycle_at`` all of it happens twice: up to that
    step as in a run that ends there, and from it on anew to the end.
    """

    kind: Schedule
    peak: float
    total_steps: int
    warmup_share: float = 0.3
    div_factor: float = 25.0
    final_div_factor: float = 1e4
    milestones: Sequence[float] = ()
    gamma: float = 0.1
    warmup_steps: int = 0
    cycle_momentum: bool = False
    new_cycle_at: int = 0

    def __call__(self, step: int) -> float:
        """Return the learning rate of update ``step``, counted from 0.

        Raises:
            ValueError: an unknown kind, a negative step or a run of no steps.
        """
        kind, peak, total_steps, warmup_steps = self.kind, self.peak, self.total_steps, self.warmup_steps
        if step < 0 or total_steps < 1:
            raise ValueError(f"step, total_steps: got {step}, {total_steps}, expected at least 0, 1")
        if 0 < self.new_cycle_at < total_steps:
            cycle, within = self._cycle_of(step)
            return cycle(within)
        ramp = min(1.0, (step + 1) / warmup_steps) if warmup_steps > 0 else 1.0
        if kind == "onecycle":
            first, lowest = peak / self.div_factor, peak / self.div_factor / self.final_div_factor
            rate = _onecycle(min(step, total_steps - 1), total_steps, self.warmup_share, (first, peak, lowest))
        elif kind == "multistep":
            passed = bisect_right(sorted(round(share * total_steps) for share in self.milestones), step)
            rate = peak * self.gamma**passed
        elif kind == "cosine":
            progress = (step - warmup_steps) / max(total_steps - warmup_steps, 1)
            rate = _half_cosine(peak, 0.0, min(max(progress, 0.0), 1.0))
        elif kind == "constant":
            rate = peak
        else:
            raise ValueError(f"kind: got {kind!r}, expected 'onecycle', 'multistep', 'constant' or 'cosine'")
        return rate * ramp

    def first_beta(self, step: int) -> float | None:
        """Return Adam's β1 of update ``step``: with ``cycle_momentum`` 0.95, 0.85 at the peak; None where it stays.

        Against the rate, as torch's OneCycleLR has it unless told not to.
        """
        if not self.cycle_momentum or self.kind != "onecycle":
            return None
        cycle, within = self._cycle_of(step)
        total = cycle.total_steps
        return _onecycle(min(within, total - 1), total, self.warmup_share, (0.95, 0.85, 0.95))

    def _cycle_of(self, step: int) -> tuple[RatePlan, int]:
        """Return the plan of the cycle that a step belongs to, and the step's number in it."""
        if not 0 < self.new_cycle_at < self.total_steps:
            return self, step
        skipped = self.new_cycle_at if step >= self.new_cycle_at else 0
        length = self.total_steps - skipped if skipped else self.new_cycle_at
        return replace(self, total_steps=length, new_cycle_at=0), step - skipped


@dataclass(frozen=True)
class Learner(Generic[Network]):
    """A network, the average of its weights that results are made with, and the optimizer that moves it.

    ``tracks``: more averages, each of its own width, for snapshots. ``first_beta``: Adam's β1 of an update, None where
    it stays as it is.
    """

    network: Network
    ema: Ema
    optimizer: torch.optim.Optimizer
    tracks: Sequence[Ema] = ()
    first_beta: Callable[[int], float | None] = lambda _: None


def set_first_beta(optimizer: torch.optim.Optimizer, beta: float | None) -> None:
    """Give every group of an optimizer the same β1; None leaves it."""
    for group in optimizer.param_groups if beta is not None else ():
        group["betas"] = (beta, group["betas"][1])


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


def _onecycle(step: int, total_steps: int, warmup_share: float, rates: tuple[float, float, float]) -> float:
    first, peak, last = rates
    top = warmup_share * total_steps - 1  # torch's edge between the two halves: a real number, not a step
    if step <= top:
        return _half_cosine(first, peak, step / top if top > 0 else 1.0)
    return _half_cosine(peak, last, (step - top) / (total_steps - 1 - top))


def _half_cosine(start: float, end: float, share: float) -> float:
    return end + (start - end) / 2 * (1 + math.cos(math.pi * share))


_REMEMBERED = ({"step", "exp_avg", "exp_avg_sq"}, {"momentum"})  # of a parameter, by AdamW and by Muon


def flatten_optimizer(optimizer: torch.optim.Optimizer) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return an optimizer's state as tensors named ``<parameter index>.<name>`` and a JSON value."""
    saved = optimizer.state_dict()
    entries = {f"{index}.{name}": value for index, part in saved["state"].items() for name, value in part.items()}
    tensors = {key: value for key, value in entries.items() if isinstance(value, Tensor)}
    others = {key: value for key, value in entries.items() if key not in tensors}
    return tensors, {"param_groups": saved["param_groups"], "others": others}


def restore_optimizer(
    optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor], values: Mapping[str, Any]
) -> None:
    """Give an optimizer, bit for bit, the state that ``flatten_optimizer`` took.

    Its own settings stay (rate, betas, decay): one that was edited in the config holds from here on.

    Raises:
        ModelError: the state belongs to other parameters.
    """
    own = optimizer.state_dict()["param_groups"]
    values = values if isinstance(values, Mapping) else {}
    saved, others = values.get("param_groups"), values.get("others")
    if (
        not isinstance(others, dict)
        or not isinstance(saved, list)
        or [isinstance(group, dict) and group.get("params") for group in saved] != [group["params"] for group in own]
    ):
        raise ModelError("The saved optimizer does not fit: it is for other groups of parameters.")
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    state: dict[int, dict[str, Any]] = {}
    for key, value in {**tensors, **others}.items():
        index, _, name = key.partition(".")
        if not index.isdecimal() or int(index) >= len(parameters):
            raise ModelError(f"The saved optimizer does not fit: there is no parameter for '{key}'.")
        parameter = parameters[int(index)]
        if isinstance(value, Tensor) and value.ndim > 0 and value.shape != parameter.shape:
            raise ModelError(
                f"The saved optimizer does not fit: '{key}' has shape {list(value.shape)}, not {list(parameter.shape)}."
            )
        if not isinstance(value, (Tensor, int, float)):
            raise ModelError(f"The saved optimizer does not fit: '{key}' is no number.")
        state.setdefault(int(index), {})[name] = _laid_out_like(parameter, value)
    for index, entry in state.items():
        if entry.keys() not in _REMEMBERED:
            raise ModelError(f"The saved optimizer does not fit: it remembers {sorted(entry)} of parameter {index}.")
    optimizer.load_state_dict({"state": state, "param_groups": own})


def _laid_out_like(parameter: Tensor, value: Any) -> Any:
    """Return a copy in the parameter's memory layout, which fused optimizers take for granted.

    A copy, as a loaded tensor is a view of the mapped file, and the optimizer would write into it.
    """
    if not isinstance(value, Tensor):
        return value
    if value.shape != parameter.shape:
        return value.clone()
    return torch.empty_like(parameter, dtype=value.dtype, device=value.device).copy_(value)
