"""A rehearsal's layout and what its log says of each part, then the seconds of a whole training: plain arithmetic."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import mean
from typing import Any, Literal

Part = Literal["before", "warm-up", "whole"]  # of the discriminator's entry; a denoiser is always whole
PARTS: tuple[Part, ...] = ("before", "warm-up", "whole")
LEAST_STEPS = 6  # of a part, two of which do not count
MOST_STEPS = 120
FORWARD_SHARE = 1 / 3  # of a step: the backward pass takes about twice as long


@dataclass
class Timings:
    """What a trial found; seconds and bytes.

    Attributes:
        step: of each part. setup: before the first step. end: after the last. first_preview: what the first one
            takes beyond the others.
        encode: of one picture. data_share: share of the time spent waiting for data.
        tried: the batches, where the real one took too long; then what is not measured is derived from the step.
        memory, available: at the peak, and left before. checkpoint_bytes …: on disk. line_bytes: of a step's log.
        is_whole: whether the training's end was reached, so that ``end`` is measured.
    """

    step: dict[Part, float] = field(default_factory=dict)
    setup: float = 0.0
    end: float = 0.0
    preview: float = 0.0
    first_preview: float = 0.0
    evaluation: float = 0.0
    checkpoint: float = 0.0
    encode: float = 0.0
    data_share: float = 0.0
    tried: tuple[int, ...] = ()
    memory: int | None = None
    available: int | None = None
    checkpoint_bytes: int = 0
    model_bytes: int = 0
    preview_bytes: int = 0
    line_bytes: int = 0
    is_whole: bool = True


@dataclass(frozen=True)
class Rehearsal:
    """A training that was cut short: when it began and ended, and the lines of its log that have a time."""

    began: float
    ended: float
    lines: list[dict[str, Any]]

    def interval(self, step: int) -> float:
        """Return the seconds from the line of a step to the next one's."""
        return float(self.lines[step]["time"] - self.lines[step - 1]["time"])


@dataclass(frozen=True)
class Layout:
    """At which steps of a rehearsal what happens, so that no two things fall on one step.

    ``lengths`` are those of the parts. Of ``num_steps`` = 2P + 2 previews come at P and 2P, the evaluation at P + 2,
    a checkpoint at P + 3.
    """

    lengths: dict[Part, int]

    @property
    def num_steps(self) -> int:
        """How many steps there are."""
        return sum(self.lengths.values())

    @property
    def preview_at(self) -> int:
        """P."""
        return self.num_steps // 2 - 1

    def part_of(self, step: int) -> Part:
        """Return the part that a step, counted from 1, is in."""
        for part, length in self.lengths.items():
            if step <= length:
                return part
            step -= length
        return "whole"

    def plain(self) -> list[int]:
        """Return the steps before which nothing else happened, and which are not the first two of their part."""
        busy = {self.preview_at, 2 * self.preview_at, self.preview_at + 2, self.preview_at + 3}
        firsts, start = set(), 1
        for length in self.lengths.values():
            firsts |= {start, start + 1}
            start += length
        return [step for step in range(2, self.num_steps + 1) if step - 1 not in busy and step not in firsts]


def plan_layout(parts: Sequence[Part], per_step: float, seconds: float) -> Layout:
    """Return a layout whose steps take about ``seconds``, an even number of them in each part."""
    count = int(seconds / max(per_step, 1e-6) / len(parts))
    length = max(LEAST_STEPS if len(parts) > 1 else 2 * LEAST_STEPS, min(count, MOST_STEPS)) // 2 * 2
    return Layout(dict.fromkeys(parts, length))


def middle_mean(values: Sequence[float]) -> float:
    """Return the mean of the middle half: a median that knows of more than one value. Raises ValueError for none."""
    if not values:
        msg = "middle mean: got no values, expected at least one"
        raise ValueError(msg)
    ordered, cut = sorted(values), len(values) // 4
    return mean(ordered[cut : len(ordered) - cut])


def read_timings(rehearsal: Rehearsal, layout: Layout) -> Timings:
    """Return what the log of a rehearsal says, in which everything happened as laid out."""
    plain = layout.plain()
    step = {
        part: middle_mean([rehearsal.interval(k - 1) for k in plain if layout.part_of(k) == part])
        for part in layout.lengths
    }

    def extra(after: int) -> float:
        return max(0.0, rehearsal.interval(after) - step[layout.part_of(after + 1)])

    first, at = rehearsal.lines[0], layout.preview_at
    second = extra(2 * at)
    return Timings(
        step=step,
        setup=max(0.0, first["time"] - rehearsal.began - step[layout.part_of(1)]),
        end=rehearsal.ended - rehearsal.lines[-1]["time"],
        preview=second,
        first_preview=max(0.0, extra(at) - second),
        evaluation=extra(at + 2),
        checkpoint=extra(at + 3),
        data_share=middle_mean([float(rehearsal.lines[k - 1]["data_share"]) for k in plain]),
    )


def line_through(before: tuple[float, float] | None, last: tuple[float, float], x: float) -> float:
    """Return y at ``x`` of the line through two points (x, y), which never falls; without the first, from (0, 0) on."""
    slope = last[1] / last[0] if before is None else max(last[1] - before[1], 0.0) / (last[0] - before[0])
    return last[1] + slope * (x - last[0])


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
