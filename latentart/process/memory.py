"""Memory that does not suffice: what an error says of it in one line, and how small a step must be to fit."""

from __future__ import annotations

import contextlib
import gc
import re
from collections.abc import Callable, Iterator, Sequence

import torch

from latentart.errors import ResourceError

_SIZE = r"([\d.]+ (?:[KMGT]i?)?B|[\d.]+ bytes)"
_ASKED = re.compile(rf"[Tt]ried to allocate {_SIZE}")
_FREE = re.compile(rf"total capacity of {_SIZE} of which {_SIZE} is free")
_IS_DEVICE = re.compile(r"(CUDA|HIP|XPU|MPS)[^.]*out of memory|CU\w+_STATUS_ALLOC_FAILED", re.IGNORECASE)
_IS_HOST = re.compile(r"DefaultCPUAllocator|Cannot allocate memory|[Uu]nable to allocate")
_IS_SHARED = re.compile(r"\bshm\b|</?torch_|/dev/shm")
_AGAIN = "then run the same command again"
_HINTS = {
    "train ldm": f"Set ldm.training.micro_batch=auto, or ldm.training.run.recompute=true, {_AGAIN}.",
    "train vae": f"Lower the stage's batch_size, or set vae.run.recompute=true, {_AGAIN}.",
    "demo": "Lower ldm.training.batch_size, or take --device cpu.",
    "sample": "Lower sample.batch_size.",
    "encode": f"Stop what else uses the memory, or take --device cpu, {_AGAIN}.",
}


def explain_out_of_memory(error: BaseException, words: Sequence[str] = ()) -> ResourceError | None:
    """Return one line for an error of torch's, numpy's or Python's that says memory is out; None for any other.

    ``words`` are the command's: they choose which setting is to be lowered.
    """
    text = str(error)
    if isinstance(error, RuntimeError | OSError) and _IS_SHARED.search(text):
        hint = "Make it larger (of a container: --shm-size=2g), or set data.workers=1."
        return ResourceError("the shared memory, /dev/shm, is full.", hint)
    is_device = isinstance(error, torch.OutOfMemoryError) or bool(_IS_DEVICE.search(text))
    is_host = isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and bool(_IS_HOST.search(text)))
    if not is_device and not is_host:
        return None
    asked, free = _ASKED.search(text), _FREE.search(text)
    parts = [f"{_readable(asked[1])} were asked for"] if asked else []
    parts += [f"{free[2]} of {free[1]} were free"] if free else []
    where = "the GPU's memory" if is_device else "the memory"
    return ResourceError(f"{where} is full{': ' * bool(parts)}{', '.join(parts)}.", _hint(words, is_device=is_device))


@contextlib.contextmanager
def explaining_memory(hint: str | None = None) -> Iterator[None]:
    """Let memory that is full be a known error, with a hint of its own where one is given.

    Raises:
        ResourceError: it is full.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        explained = explain_out_of_memory(error)
        if explained is None:
            raise
        raise (explained if hint is None else ResourceError(explained.message, hint)) from error


def naming_stage(stage: str) -> contextlib.AbstractContextManager[None]:
    """Say of memory that is full in a stage of the autoencoder what to lower there."""
    return explaining_memory(f"Lower vae.stages.{stage}.batch_size, or set vae.run.recompute=true, {_AGAIN}.")


def _hint(words: Sequence[str], *, is_device: bool) -> str:
    commands = [word for word in words if not word.startswith("-") and "=" not in word]
    for name, hint in _HINTS.items():
        if commands[: len(name.split())] == name.split():
            return hint
    if is_device or not commands:
        return "Stop what else uses the memory, or take --device cpu."
    return f"Stop what else uses the memory, {_AGAIN}."  # not every command takes a device


def _readable(size: str) -> str:
    """Return a size as torch writes it; the allocator of the CPU writes bytes."""
    number, unit = size.split()
    if unit != "bytes":
        return size
    for unit, scale in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if float(number) >= scale:
            return f"{float(number) / scale:.2f} {unit}"
    return f"{number} B"


def fit_micro_batch(attempt: Callable[[int], None], batch_size: int) -> int:
    """Return the largest of the whole batch, its half, its quarter … with which ``attempt`` does not run out of memory.

    Raises:
        ResourceError: one image alone is too much.
    """
    size = batch_size
    while True:
        out_of_memory = None
        try:
            attempt(size)
        except (RuntimeError, MemoryError) as error:
            out_of_memory = explain_out_of_memory(error, ("train", "ldm"))
            if out_of_memory is None:
                raise
        if out_of_memory is None:  # outside of the handler, which keeps the step's tensors alive
            return size
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        if size == 1:
            msg = f"one image alone does not fit: {out_of_memory.message}"
            raise ResourceError(msg, "Set ldm.training.run.recompute=true, or take a smaller ldm.model.")
        size = -(-size // 2)
