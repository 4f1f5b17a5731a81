"""How the processes of one piece of work find each other, and which of them is gone later."""

from __future__ import annotations

import logging
import os
import socket
import time
from collections.abc import Callable, Sequence
from datetime import timedelta
from functools import cache
from itertools import count

from torch.distributed import PrefixStore, TCPStore  # type: ignore[attr-defined]

from latentart.errors import ResourceError, StoppedBySignal, UsageError, listed
from latentart.process.signals import ToldToEnd
from latentart.storage.whole import is_alive

logger = logging.getLogger(__name__)

PATIENCE = "LATENTART_MEETING_MINUTES"  # of the environment: how long all may take to come; 10 without it
_TOLD_AFTER = 10.0  # seconds
_REAPED_WITHIN = 1.0  # seconds in which the system ends a process whose line is dead
_meetings = count()


class Company:
    """The processes of a run, who have met through ``store``; it knows on which machine each runs, and as what."""

    def __init__(self, rank: int, world_size: int) -> None:
        """Wait until all have come; who waits for long says so.

        Raises:
            ResourceError: some do not come, or there is no such address.
        """
        self.rank, self.world_size = rank, world_size
        try:
            server = _server(rank, os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]))
            self.store = PrefixStore(f"latentart {restart()} {next(_meetings)}", server)
            self.store.set(str(rank), f"{os.getpid()} {socket.gethostname()}")
            names = [str(one) for one in range(world_size)]
            _wait(
                rank,
                lambda: self.store.check(names),
                lambda: [i for i in range(world_size) if not self.store.check([str(i)])],
            )
        except (RuntimeError, ValueError, TypeError, OverflowError) as error:
            reason = "there is no such port" if isinstance(error, (TypeError, OverflowError)) else error
            msg = f"the {world_size} processes do not find each other at {where()}: {str(reason).splitlines()[0]}"
            raise ResourceError(msg) from None
        self._places = [self.store.get(one).decode().split(" ", 1) for one in names]

    def lost(self) -> list[int]:
        """Return which of the processes on this machine have ended, after a moment in which one that ends is gone."""
        here, until = self._places[self.rank][1], time.monotonic() + _REAPED_WITHIN
        pids = {rank: int(pid) for rank, (pid, machine) in enumerate(self._places) if machine == here}
        while True:
            gone = [rank for rank, pid in pids.items() if not is_alive(pid)]
            if gone or time.monotonic() > until:
                return gone
            time.sleep(0.02)


def where() -> str:
    """Return the address at which the processes meet."""
    return f"{os.environ.get('MASTER_ADDR')}:{os.environ.get('MASTER_PORT')}"


def restart() -> str:
    """Return which attempt of the launcher's this is."""
    return os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")


def has_agent() -> bool:
    """Tell whether the `torchrun` that started the processes lends them its store, which outlives them."""
    return os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"


@cache  # one that serves has to outlive the meeting
def _server(rank: int, host: str, port: int) -> TCPStore:
    """Return the store at the address: that of `torchrun`, or without it that of the first process."""
    is_master = rank == 0 and not has_agent()
    if not is_master:
        _wait(rank, lambda: _answers(host, port), lambda: [0])
    return TCPStore(host, port, is_master=is_master, wait_for_workers=False, timeout=timedelta(minutes=1))


def _answers(host: str, port: int) -> bool:
    """Tell whether somebody answers; torch's own waiting cannot be interrupted, and writes a trace for each try."""
    try:
        socket.create_connection((host, port), timeout=1).close()
    except OSError:
        return False
    return True


def _wait(rank: int, is_there: Callable[[], bool], missing: Callable[[], Sequence[int]]) -> None:
    """Wait for what others do, as long as the environment grants; of those that wait the first says so."""
    minutes, began, is_told = _patience(), time.monotonic(), False
    try:
        while not is_there():
            waited = time.monotonic() - began
            if waited > 60 * minutes:
                msg = f"the processes do not find each other at {where()}: {_named(missing())} has not come."
                hint = f"Start all of them, or unset WORLD_SIZE for one alone. {PATIENCE}=60 waits for an hour."
                raise ResourceError(msg, hint)
            if waited > _TOLD_AFTER and not is_told:
                is_told, absent = True, missing()
                if set(range(rank)) <= set(absent):
                    told = (_named([rank]), where(), _named(absent), minutes)
                    logger.warning("%s waits at %s for %s, %g minutes at most", *told)
            time.sleep(0.05)
    except ToldToEnd as told_to:
        msg = f"stopped by a signal while {_named([rank])} waited at {where()} for {_named(missing())}."
        raise StoppedBySignal(msg, told_to.number) from None


def _patience() -> float:
    text = os.environ.get(PATIENCE, "10")
    try:
        return float(text)
    except ValueError:
        raise UsageError(f"{PATIENCE}={text!r} in the environment is no number.", "Give minutes, as 60.") from None


def _named(ranks: Sequence[int]) -> str:
    """Return ranks in words."""
    return f"rank {listed([str(rank) for rank in ranks], 9)} of {os.environ.get('WORLD_SIZE')}"
