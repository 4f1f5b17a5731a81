"""Numbers that stay finite: an update with others is left out, many in a row are reported, a jump of the loss is named.

A step asks ``Numbers`` before it moves anything. What it says no to moves no weight, no moment and no average; only
the count of the steps goes on, so that a resumed run leaves out the same updates.
"""

from __future__ import annotations

import logging
import math
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from latentart.errors import ModelError, TrainingDivergedError
from latentart.storage.saved_values import from_values

logger = logging.getLogger(__name__)

LOWER_RATE = "Lower the learning rate, then run the same command again: it goes on from its last checkpoint."
RATE_FACTOR = 0.5
KEPT_LOSSES = 20
SPIKE_DEVIATIONS = 6.0
SPIKE_WINDOW = 200  # steps over which the loss is followed
SPIKE_WARM_UP = 50
LEAST_DEVIATION = 0.02  # of the log-loss: where it hardly moves, two percent are no jump


class LostNumbersError(TrainingDivergedError):
    """Too many updates in a row were left out; ``evidence`` is what can be written down of the last one."""

    def __init__(self, message: str, evidence: dict[str, Any]) -> None:
        super().__init__(message, LOWER_RATE)
        self.evidence = evidence


@dataclass
class NumbersState:
    """All that a checkpoint keeps.

    Attributes:
        skipped: updates left out so far. in_a_row: those since the last one that was made.
        rate_factor: what the learning rate is multiplied by; below 1 once the run has gone back.
        log_mean, log_variance, seen: of the log-loss, over how many steps. is_high: whether it is in a jump.
    """

    skipped: int = 0
    in_a_row: int = 0
    rate_factor: float = 1.0
    log_mean: float = 0.0
    log_variance: float = 0.0
    seen: int = 0
    is_high: bool = False


class Numbers:
    """Says of each step's numbers whether its update may be made, and remembers what a run must know of them.

    Args:
        what: the network, for sentences.
        max_skipped: updates left out in a row at which it gives up.

    ``steps_before`` are those that the run made before this network's step 0; sentences count with them, as the log.
    """

    def __init__(self, what: str = "network", max_skipped: int = 10) -> None:
        self.what, self.max_skipped = what, max_skipped
        self.steps_before = 0
        self._state = NumbersState()
        self._losses: deque[float] = deque(maxlen=KEPT_LOSSES)

    @property
    def skipped(self) -> int:
        """Return how many updates were left out so far."""
        return self._state.skipped

    @property
    def is_sound(self) -> bool:
        """Tell whether the last update was made, so that what stands now is worth going back to."""
        return self._state.in_a_row == 0

    @property
    def rate_factor(self) -> float:
        """Return what every learning rate is to be multiplied by."""
        return self._state.rate_factor

    @property
    def has_gone_back(self) -> bool:
        """Tell whether the run has gone back once already."""
        return self._state.rate_factor < 1

    def go_back(self) -> None:
        """Lower the rate for good, as the run begins again from where its numbers were sound."""
        self._state.rate_factor = RATE_FACTOR

    def scale(self, rate: Callable[[int], float]) -> Callable[[int], float]:
        """Return a learning rate as it is after going back."""
        if not self.has_gone_back:
            return rate
        logger.warning("%s: the learning rate is %g times that of the config.", self.what, self.rate_factor)
        return lambda step: self.rate_factor * rate(step)

    def allow(
        self, step: int, values: Mapping[str, float], watched: str, evidence: Callable[[], dict[str, Any]]
    ) -> bool:
        """Tell whether update ``step``, from 0, may be made: whether all its ``values`` are finite.

        ``values[watched]``, above 0, is the one whose jumps are named. ``evidence`` is asked only where it is needed.

        Raises:
            LostNumbersError: it is the last of ``max_skipped`` in a row that may not.
        """
        state, number = self._state, self.steps_before + step + 1
        self._losses.append(values["loss"])
        if all(map(math.isfinite, values.values())):
            state.in_a_row = 0
            self._follow(step, values[watched], evidence)
            return True
        state.skipped += 1
        state.in_a_row += 1
        shown = ", ".join(f"{name.replace('_', ' ')} {value:.4g}" for name, value in values.items())
        logger.warning(
            "%s: the update of step %d is left out, its numbers are not finite: %s", self.what, number, shown
        )
        if state.in_a_row >= self.max_skipped:
            count = f"{state.in_a_row} updates" if state.in_a_row > 1 else "an update"
            msg = f"the {self.what} diverged at step {number}: {count} in a row had to be left out ({shown})."
            raise LostNumbersError(msg, {"step": number, "values": dict(values), **evidence(), **self.evidence()})
        return False

    def evidence(self) -> dict[str, Any]:
        """Return what is remembered, to be written down."""
        return {"skipped_steps": self.skipped, "rate_factor": self.rate_factor, "last_losses": list(self._losses)}

    def _follow(self, step: int, value: float, evidence: Callable[[], dict[str, Any]]) -> None:
        """Take a loss into mean and variance of its log (Welford 1962, then exponential), and name a jump once."""
        state = self._state
        log = math.log(max(value, 1e-30))
        limit = state.log_mean + SPIKE_DEVIATIONS * max(math.sqrt(state.log_variance), LEAST_DEVIATION)
        was_high, state.is_high = state.is_high, state.seen >= SPIKE_WARM_UP and log > limit
        if state.is_high:
            if not was_high:
                usual, pictures = math.exp(state.log_mean), evidence().get("pictures", [])
                logger.warning(
                    "%s: the loss jumped to %.4g at step %d, usual are %.4g; pictures of the batch: %s",
                    self.what,
                    value,
                    self.steps_before + step + 1,
                    usual,
                    ", ".join(map(str, pictures)) or "unknown",
                )
            log = limit  # a jump of any height counts alike, and one that stays becomes usual
        state.seen += 1
        share = 1.0 / min(state.seen, SPIKE_WINDOW)
        off = log - state.log_mean
        state.log_mean += share * off
        state.log_variance = (1.0 - share) * (state.log_variance + share * off * off)

    def state(self) -> dict[str, Any]:
        """Return what is remembered, for JSON."""
        return asdict(self._state)

    def restore(self, values: Mapping[str, Any]) -> None:
        """Take back what ``state`` returned; a rate that was lowered since stays low.

        Raises:
            ModelError: no run writes such values.
        """
        factor = self._state.rate_factor
        self._state = from_values(NumbersState, values)
        if not 0 < self._state.rate_factor <= 1 or self._state.log_variance < 0:
            raise ModelError("The saved numbers are none that a run writes.")
        self._state.rate_factor = min(factor, self._state.rate_factor)


def read_numbers(tensors: Mapping[str, Tensor]) -> dict[str, float]:
    """Return scalars as floats; the device is waited for once, not once for each."""
    values = torch.stack([tensor.detach().float() for tensor in tensors.values()]).tolist()
    return dict(zip(tensors, values, strict=True))


def norms_by_module(network: nn.Module) -> dict[str, float]:
    """Return the gradient norm of each top-level module of a network."""
    parts = {name: list(child.parameters()) for name, child in network.named_children()}
    parts["own"] = list(network.parameters(recurse=False))
    gradients = {name: [p.grad for p in part if p.grad is not None] for name, part in parts.items()}
    return {name: float(nn.utils.get_total_norm(part)) for name, part in gradients.items() if part}
