"""Processes that share one piece of work, as `torchrun` starts them: who they are, how they meet and part."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist

from latentart.errors import ResourceError, UsageError

# the one that waits has no work left, the others may have hours; torchrun ends all as soon as one fails
TIMEOUT = timedelta(hours=6)
_PLACE = ("RANK", "WORLD_SIZE", "LOCAL_RANK")
_MEETING = ("MASTER_ADDR", "MASTER_PORT")
_HINT = "Start many processes with `torchrun --nproc-per-node N -m latentart …`; for one process unset these."


@dataclass(frozen=True)
class Ranks:
    """Which process this is: number ``rank`` of ``world_size``, and ``local_rank`` of those on this machine."""

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0

    @property
    def is_first(self) -> bool:
        """Whether this is the process that speaks and that does what is done once."""
        return self.rank == 0

    def share(self, count: int) -> range:
        """Return which of ``count`` numbered pieces are this process's."""
        return range(self.rank, count, self.world_size)


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
    ranks = Ranks(*map(int, texts.values()))
    if not ranks.local_rank <= ranks.rank < ranks.world_size:
        raise UsageError(f"{shown} in the environment contradict each other.", _HINT)
    return ranks


@contextlib.contextmanager
def join_ranks(ranks: Ranks, device: torch.device) -> Iterator[None]:
    """Meet the other processes, over NCCL for CUDA devices and gloo for others, and part from them at the end.

    Raises:
        ResourceError: they do not find each other.
    """
    if ranks.world_size == 1:
        yield
        return
    on_cuda = device.type == "cuda"
    if on_cuda:
        torch.cuda.set_device(device)
    try:
        dist.init_process_group(
            "nccl" if on_cuda else "gloo",
            rank=ranks.rank,
            world_size=ranks.world_size,
            timeout=TIMEOUT,
            device_id=device if on_cuda else None,
        )
    except (RuntimeError, ValueError) as error:
        where = f"{os.environ.get('MASTER_ADDR')}:{os.environ.get('MASTER_PORT')}"
        msg = f"the {ranks.world_size} processes do not find each other at {where}: {str(error).splitlines()[0]}"
        raise ResourceError(msg) from None
    try:
        yield
    finally:
        dist.destroy_process_group()


def wait_for_all() -> None:
    """Wait until every process has come here; one that is alone does not wait.

    Raises:
        ResourceError: another process has ended.
    """
    if not dist.is_initialized():
        return
    try:
        dist.barrier()
    except RuntimeError:
        raise ResourceError("another process of this run has ended.", "What it wrote says why.") from None
