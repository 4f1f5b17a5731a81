"""From the seconds of single steps to those of a whole training: plain arithmetic, no network and no clock."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from latentart.planning.layout import PARTS, Part, Timings
from latentart.planning.trial import FORWARD_SHARE


@dataclass(frozen=True)
class Phase:
    """One line of a plan.

    Attributes:
        steps: those to come; None for what has none. steps_per_second: on the average over them.
        memory: at the peak, bytes. disk: bytes that it adds. is_rough: not measured at the real size.
        failed: whether a trial ran out of memory, so that nothing is known.
    """

    name: str
    seconds: float
    steps: int | None = None
    steps_per_second: float | None = None
    memory: int | None = None
    disk: int = 0
    is_rough: bool = False
    failed: bool = False


@dataclass(frozen=True)
class Occasions:
    """How often something happens before the last step."""

    previews: int = 0
    evaluations: int = 0
    checkpoints: int = 0


def count_due(every: int, first: int, last: int) -> int:
    """Return how many multiples of ``every`` there are above ``first`` and below ``last``."""
    return max(0, (last - 1) // every - first // every)


def count_occasions(preview_every: int, evaluate_every: int, checkpoint_every: int, first: int, last: int) -> Occasions:
    """Return how often each happens from step ``first`` to ``last``, whose own are part of the end."""
    every = (preview_every, evaluate_every, checkpoint_every)
    return Occasions(*(count_due(one, first, last) for one in every))


def split_parts(start: int | None, warmup: int, first: int, last: int) -> dict[Part, int]:
    """Return how many of the steps from ``first`` to ``last`` lie before, in and after the discriminator's warm-up.

    A ``start`` of None is a stage without one. Parts without a step are left out.
    """
    entry = last if start is None else start
    edges = (0, entry, entry + warmup, max(last, entry + warmup))
    counts = {part: max(0, min(edges[i + 1], last) - max(edges[i], first)) for i, part in enumerate(PARTS)}
    return {part: count for part, count in counts.items() if count}


def spend(timings: Timings, steps: Mapping[Part, int], occasions: Occasions) -> float:
    """Return the seconds of a training with so many steps of each part, from its set-up to its end."""
    seconds = timings.setup + timings.end
    seconds += sum(count * timings.step[part] for part, count in steps.items())
    seconds += occasions.previews * timings.preview + bool(occasions.previews) * timings.first_preview
    return seconds + occasions.evaluations * timings.evaluation + occasions.checkpoints * timings.checkpoint


def mean_rate(timings: Timings, steps: Mapping[Part, int]) -> float | None:
    """Return steps per second over all parts; None without steps."""
    seconds = sum(count * timings.step[part] for part, count in steps.items())
    return sum(steps.values()) / seconds if seconds > 0 else None


def derive_passes(timings: Timings, batch_size: int, previewed: float, evaluated: float, ending: float) -> None:
    """Fill in what a trial that was not whole has not measured, from how many images pass the network each time.

    Where the real batch was tried all but the end was measured.
    """
    forward = FORWARD_SHARE * timings.step[next(reversed(timings.step))] / batch_size
    timings.end = forward * ending
    if timings.tried:
        timings.preview, timings.evaluation = forward * previewed, forward * evaluated
