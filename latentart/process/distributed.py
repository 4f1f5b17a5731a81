"""Processes that share one piece of work, as `torchrun` starts them: who they are, how they meet and part."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import partial

import torch
import torch.distributed as dist

from latentart.errors import ConfigError, ResourceError, StoppedBySignal, UsageError, listed
from latentart.process.last_words import first_to_end
from latentart.process.meeting import Company
from latentart.process.signals import ENDING, ToldToEnd, end_as_it_is, noticing_at_once, raising_when_told

logger = logging.getLogger(__name__)

# the one that waits has no work left, the others may have hours; torchrun ends all as soon as one fails
TIMEOUT = timedelta(hours=6)
_HELD_UP_AFTER = 12.0  # seconds; torchrun kills 30 s after it has told to end
_PLACE = ("RANK", "WORLD_SIZE", "LOCAL_RANK")
_MEETING = ("MASTER_ADDR", "MASTER_PORT")
_HINT = "Start many processes with `torchrun --nproc-per-node N -m latentart …`; for one process unset these."


@dataclass(frozen=True)
class Ranks:
    """Which process this is: number ``rank`` of ``world_size``, on its machine ``local_rank`` of ``local_size``."""

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0
    local_size: int = 1

    @property
    def is_alone(self) -> bool:
        """Whether there is no other process, so that nobody is met."""
        return self.world_size == 1

    @property
    def is_first(self) -> bool:
        """Whether this is the process that speaks and that does what is done once."""
        return self.rank == 0

    def share(self, count: int) -> range:
        """Return which of ``count`` numbered pieces are this process's."""
        return range(self.rank, count, self.world_size)

    def part(self, count: int) -> slice:
        """Return which of ``count`` pieces in a row are this process's: one stretch, and all stretches in order."""
        return slice(self.rank * count // self.world_size, (self.rank + 1) * count // self.world_size)

    def share_batch(self, batch_size: int, setting: str) -> int:
        """Return how many images of a batch are this process's.

        Raises:
            ConfigError: the processes cannot have equal parts, as the mean of their means would need.
        """
        if batch_size % self.world_size:
            msg = f"{setting}={batch_size} cannot be shared evenly by {self.world_size} processes."
            raise ConfigError(msg, f"It is the batch of all of them together: take a multiple of {self.world_size}.")
        return batch_size // self.world_size


ALONE = Ranks()


def read_ranks(environment: Mapping[str, str] | None = None) -> Ranks:
    """Return this process's place from the variables `torchrun` sets; without them it is alone.

    Raises:
        UsageError: some are missing, or they contradict each other.
    """
    given = os.environ if environment is None else environment
    if not any(name in given for name in _PLACE):
        return Ranks()
    alone = given.get("WORLD_SIZE", "1") == "1"
    missing = [name for name in (_PLACE if alone else _PLACE + _MEETING) if name not in given]
    if missing:
        there = ", ".join(name for name in _PLACE if name in given)
        raise UsageError(f"{there} is set in the environment, but not {', '.join(missing)}.", _HINT)
    texts = {name: given[name] for name in _PLACE}
    shown = ", ".join(f"{name}={text!r}" for name, text in texts.items())
    if not all(text.isdecimal() for text in texts.values()):
        raise UsageError(f"{shown} in the environment are not whole numbers.", _HINT)
    local_size = given.get("LOCAL_WORLD_SIZE", "")
    rank, world_size, local_rank = map(int, texts.values())
    ranks = Ranks(rank, world_size, local_rank, max(1, int(local_size)) if local_size.isdecimal() else 1)
    if not ranks.local_rank <= ranks.rank < ranks.world_size:
        raise UsageError(f"{shown} in the environment contradict each other.", _HINT)
    return ranks


@contextlib.contextmanager
def join_ranks(ranks: Ranks, device: torch.device) -> Iterator[None]:
    """Meet the other processes and part from them at the end; one that is alone, or has met them already, just goes on.

    What lies on CUDA devices is exchanged over NCCL, everything else over gloo, so that who waits for another on the
    CPU sees at once when it ends. All but the first keep their notes to themselves, but for those on data.

    Raises:
        ResourceError: they do not find each other, or another has ended.
    """
    if ranks.is_alone or dist.is_initialized():
        yield
        return
    with raising_when_told():
        company = Company(ranks.rank, ranks.world_size)
        is_over = threading.Event()
        with noticing_at_once(partial(_speak_if_held_up, company, is_over)):
            try:
                _connect(company, device)
                with contextlib.nullcontext() if ranks.is_first else _quietly():
                    yield
                    wait_for_all()
            except BaseException as error:
                end_as_it_is()
                lost = _part(error, company)
                if lost is None:
                    raise
                raise lost from None
            finally:
                if dist.is_initialized():
                    dist.destroy_process_group()
                is_over.set()


def _connect(company: Company, device: torch.device) -> None:
    on_cuda = device.type == "cuda"
    if on_cuda:
        torch.cuda.set_device(device)
    try:
        dist.init_process_group(
            "cpu:gloo,cuda:nccl" if on_cuda else "gloo",
            store=company.store,
            rank=company.rank,
            world_size=company.world_size,
            timeout=TIMEOUT,
            device_id=device if on_cuda else None,
        )
    except (RuntimeError, ValueError) as error:
        msg = f"the {company.world_size} processes cannot reach each other: {str(error).splitlines()[0]}"
        raise ResourceError(msg) from None


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """Leave it to the first process to say what all of them find; what is wrong with data only its reader knows."""
    package, data = logging.getLogger("latentart"), logging.getLogger("latentart.data")
    levels = package.level, data.level
    package.setLevel(logging.ERROR)
    data.setLevel(logging.WARNING)
    try:
        yield
    finally:
        package.setLevel(levels[0])
        data.setLevel(levels[1])


def _part(error: BaseException, company: Company) -> ResourceError | None:
    """Say first that this process ends, so that the others, who see the line go dead, know that the word is spoken.

    Return what to say where it ends because another has ended.
    """
    if isinstance(error, StoppedBySignal):  # all end so, and the first one to be gone has the others told to end
        with contextlib.suppress(RuntimeError):
            wait_for_all()
    is_echo = isinstance(error, RuntimeError) and _tells_of_another(error)
    lost = company.lost() if is_echo or isinstance(error, ToldToEnd) else []
    if is_echo or lost:
        first_to_end(ResourceError.exit_code, is_echo=not lost)
        others = {*range(company.world_size)} - {company.rank}
        return _another_has_ended(lost or [*others][: len(others) == 1], company.world_size)
    first_to_end(_code_of(error))
    return None


def _code_of(error: BaseException) -> int:
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return ResourceError.exit_code
    if isinstance(error, KeyboardInterrupt):
        return 128 + signal.SIGINT
    return int(getattr(error, "exit_code", 1))


def _tells_of_another(error: RuntimeError) -> bool:
    """Tell whether an error is what a process meets whose partner is gone."""
    text = str(error)
    return isinstance(error, dist.DistError) or any(sign in text for sign in ("gloo", "NCCL", "Connection closed"))


def _another_has_ended(lost: Sequence[int], world_size: int) -> ResourceError:
    names = f": rank {listed(list(map(str, lost)), 9)} of {world_size}" if lost else ""
    msg = f"another process of this run has ended{names}."
    reason = "If it wrote no reason, it was killed, as the system does where memory is short."
    return ResourceError(msg, f"{reason} Saved checkpoints are kept: run the same command again to go on.")


def _speak_if_held_up(company: Company, is_over: threading.Event, number: int) -> None:
    """Say in place of a main thread that a call holds up why the run ends, as `torchrun` soon kills what is left."""
    if number not in ENDING or is_over.wait(_HELD_UP_AFTER):
        return
    lost = company.lost()
    if lost and first_to_end(ResourceError.exit_code)[0]:
        logger.error("error: %s", _another_has_ended(lost, company.world_size))
        os._exit(ResourceError.exit_code)


def wait_for_all() -> None:
    """Wait until every process has come here; one that is alone does not wait."""
    if dist.is_initialized():
        dist.all_reduce(torch.zeros(()))  # on the CPU, where one that has ended is seen at once
