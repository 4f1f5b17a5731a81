"""The one thread that owns the model: everyone has one wish at a time, and the latest replaces what came before."""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from latentart.errors import LatentArtError, ResourceError
from latentart.printable import printable

logger = logging.getLogger(__name__)

Event = dict[str, Any]
MOST_OWNERS = 32


class ReplacedError(Exception):
    """Nobody waits for what is being drawn any longer."""


@dataclass
class Job:
    """What someone waits for: ``work`` gets the job, calls ``heed`` between two steps and ``tell`` with each event.

    The last event is None.
    """

    owner: str
    work: Callable[[Job], None]
    tell: Callable[[Event | None], None]
    _is_dropped: threading.Event = field(default_factory=threading.Event)

    def drop(self) -> None:
        """Wait for it no longer."""
        self._is_dropped.set()

    def heed(self) -> None:
        """Stop if nobody waits for it.

        Raises:
            ReplacedError: so it is.
        """
        if self._is_dropped.is_set():
            raise ReplacedError


class Painter:
    """Works one job after the other, in the order of their owners, on a thread of its own."""

    def __init__(self) -> None:
        self._waiting: OrderedDict[str, Job] = OrderedDict()
        self._now: Job | None = None
        self._is_open = True
        self._change = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="painter", daemon=True)
        self._thread.start()

    def ask(self, owner: str, work: Callable[[Job], None], tell: Callable[[Event | None], None]) -> Job:
        """Put a job in the place of its owner's former one, which ends between two steps.

        Raises:
            ResourceError: too many others wait.
        """
        job = Job(owner, work, tell)
        with self._change:
            former = [self._waiting.get(owner), self._now if self._now and self._now.owner == owner else None]
            if owner not in self._waiting and len(self._waiting) >= MOST_OWNERS:
                raise ResourceError("too many windows wait for a picture.", "Close some of them.")
            self._waiting[owner] = job
            self._change.notify()
        for one in filter(None, former):
            one.drop()
            if one is former[0]:
                one.tell(None)
        return job

    def close(self, patience: float = 1.0) -> None:
        """Drop everything and wait a moment for the thread to end."""
        with self._change:
            self._is_open = False
            for job in (*self._waiting.values(), *filter(None, [self._now])):
                job.drop()
            self._change.notify()
        self._thread.join(patience)

    def _run(self) -> None:
        while True:
            with self._change:
                self._now = None
                self._change.wait_for(lambda: self._waiting or not self._is_open)
                if not self._is_open:
                    return
                _, self._now = self._waiting.popitem(last=False)
                job = self._now
            try:
                job.heed()
                job.work(job)
            except ReplacedError:
                pass
            except LatentArtError as error:
                job.tell({"error": printable(f"{error.message} {error.hint}".strip())})
            except Exception:
                logger.exception("a picture could not be drawn")
                job.tell({"error": "This could not be drawn; the terminal says why."})
            job.tell(None)
