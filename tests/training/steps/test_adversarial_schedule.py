"""When the discriminator trains and what share its term has, on scripted errors and logits."""

from __future__ import annotations

import json

import pytest
import torch

from latentart.training.steps.adversarial_schedule import AdversarialPlan, AdversarialSchedule, ramp_share
from latentart.training.steps.optim import RatePlan


def follow(schedule: AdversarialSchedule, errors: list[float], first: int = 0, gap: float | None = 1.0) -> list[str]:
    """Tell the schedule a row of steps; return all notes."""
    return [note for step, error in enumerate(errors, first) for note in schedule.observe(step, error, gap)]


def test_a_start_at_a_step_with_warm_up_and_ramp() -> None:
    """It trains from 3 on, has influence from 5 on, and its share grows in even steps to the whole."""
    schedule = AdversarialSchedule(AdversarialPlan(start=3, warmup=2, ramp=3))

    assert [schedule.trains(step) for step in range(5)] == [False, False, False, True, True]
    assert [schedule.share(step) for step in range(10)] == [0, 0, 0, 0, 0, 0.25, 0.5, 0.75, 1, 1]


def test_without_warm_up_and_ramp_it_has_its_whole_weight_at_once() -> None:
    """The seed's way."""
    schedule = AdversarialSchedule(AdversarialPlan(start=2))

    assert [schedule.share(step) for step in range(4)] == [0, 0, 1, 1]


@pytest.mark.parametrize(("since", "ramp", "share"), [(-1, 5, 0.0), (0, 0, 1.0), (0, 4, 0.2), (3, 4, 0.8), (4, 4, 1.0)])
def test_a_ramp_is_never_idle_and_ends_whole(since: int, ramp: int, share: float) -> None:
    """Its first step counts, and after ``ramp`` more it is whole."""
    assert ramp_share(since, ramp) == pytest.approx(share)


def test_a_plateau_starts_the_discriminator() -> None:
    """Two means over four steps: falling is no plateau, level is; it begins with the next step."""
    schedule = AdversarialSchedule(AdversarialPlan(start=None, warmup=1, plateau_steps=4, plateau_gain=0.02))

    falling = follow(schedule, [1.0] * 4 + [0.9] * 4 + [0.85] * 4)
    before = schedule.trains(12)
    level = follow(schedule, [0.84] * 4, first=12)

    assert falling == []
    assert not before
    window = "0.8400 over the last 4 steps, 0.8500 over those before"
    assert level == [f"the reconstruction error is on a plateau ({window}): the discriminator begins"]
    assert [schedule.trains(15), schedule.trains(16)] == [False, True]
    assert [schedule.share(16), schedule.share(17)] == [0.0, 1.0]


def test_an_error_that_rises_pauses_the_term_until_it_is_back() -> None:
    """Above 10 % it pauses, the discriminator goes on; within 5 % it comes back with its ramp."""
    schedule = AdversarialSchedule(AdversarialPlan(tolerance=0.1, window=1, ramp=1))
    follow(schedule, [1.0, 1.0, 1.09])

    risen = follow(schedule, [1.11], first=3)
    shares = [schedule.share(4)]
    still = follow(schedule, [1.07], first=4)
    back = follow(schedule, [1.04], first=5)
    shares += [schedule.share(6), schedule.share(7)]

    assert risen == ["the adversarial term is paused: the reconstruction error rose to 1.1100 from 1.0000"]
    assert still == []
    assert schedule.trains(4)
    assert back == ["the adversarial term is taken up again: the reconstruction error is 1.0400"]
    assert shares == [0.0, 0.5, 1.0]


def test_an_error_that_stays_without_the_term_is_not_its_doing() -> None:
    """After the longest pause it comes back, and the error at hand is the new best."""
    schedule = AdversarialSchedule(AdversarialPlan(tolerance=0.1, window=1, max_pause=3))
    follow(schedule, [1.0, 1.5])

    notes = follow(schedule, [1.5] * 3, first=2)
    later = follow(schedule, [1.5] * 5, first=5)

    assert notes == ["the adversarial term is taken up again: without it the error stayed at 1.5000"]
    assert later == []
    assert schedule.share(10) == 1.0
    assert schedule.state()["num_pauses"] == 1


def test_a_rise_before_the_term_has_influence_is_not_judged() -> None:
    """In the warm-up the error may do what it likes: its best is taken from the first step with influence on."""
    schedule = AdversarialSchedule(AdversarialPlan(start=0, warmup=4, tolerance=0.1, window=1))

    assert follow(schedule, [0.1, 0.2, 0.5, 1.0, 1.0, 1.05]) == []
    assert schedule.state()["best"] == pytest.approx(1.0)


def test_noise_within_the_window_does_not_pause() -> None:
    """Single bad batches of twice the error are smoothed away."""
    schedule = AdversarialSchedule(AdversarialPlan(tolerance=0.1, window=100))

    assert follow(schedule, ([1.0] * 29 + [2.0]) * 10) == []


def test_a_discriminator_that_takes_fakes_for_real_pauses_the_term() -> None:
    """A negative gap is a wrong signal, one near 0 is none yet; a positive one brings the term back."""
    schedule = AdversarialSchedule(AdversarialPlan(window=1))
    assert follow(schedule, [1.0, 1.0], gap=-0.05) == []

    wrong = follow(schedule, [1.0], first=2, gap=-0.5)
    share = schedule.share(3)
    right = follow(schedule, [1.0], first=3, gap=0.4)

    assert wrong == ["the adversarial term is paused: the discriminator takes fakes for real (gap -0.50)"]
    assert share == 0
    assert len(right) == 1
    assert schedule.share(4) == 1


def test_a_discriminator_that_is_too_sure_waits_while_the_term_goes_on() -> None:
    """Above the gap it is held, below half of it it goes on."""
    schedule = AdversarialSchedule(AdversarialPlan(window=1, max_gap=4.0))
    follow(schedule, [1.0])

    notes = follow(schedule, [1.0], first=1, gap=4.5)
    waiting = (schedule.trains(2), schedule.has_begun(2), schedule.share(2))
    notes += follow(schedule, [1.0], first=2, gap=3.0)
    notes += follow(schedule, [1.0], first=3, gap=1.9)

    assert notes == [
        "the discriminator waits: real logits are 4.50 above fake ones",
        "the discriminator goes on: real logits are 1.90 above fake ones",
    ]
    assert waiting == (False, True, 1.0)
    assert schedule.trains(4)


def test_without_the_guard_nothing_is_paused_or_held() -> None:
    """The seed's way: what was asked for, whatever happens."""
    schedule = AdversarialSchedule(AdversarialPlan(window=1, is_guarded=False))

    assert follow(schedule, [1.0, 5.0, 50.0], gap=-9.0) + follow(schedule, [1.0], first=3, gap=99.0) == []
    assert (schedule.share(4), schedule.trains(4)) == (1.0, True)


@pytest.mark.parametrize("cut", [1, 6, 9, 14, 18])
def test_a_restored_schedule_goes_on_as_if_never_stopped(cut: int) -> None:
    """Its state goes through JSON and loses no bit, wherever the run was cut."""
    plan = AdversarialPlan(start=None, ramp=2, tolerance=0.1, window=3, plateau_steps=3, max_pause=4)
    errors = [1 / 3] * 9 + [0.3, 0.5, 0.7, 0.7, 0.7, 0.7, 0.2, 0.2, 0.2, 0.3, 0.1]
    whole, first, second = (AdversarialSchedule(plan) for _ in range(3))
    notes = follow(whole, errors)

    before = follow(first, errors[:cut])
    second.restore(json.loads(json.dumps(first.state())))
    after = follow(second, errors[cut:], first=cut)

    assert before + after == notes
    assert any("paused" in note for note in notes)
    assert second.state() == whole.state()
    assert second.share(len(errors)) == whole.share(len(errors))


def test_batch_noise_pauses_nothing_even_at_the_start_of_a_stage() -> None:
    """The best is not taken before the window is full: errors that scatter by a tenth pause in none of 40 stages."""
    for seed in range(40):
        noise = torch.randn(600, generator=torch.Generator().manual_seed(seed))
        schedule = AdversarialSchedule(AdversarialPlan())

        assert follow(schedule, (0.1 * (1 + 0.1 * noise)).tolist()) == []


def test_an_error_that_rises_with_the_learning_rate_is_not_the_terms_doing() -> None:
    """OneCycle over 700 steps raises the error by a tenth and lets it fall again: nothing pauses."""
    rates = [RatePlan(kind="onecycle", peak=1.0, total_steps=700)(step) for step in range(700)]
    schedule = AdversarialSchedule(AdversarialPlan())

    notes = [
        note for step, rate in enumerate(rates) for note in schedule.observe(step, 0.1 * (1 + 0.1 * rate), 1.0, rate)
    ]

    assert notes == []


def test_a_sudden_rise_is_seen_even_while_the_learning_rate_rises() -> None:
    """An error half as large again within a few steps pauses the term within 100."""
    schedule = AdversarialSchedule(AdversarialPlan())
    for step in range(400):
        assert schedule.observe(step, 0.1, 1.0, 1e-6 * step) == []

    notes = [note for step in range(400, 500) for note in schedule.observe(step, 0.15, 1.0, 1e-6 * step)]

    assert notes[0].startswith("the adversarial term is paused: the reconstruction error rose")


def test_a_new_discriminator_is_not_judged_by_its_first_batches() -> None:
    """A gap far on either side counts once the window is full of gaps, not before."""
    schedule = AdversarialSchedule(AdversarialPlan(window=10))

    assert follow(schedule, [1.0] * 9, gap=-3.0) == []
    assert len(follow(schedule, [1.0], first=9, gap=-3.0)) == 1


def test_a_start_that_was_changed_before_it_came_is_taken() -> None:
    """A run at step 3 of a start at 5 goes on with a start at 4; one that had begun stays begun."""
    early, late = AdversarialSchedule(AdversarialPlan(start=5)), AdversarialSchedule(AdversarialPlan(start=1))
    for schedule in (early, late):
        follow(schedule, [1.0] * 3)
    changed = AdversarialSchedule(AdversarialPlan(start=4))

    changed.restore(early.state())
    assert [changed.has_begun(step) for step in (3, 4)] == [False, True]
    changed.restore(late.state())
    assert changed.has_begun(3)
