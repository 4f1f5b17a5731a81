"""A plan's arithmetic, on scripted timings."""

from __future__ import annotations

import itertools

import pytest

from latentart.planning.estimate import (
    Layout,
    Occasions,
    Part,
    Rehearsal,
    Timings,
    count_due,
    count_occasions,
    derive_passes,
    line_through,
    mean_rate,
    middle_mean,
    plan_layout,
    read_timings,
    spend,
    split_parts,
)
from latentart.planning.trial import Probe, extrapolate
from latentart.training.steps.adversarial_schedule import AdversarialPlan, AdversarialSchedule

STEP: dict[Part, float] = {"before": 1.0, "warm-up": 1.5, "whole": 2.0}


def scripted(layout: Layout, extras: dict[int, float], setup: float, end: float) -> Rehearsal:
    """Return the log of a rehearsal whose steps last as STEP says; ``extras`` happen after a step."""
    clock, lines = 1000.0 + setup, []
    for step in range(1, layout.num_steps + 1):
        clock += STEP[layout.part_of(step)]
        lines.append({"step": step, "time": clock, "data_share": 0.125})
        clock += extras.get(step, 0.0)
    return Rehearsal(1000.0, clock + end, lines)


@pytest.mark.parametrize("parts", [("whole",), ("before", "warm-up", "whole"), ("before", "whole"), ("warm-up",)])
@pytest.mark.parametrize("seconds", [0.0, 30.0, 77.0, 1e6])
def test_a_scripted_log_gives_its_own_seconds_back(parts: tuple[Part, ...], seconds: float) -> None:
    """What happens beside the steps is told apart from them, and from each other, to the last digit."""
    layout = plan_layout(parts, 1.0, seconds)
    at = layout.preview_at
    extras = {at: 7.0, 2 * at: 4.0, at + 2: 0.5, at + 3: 0.25}
    assert max(extras) < layout.num_steps

    found = read_timings(scripted(layout, extras, setup=3.0, end=9.0), layout)

    assert found.step == {part: STEP[part] for part in parts}
    assert (found.setup, found.end) == (3.0, 9.0)
    assert (found.preview, found.first_preview) == (4.0, 3.0)
    assert (found.evaluation, found.checkpoint) == (0.5, 0.25)
    assert found.data_share == 0.125


def test_the_first_two_steps_of_a_part_do_not_count() -> None:
    """They are slow: memory is new to them."""
    layout = Layout({"before": 8, "whole": 8})
    slow = scripted(layout, {0: 0.0, 1: 50.0, 8: 50.0, 9: 50.0}, setup=0.0, end=0.0)

    assert read_timings(slow, layout).step == {"before": 1.0, "whole": 2.0}


def test_one_hiccup_among_many_steps_is_left_out() -> None:
    """The mean of the middle half knows neither the slowest nor the fastest quarter."""
    assert middle_mean([1.0, 1.0, 2.0, 2.0, 3.0, 3.0, 9.0, 9.0]) == 2.5
    assert middle_mean([5.0]) == 5.0
    with pytest.raises(ValueError, match="no values"):
        middle_mean([])


@pytest.mark.parametrize(("per_step", "seconds", "length"), [(1.0, 30.0, 30), (1.0, 0.0, 12), (1e-9, 60.0, 120)])
def test_the_time_says_how_many_steps_are_tried(per_step: float, seconds: float, length: int) -> None:
    """As many as fit, but never too few to tell anything, nor more than are worth it."""
    assert plan_layout(("whole",), per_step, seconds).num_steps == length


def test_due_steps_are_those_within() -> None:
    """Multiples above the first and below the last, counted by hand."""
    for every, first, last in itertools.product((1, 3, 7, 100), (0, 1, 6, 7), (7, 8, 21, 22)):
        assert count_due(every, first, last) == len([s for s in range(first + 1, last) if s % every == 0])
    assert count_occasions(500, 100, 250, 0, 600) == Occasions(previews=1, evaluations=5, checkpoints=2)


@pytest.mark.parametrize("start", [0, 3, 10, 12])
@pytest.mark.parametrize("warmup", [0, 2, 20])
@pytest.mark.parametrize("first", [0, 4])
def test_parts_are_those_of_the_schedule(start: int, warmup: int, first: int) -> None:
    """Each step lies in the part in which the schedule that training follows has it."""
    schedule, last = AdversarialSchedule(AdversarialPlan(start=start, warmup=warmup)), 10
    expected: dict[Part, int] = {"before": 0, "warm-up": 0, "whole": 0}
    for step in range(first, last):
        part: Part = "whole" if schedule.share(step) > 0 else "warm-up" if schedule.has_begun(step) else "before"
        expected[part] += 1

    assert split_parts(start, warmup, first, last) == {part: n for part, n in expected.items() if n}


def test_a_stage_without_a_discriminator_has_one_part() -> None:
    """All of it lies before an entry that never comes."""
    assert split_parts(None, 5, 2, 10) == {"before": 8}


def test_everything_is_added_up() -> None:
    """Set-up, steps, what happens once in a while, and the end, each counted once."""
    timings = Timings(step=STEP, setup=3.0, end=9.0, preview=4.0, first_preview=5.0, evaluation=0.5, checkpoint=0.25)
    steps: dict[Part, int] = {"before": 100, "warm-up": 10, "whole": 20}

    with_all = spend(timings, steps, Occasions(previews=2, evaluations=6, checkpoints=4))

    assert with_all == 3.0 + 100.0 + 15.0 + 40.0 + 5.0 + 8.0 + 3.0 + 1.0 + 9.0
    assert spend(timings, steps, Occasions()) == 3.0 + 155.0 + 9.0
    assert mean_rate(timings, steps) == 130 / 155.0
    assert mean_rate(timings, {}) is None


def test_smaller_batches_are_continued_in_a_straight_line() -> None:
    """Steps and memory of 16 from those of 2 and 4; of one batch alone the steps in proportion; a line never falls."""
    small, large = Probe(2, {"whole": 1.0}, 300), Probe(4, {"whole": 1.5}, 400)

    two = extrapolate([Probe(1, {"whole": 9.0}, 1), small, large], 16)
    one = extrapolate([large], 16)

    assert (two.step, two.memory, two.tried, two.is_whole) == ({"whole": 4.5}, 1000, (2, 4), False)
    assert (one.step, one.memory, one.tried) == ({"whole": 6.0}, None, (4,))
    assert line_through((1.0, 5.0), (2.0, 4.0), 10.0) == 4.0


@pytest.mark.parametrize("tried", [(), (1, 4)])
def test_what_was_not_measured_follows_from_the_step(tried: tuple[int, ...]) -> None:
    """A third of a step is its forward pass; where the real batch was tried, only the end was not measured."""
    timings = Timings(step={"before": 1.0, "whole": 6.0}, preview=0.5, evaluation=0.25, tried=tried, is_whole=False)

    derive_passes(timings, 4, previewed=8, evaluated=64, ending=100)

    assert timings.end == 50.0
    assert (timings.preview, timings.evaluation) == ((4.0, 32.0) if tried else (0.5, 0.25))
