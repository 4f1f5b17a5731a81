"""The limits of one call: which is reached, and when."""

from __future__ import annotations

from latentart.process.limits import Limits


def test_no_limit_is_never_reached() -> None:
    """A call without limits trains to the end."""
    limits = Limits(clock=iter(range(10**6, 10**9, 10**6)).__next__)
    for _ in range(100):
        limits.count_step()

    assert limits.reached() is None


def test_steps_are_those_of_the_call() -> None:
    """The limit is reached with the step that makes the number full."""
    limits, seen = Limits(max_steps=3), []
    for _ in range(3):
        seen.append(limits.reached())
        limits.count_step()

    assert seen == [None, None, None]
    assert limits.reached() == "steps"


def test_time_counts_from_the_beginning_of_the_call() -> None:
    """The clock's own zero does not matter."""
    now = [1000.0]
    limits = Limits(max_seconds=60, clock=lambda: now[0])
    now[0] = 1059.9
    before = limits.reached()
    now[0] = 1060.0

    assert (before, limits.reached()) == (None, "time")
