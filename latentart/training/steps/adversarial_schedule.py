"""When the discriminator trains, and with what share of its weight it moves the autoencoder: numbers in, numbers out.

It begins at a step, or once the reconstruction has stopped to improve. It trains on detached reconstructions for a
warm-up, then its weight ramps up. From then on a guard watches: where the reconstruction error rises above its best, or
the discriminator takes fakes for real, the term pauses; where the discriminator is too sure, it waits.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from latentart.storage.saved_values import from_values

WRONG_GAP = -0.1  # nearer to 0 a discriminator is only undecided, as a new one is
FOLLOWING = 2  # windows in which the best error follows one that rises with the learning rate


@dataclass(frozen=True)
class AdversarialPlan:
    """The settings of a schedule; all lengths in steps of the stage.

    Attributes:
        start: step at which the discriminator begins to train; None waits for a plateau of the reconstruction.
        warmup: steps it then trains without influence. ramp: steps from no influence to the whole.
        plateau_steps, plateau_gain: a plateau is a mean over that many steps that fell by less than this share.
        is_guarded: whether the guard acts.
        tolerance: share above its best at which the smoothed error pauses the term; at half of it the term comes back.
        max_gap: real minus fake logits at which the discriminator waits, until the gap is half of that.
        window: steps of smoothing.
        max_pause: steps after which the term comes back even so, and the error at hand becomes the best.
    """

    start: int | None = 0
    warmup: int = 0
    ramp: int = 0
    plateau_steps: int = 1000
    plateau_gain: float = 0.02
    is_guarded: bool = True
    tolerance: float = 0.08
    max_gap: float = 4.0
    window: int = 100
    max_pause: int = 500


@dataclass
class ScheduleState:
    """All that a schedule remembers; what a checkpoint holds.

    Attributes:
        began: step at which the discriminator began. ramp_from: step at which its influence began, or began again.
        paused: step of the pause in force. is_waiting: whether the discriminator is held back.
        error, seen: smoothed reconstruction error, over how many steps. best: the lowest under influence.
        gap, gaps_seen: smoothed real minus fake logits, over how many steps. num_pauses: so far. rate: the last one.
        plateau_sum, plateau_count, plateau_mean: of the window at hand, and of the one before.
    """

    began: int | None = None
    ramp_from: int | None = None
    paused: int | None = None
    is_waiting: bool = False
    error: float = 0.0
    seen: int = 0
    best: float | None = None
    gap: float = 0.0
    gaps_seen: int = 0
    num_pauses: int = 0
    rate: float = 0.0
    plateau_sum: float = 0.0
    plateau_count: int = 0
    plateau_mean: float | None = None


class AdversarialSchedule:
    """Follows one stage; ask ``share`` and ``trains`` before a step, tell ``observe`` after it."""

    def __init__(self, plan: AdversarialPlan) -> None:
        self.plan = plan
        self._state = ScheduleState(began=plan.start)

    def has_begun(self, step: int) -> bool:
        """Tell whether the discriminator looks at the pictures of ``step``."""
        return self._state.began is not None and step >= self._state.began

    def trains(self, step: int) -> bool:
        """Tell whether the discriminator is updated in ``step``."""
        return self.has_begun(step) and not self._state.is_waiting

    def share(self, step: int) -> float:
        """Return the share 0…1 of the adversarial weight in ``step``."""
        state = self._state
        if state.began is None or state.paused is not None:
            return 0.0
        first = state.began + self.plan.warmup
        since = step - (first if state.ramp_from is None else state.ramp_from)
        return ramp_share(since, self.plan.ramp)

    def first_influence(self) -> int | None:
        """Return the step of the first influence, as far as it is known; None waits for a plateau."""
        return None if self._state.began is None else self._state.began + self.plan.warmup

    def announce(self, num_steps: int) -> str:
        """Say when the term will come in, as far as that is known, and whether a stage of so many steps is enough."""
        entry = self.first_influence()
        if entry is None:
            return ""
        if entry >= num_steps:
            return "the discriminator moves nothing in this stage: its start and warm-up lie beyond the last step"
        return f"the discriminator moves the autoencoder from step {entry + 1} of this stage on"

    def observe(self, step: int, error: float, gap: float | None, rate: float = 0.0) -> list[str]:
        """Take a step's mean reconstruction error, real minus fake logits and learning rate; say what changed."""
        state, plan = self._state, self.plan
        had_influence = self.share(step) > 0
        state.seen += 1
        state.error += (error - state.error) / min(state.seen, plan.window)
        if gap is not None:
            state.gaps_seen += 1
            state.gap += (gap - state.gap) / min(state.gaps_seen, plan.window)
        is_rising, state.rate = rate > state.rate, rate
        if state.began is None:
            return self._look_for_plateau(step, error)
        if not plan.is_guarded:
            return []
        notes = self._watch_gap()
        if state.paused is not None:
            return notes + self._watch_pause(step)
        if had_influence and state.seen >= plan.window:  # a mean of few batches would be a chance best
            best = state.error if state.best is None else state.best
            # a rising rate raises the error by itself, but slowly
            state.best = min(state.error, best + (state.error - best) / (FOLLOWING * plan.window) * is_rising)
            notes += self._watch_term(step)
        return notes

    def state(self) -> dict[str, Any]:
        """Return what the schedule remembers, for JSON."""
        return asdict(self._state)

    def restore(self, values: Mapping[str, Any]) -> None:
        """Take back what ``state`` returned.

        Raises:
            ModelError: a value is of another kind.
        """
        self._state = from_values(ScheduleState, values)
        if self.plan.start is not None and (self._state.began is None or self._state.seen <= self._state.began):
            self._state.began = self.plan.start  # it had not begun: the config may have changed

    def _look_for_plateau(self, step: int, error: float) -> list[str]:
        state, plan = self._state, self.plan
        state.plateau_sum += error
        state.plateau_count += 1
        if state.plateau_count < plan.plateau_steps:
            return []
        mean, before = state.plateau_sum / state.plateau_count, state.plateau_mean
        state.plateau_sum, state.plateau_count, state.plateau_mean = 0.0, 0, mean
        if before is None or mean < (1.0 - plan.plateau_gain) * before:
            return []
        state.began = step + 1
        window = f"{mean:.4f} over the last {plan.plateau_steps} steps, {before:.4f} over those before"
        return [f"the reconstruction error is on a plateau ({window}): the discriminator begins"]

    def _watch_gap(self) -> list[str]:
        state, plan = self._state, self.plan
        if state.gaps_seen < plan.window:
            return []
        if not state.is_waiting and state.gap > plan.max_gap:
            state.is_waiting = True
            return [f"the discriminator waits: real logits are {state.gap:.2f} above fake ones"]
        if state.is_waiting and state.gap < 0.5 * plan.max_gap:
            state.is_waiting = False
            return [f"the discriminator goes on: real logits are {state.gap:.2f} above fake ones"]
        return []

    def _watch_term(self, step: int) -> list[str]:
        state, plan = self._state, self.plan
        assert state.best is not None
        if state.error > (1.0 + plan.tolerance) * state.best:
            return self._pause(step, f"the reconstruction error rose to {state.error:.4f} from {state.best:.4f}")
        if state.gaps_seen >= plan.window and state.gap < WRONG_GAP:
            return self._pause(step, f"the discriminator takes fakes for real (gap {state.gap:.2f})")
        return []

    def _pause(self, step: int, reason: str) -> list[str]:
        self._state.paused = step
        self._state.num_pauses += 1
        return [f"the adversarial term is paused: {reason}"]

    def _watch_pause(self, step: int) -> list[str]:
        state, plan = self._state, self.plan
        assert state.paused is not None
        best = state.error if state.best is None else state.best
        is_well = state.error <= (1.0 + 0.5 * plan.tolerance) * best and state.gap > 0.0
        is_long = step - state.paused >= plan.max_pause
        if not is_well and not is_long:
            return []
        state.paused, state.ramp_from = None, step + 1
        if is_well:
            return [f"the adversarial term is taken up again: the reconstruction error is {state.error:.4f}"]
        state.best = state.error
        return [f"the adversarial term is taken up again: without it the error stayed at {state.error:.4f}"]


def ramp_share(since: int, ramp: int) -> float:
    """Return the share 0…1 of a weight ``since`` steps after its term came in; a negative number is before that."""
    return 0.0 if since < 0 else min(1.0, (since + 1) / (ramp + 1))
