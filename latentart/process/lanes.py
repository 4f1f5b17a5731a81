"""Lanes: the parts of a batch side by side on a CPU, each in a thread of its own.

Threads that share every operation wait for each other thousands of times a step, and small networks gain nothing from
them. Threads that share a batch meet at its end. What comes out hangs on the number of parts alone, never on which
thread was first.
"""

from __future__ import annotations

import functools
import os
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from latentart.process.reductions import mean_of_all

MOST_LANES = 4  # Python runs in one of them at a time; further cores serve the operations inside a lane

Part = TypeVar("Part")
Made = TypeVar("Made")


Mean = Callable[[Tensor], Tensor]  # of a tensor that each lane and process has


class _Meeting:
    """Where the lanes of one call lay down a tensor each, and take up their mean weighted by ``shares``."""

    def __init__(self, shares: Sequence[float]) -> None:
        self.shares, self.barrier = shares, threading.Barrier(len(shares))
        self._laid = [torch.empty(0)] * len(shares)

    def mean(self, number: int, tensor: Tensor) -> Tensor:
        self._laid[number] = tensor.detach()
        self.barrier.wait()
        mean = weighted_sum(self._laid, self.shares)
        self.barrier.wait()
        return mean


class Lanes:
    """So many threads, for networks on this machine; one is the caller's own.

    Args:
        count: the most parts of a batch.
    """

    def __init__(self, count: int = 1) -> None:
        self.count = count

    @classmethod
    def beside(cls, device: torch.device, *networks: nn.Module) -> Lanes:
        """Return as many lanes as there are threads to compute with, at most ``MOST_LANES``.

        It is one where several gain nothing or would change what is drawn: on a GPU, with a process for each part,
        with networks that are compiled, or that drop features by a generator that all lanes would share.
        """
        if device.type != "cpu" or dist.is_initialized():
            return cls(1)
        layers = (layer for network in networks for layer in network.modules())
        return cls(1 if any(map(_needs_whole, layers)) else min(MOST_LANES, torch.get_num_threads()))

    def sizes(self, size: int) -> list[int]:
        """Return the sizes of the parts of a batch, as equal as can be."""
        count = max(1, min(self.count, size))
        return [size // count + (i < size % count) for i in range(count)]

    def backward(
        self,
        work: Callable[[Part, Mean], tuple[Tensor, Made]],
        parts: Sequence[Part],
        sizes: Sequence[int],
        parameters: Iterable[nn.Parameter],
    ) -> list[Made]:
        """Do the work of all parts; add to every parameter's gradient that of the mean of their losses.

        ``work`` gets a part and how to take a mean with the others on the way; it returns the part's mean loss and what
        else is wanted of it, which comes back in the parts' order. A loss without a graph leaves gradients alone.
        """
        if len(parts) == 1:
            loss, made = work(parts[0], mean_of_all)
            if loss.requires_grad:
                torch.autograd.backward(loss)
            return [made]
        weights = [parameter for parameter in parameters if parameter.requires_grad]
        shares = [size / sum(sizes) for size in sizes]
        meeting = _Meeting(shares)

        def pass_through(number: int) -> tuple[tuple[Tensor | None, ...], Made]:
            try:
                loss, made = work(parts[number], functools.partial(meeting.mean, number))
                if not loss.requires_grad:
                    return (), made
                return torch.autograd.grad(loss * shares[number], weights, allow_unused=True), made
            except BaseException:
                meeting.barrier.abort()  # or the others would wait for this one
                raise

        done = _in_threads(pass_through, len(parts))
        for weight, *found in zip(weights, *(gradients for gradients, _ in done), strict=False):
            for gradient in found:
                if gradient is not None:
                    weight.grad = gradient if weight.grad is None else weight.grad.add_(gradient)
        return [made for _, made in done]

    def map(self, work: Callable[..., Tensor], *tensors: Tensor) -> Tensor:
        """Return ``work(*tensors)`` of a batch ``[B, …]``, put together from parts; a tensor of one row is for all."""
        size = max(map(len, tensors))
        sizes = self.sizes(size)
        if len(sizes) == 1:
            return work(*tensors)
        split = [torch.split(tensor, sizes) if len(tensor) == size else (tensor,) * len(sizes) for tensor in tensors]
        has_graph = torch.is_grad_enabled()

        def pass_through(number: int) -> Tensor:
            with torch.set_grad_enabled(has_graph):  # a thread has its own
                return work(*(parts[number] for parts in split))

        return torch.cat(_in_threads(pass_through, len(sizes)))


def _needs_whole(layer: nn.Module) -> bool:
    """Tell whether a layer is compiled, for one size of batch, or drops features by the one generator of all lanes."""
    return layer._compiled_call_impl is not None or (isinstance(layer, nn.Dropout) and layer.p > 0 and layer.training)


def weighted_sum(tensors: Sequence[Tensor], shares: Sequence[float]) -> Tensor:
    """Return ``Σ share · tensor``, always in this order."""
    total = tensors[0] * shares[0]
    for tensor, share in zip(tensors[1:], shares[1:], strict=True):
        total = total + tensor * share
    return total


def weighted_means(parts: Sequence[Mapping[str, Tensor]], sizes: Sequence[int]) -> dict[str, Tensor]:
    """Return the mean of each named scalar over parts of those sizes; of one part the scalars as they are."""
    if len(parts) == 1:
        return dict(parts[0])
    shares = [size / sum(sizes) for size in sizes]
    return {name: weighted_sum([part[name] for part in parts], shares) for name in parts[0]}


@functools.cache
def _threads(count: int, inside: int) -> tuple[ThreadPoolExecutor, threading.Lock]:
    """Return threads that stay, each with ``inside`` threads for its operations, and whose turn it is to use them.

    Two calls that had half of them each would wait for each other.
    """
    threads = ThreadPoolExecutor(count, "lane", initializer=torch.set_num_threads, initargs=(inside,))
    return threads, threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_threads.cache_clear)  # a fork leaves the threads behind


def _in_threads(work: Callable[[int], Made], count: int) -> list[Made]:
    """Return what the work of each number returns, done at once.

    The first error is raised that is not about another lane's.
    """
    threads, turn = _threads(count, max(1, torch.get_num_threads() // count))
    with turn:
        futures = [threads.submit(work, number) for number in range(count)]
        errors = [error for future in futures if (error := future.exception()) is not None]
    for error in sorted(errors, key=lambda error: isinstance(error, threading.BrokenBarrierError)):
        raise error
    return [future.result() for future in futures]
