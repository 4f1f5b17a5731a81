"""The polite stop: the first signal is remembered, the second acts, and handlers are given back."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator

import pytest

from latentart.process.signals import StopSignal, leave_requests_to_main, noticing_at_once, without_harm_from_requests

STOPPING = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]


@pytest.fixture(autouse=True)
def _own_handlers() -> Iterator[None]:
    """Leave the test process's handlers as they were, and none of them deadly meanwhile."""
    before = {number: signal.signal(number, refuse) for number in STOPPING}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


class Refused(Exception):  # noqa: N818 - stands for what the process would do without us
    """The former handler ran."""


def refuse(number: int, _: object) -> None:
    """Stand for the handler that was there before."""
    raise Refused(number)


@pytest.mark.parametrize("number", STOPPING)
def test_the_first_signal_is_remembered(number: signal.Signals) -> None:
    """Nothing is interrupted; the loop can ask which one came."""
    with StopSignal() as stop:
        before = stop.received
        signal.raise_signal(number)

    assert before is None
    assert stop.received == number


def test_a_second_signal_acts_as_it_would_without_us() -> None:
    """Who presses Ctrl-C twice means it."""
    with StopSignal() as stop:
        signal.raise_signal(signal.SIGINT)
        with pytest.raises(Refused):
            signal.raise_signal(signal.SIGINT)

    assert stop.received == signal.SIGINT


def test_a_signal_that_comes_by_two_ways_counts_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A scheduler sends it to all, and torchrun hands it on; one that comes later is a second one, and acts."""
    now = [100.0]
    monkeypatch.setattr("latentart.process.signals.time.monotonic", lambda: now[0])
    with StopSignal(patience=5.0) as stop:
        signal.raise_signal(signal.SIGTERM)
        now[0] += 4.9
        signal.raise_signal(signal.SIGINT)
        assert stop.received == signal.SIGTERM
        now[0] += 0.1
        with pytest.raises(Refused):
            signal.raise_signal(signal.SIGINT)

    assert [signal.getsignal(number) for number in STOPPING] == [refuse] * 3


def test_handlers_are_given_back() -> None:
    """After the block, with or without a signal, and after an error in it."""
    with StopSignal():
        assert all(signal.getsignal(number) is not refuse for number in STOPPING)
    assert [signal.getsignal(number) for number in STOPPING] == [refuse] * 3

    with StopSignal():
        signal.raise_signal(signal.SIGTERM)
    assert [signal.getsignal(number) for number in STOPPING] == [refuse] * 3

    with pytest.raises(KeyError), StopSignal():
        raise KeyError
    assert [signal.getsignal(number) for number in STOPPING] == [refuse] * 3


def test_a_signal_that_is_ignored_stays_ignored() -> None:
    """Under nohup a closed terminal must not end the run."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)

    with StopSignal() as stop:
        signal.raise_signal(signal.SIGHUP)

    assert stop.received is None
    assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN


def test_in_another_thread_it_does_nothing() -> None:
    """Only the main thread may take signals over; in a notebook's worker training still runs."""
    seen: list[object] = []

    def work() -> None:
        with StopSignal() as stop:
            seen.extend([stop.received, signal.getsignal(signal.SIGINT)])

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()

    assert seen == [None, refuse]


def test_a_request_for_a_checkpoint_is_taken_once() -> None:
    """It stops nothing, it may come again, also after a stopping signal; then the former handler is back."""
    former = signal.signal(signal.SIGUSR1, refuse)
    try:
        with StopSignal() as stop:
            taken = [stop.take_request()]
            for number in (signal.SIGUSR1, signal.SIGUSR1, signal.SIGTERM, signal.SIGUSR1):
                signal.raise_signal(number)
                taken += [stop.take_request(), stop.take_request()]
        assert signal.getsignal(signal.SIGUSR1) is refuse
    finally:
        signal.signal(signal.SIGUSR1, former)

    assert taken == [False, True, False, True, False, False, False, True, False]
    assert stop.received == signal.SIGTERM


def test_a_request_outside_the_loop_does_no_harm() -> None:
    """By default it would end the process; within, the loop heeds it all the same."""
    former = signal.getsignal(signal.SIGUSR1)
    with without_harm_from_requests():
        signal.raise_signal(signal.SIGUSR1)
        with StopSignal() as stop:
            signal.raise_signal(signal.SIGUSR1)
            taken = stop.take_request()
        signal.raise_signal(signal.SIGUSR1)

    assert taken
    assert signal.getsignal(signal.SIGUSR1) is former


def test_processes_that_load_inherit_deafness_to_requests() -> None:
    """A scheduler sends the signal to all processes of a run; only the main one knows what to do."""
    found: list[set[int]] = []

    def load() -> None:
        leave_requests_to_main()
        found.append({int(number) for number in signal.pthread_sigmask(signal.SIG_BLOCK, [])})

    thread = threading.Thread(target=load)
    thread.start()
    thread.join()

    assert signal.SIGUSR1 in found[0]
    assert signal.SIGUSR1 not in signal.pthread_sigmask(signal.SIG_BLOCK, [])


def test_who_listens_for_signals_leaves_nothing_open() -> None:
    """The thread ends with the work, and closes its end of the line: Python warns of one that is only forgotten."""
    with noticing_at_once(lambda _: None):
        (listener,) = (thread for thread in threading.enumerate() if thread.name == "signals")

    listener.join(timeout=5)

    assert not listener.is_alive()
