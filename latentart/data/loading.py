"""Batches in an order that is a function of the step alone, read ahead of the step: no state, any number of workers."""

from __future__ import annotations

import abc
import atexit
import contextlib
import functools
import itertools
import logging
import os
import queue
import signal
import threading
from collections.abc import Generator, Iterable, Iterator, Sequence
from multiprocessing import connection, resource_tracker
from typing import Any, TypeVar

import torch
from torch import Tensor

from latentart.core.randomness import epoch_order, position, sample_numbers, seed_for
from latentart.data.datasets import PictureDataset, max_broken, too_many_broken
from latentart.errors import DataError, ResourceError
from latentart.printable import printable
from latentart.process.distributed import read_ranks
from latentart.process.host_memory import most_processes, own_cores
from latentart.process.scripts import missing_guard

logger = logging.getLogger(__name__)

Key = tuple[int, int]
Batch = tuple[Tensor, Tensor, Tensor]
Item = TypeVar("Item")

LOST = (
    "a process that loads data was ended from outside, most often for lack of memory.",
    "Set data.workers=1, or make more memory (also /dev/shm) free.",
)
ENDING = 5.0  # seconds that the end of a process may take on a busy machine
LOADER_BYTES = 3 * 10**8  # of a process that loads, with its own copy of the libraries
_NAMES = ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1")
PARENTS_SIGNALS = [getattr(signal, name) for name in _NAMES if hasattr(signal, name)]


class SampleOrder(torch.utils.data.Sampler[list[Key]], abc.ABC):
    """The keys ``(epoch, index)`` of every batch from ``first_step`` to ``last_step``."""

    def __init__(self, batch_size: int, first_step: int, last_step: int) -> None:
        self.batch_size, self.first_step, self.last_step = batch_size, first_step, last_step

    @abc.abstractmethod
    def key(self, number: int) -> Key:
        """Return the key of a sample, counted from the start of the run."""

    def keys(self, step: int) -> list[Key]:
        """Return the keys of one step's batch."""
        return [self.key(number) for number in sample_numbers(step, self.batch_size)]

    def __len__(self) -> int:
        """Return the number of batches."""
        return self.last_step - self.first_step

    def __iter__(self) -> Iterator[list[Key]]:
        """Yield the keys of every batch."""
        return (self.keys(step) for step in range(self.first_step, self.last_step))


class StepOrder(SampleOrder):
    """Every picture once before any is seen twice.

    Sample number ``step · batch_size + i`` has a place in an epoch, and that epoch's permutation gives its picture.
    """

    def __init__(self, seed: int, count: int, batch_size: int, first_step: int, last_step: int) -> None:
        super().__init__(batch_size, first_step, last_step)
        self.count = count
        self._order = functools.lru_cache(maxsize=2)(lambda epoch: epoch_order(seed, epoch, count).tolist())

    def key(self, number: int) -> Key:
        """Return the key of a sample."""
        epoch, place = position(number, self.count)
        return epoch, self._order(epoch)[place]


class BalancedOrder(SampleOrder):
    """Every style equally often, and within a style every picture once before any is seen twice.

    Each block of as many samples as there are styles visits every style once, in an order of its own; visit ``v`` of
    a style with n pictures takes place ``v mod n`` of the style's permutation number ``v div n``, which is the epoch.
    """

    def __init__(self, seed: int, style_ids: Sequence[int], batch_size: int, first_step: int, last_step: int) -> None:
        super().__init__(batch_size, first_step, last_step)
        by_style: dict[int, list[int]] = {}
        for index, style_id in enumerate(style_ids):
            by_style.setdefault(style_id, []).append(index)
        self._pictures = [by_style[style_id] for style_id in sorted(by_style)]
        self._styles = functools.lru_cache(maxsize=2)(
            lambda visit: epoch_order(seed_for(seed, "styles"), visit, len(by_style)).tolist()
        )
        self._order = functools.lru_cache(maxsize=2 * len(by_style))(
            lambda style, epoch: epoch_order(seed_for(seed, "style", style), epoch, len(self._pictures[style])).tolist()
        )

    def key(self, number: int) -> Key:
        """Return the key of a sample."""
        visit, place = position(number, len(self._pictures))
        style = self._styles(visit)[place]
        epoch, place = position(visit, len(self._pictures[style]))
        return epoch, self._pictures[style][self._order(style, epoch)[place]]


def build_order(
    seed: int, style_ids: Sequence[int], batch_size: int, first_step: int, last_step: int, *, is_balanced: bool
) -> SampleOrder:
    """Return the order of a training over pictures of these styles."""
    if is_balanced:
        return BalancedOrder(seed, style_ids, batch_size, first_step, last_step)
    return StepOrder(seed, len(style_ids), batch_size, first_step, last_step)


def choose_workers(asked: int, device_type: str, at_most: int = 8) -> int:
    """Return how many processes load: those asked for, else one per core beside a GPU; a CPU has none to spare.

    No more than the machine bears. Processes that `torchrun` starts on one machine have its cores together.
    """
    if asked or device_type == "cpu":
        return min(asked, most_processes(LOADER_BYTES))
    return min(at_most, max(1, own_cores() // read_ranks().local_size))


def load_batches(dataset: PictureDataset, order: Iterable[list[Key]], *, workers: int = 0) -> Iterator[Batch]:
    """Yield (pixels uint8 ``[B, 3, R, R]``, style_id [B], index [B]) for every batch of the order.

    A picture that is gone or broken since it was cleaned is named once in a warning; another takes its place.

    Raises:
        DataError: more than 1 % of the pictures are gone or broken.
        ResourceError: a worker process was ended from outside.
    """
    mine, theirs = itertools.tee(order)
    broken = BrokenPictures(dataset)
    batches = _draw(torch.utils.data.DataLoader(dataset, batch_sampler=theirs, **_settings(workers)))
    for keys, (pixels, style_id, index) in zip(mine, batches, strict=True):
        broken.note([wanted for _, wanted in keys], index.tolist())
        yield pixels, style_id, index


def load_items(dataset: torch.utils.data.Dataset[Item], keys: Iterable[object], *, workers: int = 0) -> Iterator[Item]:
    """Yield ``dataset[key]`` for every key, in their order.

    Raises:
        DataError: what the dataset raises.
        ResourceError: a worker process was ended from outside.
    """
    return _draw(torch.utils.data.DataLoader(dataset, batch_size=None, sampler=keys, **_settings(workers)))


def _settings(workers: int) -> dict[str, Any]:
    generator = torch.Generator()  # otherwise the loader draws from torch's global one
    if not workers:
        return {"generator": generator}
    processes = {"num_workers": workers, "multiprocessing_context": "spawn", "worker_init_fn": _start_worker}
    return {"generator": generator, **processes}


def _draw(loader: Iterable[Item]) -> Iterator[Item]:
    with _one_line_errors():
        with _signals_held_back():
            items = iter(loader)
        try:
            yield from items
        except (EOFError, OSError, RuntimeError):  # of what a process was sending that is about to be gone
            ends = [process.sentinel for process in getattr(items, "_workers", ())]
            if ends and connection.wait(ends, ENDING):
                raise _lost() from None
            raise
        finally:  # an error's traceback keeps the loader alive, and the garbage collector ends it in 5 s a process
            getattr(items, "_shutdown_workers", lambda: None)()


class BrokenPictures:
    """Names and counts the pictures that another took the place of."""

    def __init__(self, dataset: PictureDataset) -> None:
        self.dataset = dataset
        self.found: dict[int, str] = {}

    def note(self, wanted: Sequence[int], given: Sequence[int]) -> None:
        """Take note of a batch's indexes: those asked for and those that came.

        Raises:
            DataError: more than 1 % of the pictures are gone or broken.
        """
        count = len(self.dataset)
        for first, last in zip(wanted, given, strict=True):
            for index in ((first + i) % count for i in range((last - first) % count)):
                if index not in self.found:
                    self.found[index] = str(self.dataset.root / self.dataset.files[index])
                    logger.warning(
                        "%s is gone or broken since it was cleaned; another takes its place (%d of %d so far).",
                        printable(self.found[index]),
                        len(self.found),
                        count,
                    )
        if len(self.found) > max_broken(count):
            raise too_many_broken(list(self.found.values()), count)


def prefetch(items: Generator[Item] | Iterator[Item], depth: int = 2) -> Generator[Item]:
    """Yield the items of an iterator, which a thread draws up to ``depth`` ahead.

    What the iterator raises is raised here, in its turn. Closed early, the thread ends with the item it is at.
    """
    ready: queue.SimpleQueue[tuple[Item, None] | tuple[None, BaseException]] = queue.SimpleQueue()
    room, is_stopped = threading.Semaphore(depth), threading.Event()

    def draw() -> None:
        try:
            while room.acquire() and not is_stopped.is_set():
                ready.put((next(items), None))
        except BaseException as error:  # StopIteration too: it ends the other side in its turn
            ready.put((None, error))

    thread = threading.Thread(target=draw, name="prefetch", daemon=True)
    thread.start()
    try:
        while True:
            item, error = ready.get()
            if isinstance(error, StopIteration):
                return
            if error is not None:
                raise error
            room.release()
            yield item  # type: ignore[misc]
    finally:
        is_stopped.set()
        room.release()
        thread.join()
        if isinstance(items, Generator):
            items.close()


def _start_worker(_number: int) -> None:
    """Leave Ctrl-C and a scheduler's stop to the parent, which saves first; keep this process's part of memory."""
    atexit.register(os._exit, 0)  # Python's own end aborts while another thread is still inside torch
    if hasattr(signal, "sigwaitinfo"):
        threading.Thread(target=_end_with_parent, daemon=True).start()
    else:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    info = torch.utils.data.get_worker_info()
    assert info is not None
    if isinstance(info.dataset, PictureDataset):
        info.dataset.share_memory(info.num_workers)


def _end_with_parent() -> None:
    """Heed the parent's own request to end, which is the same signal as a scheduler's to all processes of a run."""
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != os.getppid():
        pass
    os._exit(0)


@contextlib.contextmanager
def _signals_held_back() -> Iterator[None]:
    """Start processes that no signal meant for the parent ends, from their first moment: they inherit the mask."""
    if not hasattr(signal, "sigwaitinfo"):  # macOS, Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, PARENTS_SIGNALS)
    try:
        resource_tracker.ensure_running()  # it inherits the mask too, but its start takes a part of it from us
        signal.pthread_sigmask(signal.SIG_BLOCK, PARENTS_SIGNALS)
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextlib.contextmanager
def _one_line_errors() -> Iterator[None]:
    """Take torch's words and the worker's traceback away from around a known error."""
    try:
        yield
    except DataError as error:
        message = error.message.rpartition("DataError: ")[2].strip()
        raise DataError(message, error.hint) from None
    except RuntimeError as error:
        if "DataLoader worker (pid" not in str(error):
            raise
        raise _lost() from None


def _lost() -> ResourceError:
    guard = missing_guard()
    return ResourceError("a process that loads data cannot begin.", guard) if guard else ResourceError(*LOST)
