"""How much memory this process has used at most, and how much there is left for it."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # clean-data asks for memory too, and needs no torch
    import torch
    from torch import Tensor

_UNLIMITED = 2**60  # what control groups write where there is no limit


def peak_bytes(device: torch.device) -> int | None:
    """Return the most memory that tensors held on a GPU, else that this process held; None where nobody tells."""
    if device.type == "cuda":
        import torch

        return int(torch.cuda.max_memory_allocated(device))
    if (kilobytes := read_field(Path("/proc/self/status"), "VmHWM")) is not None:
        return kilobytes * 1024
    with contextlib.suppress(ImportError):
        import resource

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024
    return None


def total_bytes() -> int | None:
    """Return how much memory this machine has; None where nobody tells."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return None


def file_bytes() -> int:
    """Return how much of this process's memory is files, as the libraries that it has loaded; 0 where nobody tells."""
    return (read_field(Path("/proc/self/status"), "RssFile") or 0) * 1024


def available_bytes(device: torch.device, root: Path = Path("/")) -> int | None:
    """Return how much memory is left: on a GPU, else as ``left_bytes`` does."""
    if device.type == "cuda":
        import torch

        return int(torch.cuda.mem_get_info(device)[0])
    return left_bytes(root)


def left_bytes(root: Path = Path("/")) -> int | None:
    """Return how much memory is left of the machine or of the container; None where nobody tells.

    ``root`` is where the system's files lie.
    """
    found = [_left_in_group(root / "sys/fs/cgroup", "memory.max", "memory.current")]
    found.append(_left_in_group(root / "sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes"))
    if (kilobytes := read_field(root / "proc/meminfo", "MemAvailable")) is not None:
        found.append(kilobytes * 1024)
    return min((left for left in found if left is not None), default=None)


def most_processes(each: int) -> int:
    """Return how many worker processes this machine bears: twice its cores, and ``each`` takes its bytes of memory."""
    left, most = left_bytes(), 2 * own_cores()
    return max(1, most if left is None else min(most, left // each))


def own_cores() -> int:
    """Return how many cores this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextlib.contextmanager
def growing_at_most(more: int) -> Iterator[None]:
    """Let this process take at most so many bytes more than it has; what asks for more gets a ``MemoryError``.

    Only Linux holds to it; elsewhere nothing is bounded.
    """
    size = read_field(Path("/proc/self/status"), "VmSize")
    if size is None:
        yield
        return
    import resource

    soft, hard = before = resource.getrlimit(resource.RLIMIT_AS)
    limits = [limit for limit in (soft, hard, size * 1024 + more) if limit != resource.RLIM_INFINITY]
    resource.setrlimit(resource.RLIMIT_AS, (min(limits), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


def _left_in_group(folder: Path, limit_name: str, usage_name: str) -> int | None:
    try:
        limit, usage = ((folder / name).read_text(encoding="ascii").strip() for name in (limit_name, usage_name))
        if limit == "max" or int(limit) >= _UNLIMITED:
            return None
        cached = read_field(folder / "memory.stat", "inactive_file") or 0  # goes when memory is asked for
        return max(0, int(limit) - int(usage) + cached)
    except (OSError, ValueError):
        return None


def read_field(path: Path, name: str) -> int | None:
    """Return the number after a name in a file of such lines."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        for line in path.read_text(encoding="utf-8").splitlines():
            words = line.replace(":", " ").split()
            if words and words[0] == name:
                return int(words[1])
    return None


def activation_bytes(forward: Callable[[], Tensor], own: Iterable[Tensor]) -> int:
    """Return the bytes that a forward pass keeps for the backward pass, beside the tensors that are there anyway.

    Memory that several of them share counts once. ``own`` are those there anyway, as weights. What is computed again
    in the backward pass is not kept, and so does not count.
    """
    import torch

    known = {tensor.untyped_storage().data_ptr() for tensor in own}
    found: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in known:
            found[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        kept = forward()  # alive until all is counted: freed memory may be handed out again
    del kept
    return sum(found.values())
