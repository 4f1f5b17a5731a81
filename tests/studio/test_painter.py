"""One thread draws: the latest wish of each window wins, and another window's stays."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from queue import Queue
from typing import Any

import pytest

from latentart.errors import ResourceError, UsageError
from latentart.studio.painter import MOST_OWNERS, Job, Painter

PATIENCE = 10


@pytest.fixture
def painter() -> Iterator[Painter]:
    """Start one, and end it."""
    painter = Painter()
    yield painter
    painter.close()


class Window:
    """Someone who asks and hears."""

    def __init__(self, painter: Painter, owner: str) -> None:
        self.painter, self.owner = painter, owner

    def ask(self, work: Callable[[Job], None]) -> Queue[Any]:
        """Ask, and return what is then heard."""
        heard: Queue[Any] = Queue()
        self.painter.ask(self.owner, work, heard.put)
        return heard


def all_of(heard: Queue[Any]) -> list[Any]:
    """Return the events up to the end."""
    return list(iter(lambda: heard.get(timeout=PATIENCE), None))


def test_the_latest_wish_replaces_the_one_before_it_between_two_steps(painter: Painter) -> None:
    """What is being drawn stops at its next step, what waits is never begun, and both end."""
    window, begun, asked, steps = Window(painter, "a"), threading.Event(), threading.Event(), []

    def long(job: Job) -> None:
        begun.set()
        asked.wait(PATIENCE)
        for step in range(100):
            steps.append(step)
            job.heed()

    first = window.ask(long)
    assert begun.wait(PATIENCE)
    second = window.ask(lambda job: job.tell({"drawn": 2}))
    third = window.ask(lambda job: job.tell({"drawn": 3}))
    asked.set()

    assert [all_of(heard) for heard in (first, second, third)] == [[], [], [{"drawn": 3}]]
    assert steps == [0]


def test_two_windows_do_not_replace_each_other(painter: Painter) -> None:
    """Each gets its own."""
    held = threading.Event()
    heard = [Window(painter, "a").ask(lambda job: (held.wait(PATIENCE), job.heed(), job.tell({"is": "a"}))[-1])]
    heard += [Window(painter, name).ask(lambda job: job.tell({"is": job.owner})) for name in "bc"]
    held.set()

    assert [all_of(one) for one in heard] == [[{"is": name}] for name in "abc"]


def test_errors_are_told_and_the_thread_goes_on(painter: Painter, caplog: pytest.LogCaptureFixture) -> None:
    """A known one by its sentence, a bug of ours without its words, which go to the log."""

    def known(_: Job) -> None:
        raise UsageError("no style 'x\x1b[31m'.", "Take another.")

    def bug(_: Job) -> None:
        raise ZeroDivisionError("a secret")

    window = Window(painter, "a")
    assert all_of(window.ask(known)) == [{"error": r"no style 'x\x1b[31m'. Take another."}]
    (told,) = all_of(window.ask(bug))
    assert "secret" not in told["error"]
    assert "a secret" in caplog.text
    assert all_of(window.ask(lambda job: job.tell({}))) == [{}]


def test_not_everyone_may_wait(painter: Painter) -> None:
    """Beyond so many windows a wish is refused, and no list grows."""
    held, begun = threading.Event(), threading.Event()

    def hold(_: Job) -> None:
        begun.set()
        held.wait(PATIENCE)

    Window(painter, "first").ask(hold)
    assert begun.wait(PATIENCE)
    for number in range(MOST_OWNERS - 1):
        Window(painter, f"w{number}").ask(lambda _: None)
    Window(painter, "last").ask(lambda _: None)
    with pytest.raises(ResourceError, match="windows"):
        Window(painter, "too late").ask(lambda _: None)
    held.set()
