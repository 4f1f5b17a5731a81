"""Errors of full memory in one line, and the part of a batch that has room."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from latentart.errors import ResourceError
from latentart.process.memory import explain_out_of_memory, fit_micro_batch, naming_stage

CUDA = (
    "CUDA out of memory. Tried to allocate 2.50 GiB. GPU 0 has a total capacity of 23.65 GiB of which 1.31 GiB is "
    "free. Including non-PyTorch memory, this process has 22.33 GiB memory in use. Of the allocated memory 20.00 GiB "
    "is allocated by PyTorch, and 1.5 GiB is reserved by PyTorch but unallocated."
)
MPS = (
    "MPS backend out of memory (MPS allocated: 5.05 GB, other allocations: 3.2 GB, max allowed: 9.07 GB). "
    "Tried to allocate 1.20 GB on private pool."
)


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (
            torch.OutOfMemoryError(CUDA),
            "the GPU's memory is full: 2.50 GiB were asked for, 1.31 GiB of 23.65 GiB were free.",
        ),
        (RuntimeError(MPS), "the GPU's memory is full: 1.20 GB were asked for."),
        (RuntimeError("CUDA error: out of memory"), "the GPU's memory is full."),
        (RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"), "the GPU's memory is full."),
        (MemoryError(), "the memory is full."),
        (
            RuntimeError("unable to allocate shared memory(shm) for file </torch_1_2_3>: No space left on device (28)"),
            "the shared memory, /dev/shm, is full.",
        ),
        (RuntimeError("unable to write to file </torch_9_8_7>"), "the shared memory, /dev/shm, is full."),
    ],
)
def test_what_was_asked_for_and_what_was_free_is_said(error: Exception, message: str) -> None:
    """As far as the error tells."""
    explained = explain_out_of_memory(error)

    assert explained is not None
    assert (explained.message, explained.exit_code) == (message, 5)


def test_real_errors_of_this_machine_are_known() -> None:
    """Those that torch and numpy raise for 128 TiB."""
    with pytest.raises(RuntimeError) as from_torch:
        torch.empty(2**45)
    with pytest.raises(MemoryError) as from_numpy:
        np.empty(2**45, dtype=np.float32)

    messages = [getattr(explain_out_of_memory(caught.value), "message", None) for caught in (from_torch, from_numpy)]
    assert messages[0] == "the memory is full: 131072.00 GiB were asked for."
    assert str(messages[1]).startswith("the memory is full")


@pytest.mark.parametrize("error", [RuntimeError("shapes differ"), ValueError("CUDA"), KeyError("memory")])
def test_other_errors_are_left_alone(error: Exception) -> None:
    """They are bugs of ours and keep their traceback."""
    assert explain_out_of_memory(error) is None


@pytest.mark.parametrize(
    ("words", "setting"),
    [
        (("train", "ldm", "seed=1"), "ldm.training.micro_batch"),
        (("-v", "train", "ldm"), "ldm.training.run.recompute"),
        (("train", "vae", "--stage", "l1"), "the stage's batch_size"),
        (("sample", "--style", "all"), "sample.batch_size"),
        (("encode",), "--device cpu"),
        (("demo", "--quick"), "ldm.training.batch_size"),
        (("doctor",), "uses the memory, then run"),  # it takes no device
        ((), "--device cpu"),
    ],
)
def test_the_hint_follows_from_the_command(words: tuple[str, ...], setting: str) -> None:
    """It names the setting to lower."""
    explained = explain_out_of_memory(MemoryError(), words)

    assert explained is not None
    assert setting in explained.hint


@pytest.mark.parametrize(
    ("batch_size", "room", "tried"), [(128, 128, [128]), (100, 13, [100, 50, 25, 13]), (3, 1, [3, 2, 1])]
)
def test_sizes_are_halved_until_one_fits(batch_size: int, room: int, tried: list[int]) -> None:
    """The first that raises nothing is taken."""
    seen = []

    def attempt(size: int) -> None:
        seen.append(size)
        if size > room:
            raise torch.OutOfMemoryError(CUDA)

    assert fit_micro_batch(attempt, batch_size) == room
    assert seen == tried


def test_where_nothing_fits_it_is_said() -> None:
    """One image is the least; another error is not taken for full memory."""

    def refuse(size: int) -> None:
        raise torch.OutOfMemoryError(CUDA)

    def break_down(size: int) -> None:
        assert math.isfinite(size)
        raise RuntimeError("shapes differ")

    with pytest.raises(ResourceError, match=r"one image alone does not fit: the GPU's memory is full: 2\.50 GiB"):
        fit_micro_batch(refuse, 4)
    with pytest.raises(RuntimeError, match="shapes differ"):
        fit_micro_batch(break_down, 4)


def test_a_stage_is_named() -> None:
    """The setting to lower stands there whole; another error goes through."""
    with (
        pytest.raises(ResourceError, match=r"is full.* Lower vae\.stages\.hires\.batch_size, or set"),
        naming_stage("hires"),
    ):
        raise torch.OutOfMemoryError(CUDA)
    with pytest.raises(RuntimeError, match="shapes differ"), naming_stage("hires"):
        raise RuntimeError("shapes differ")
