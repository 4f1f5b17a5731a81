"""Numbers and gradients of all processes of a run taken together; a process that is alone keeps its own as they are.

Every process must call these in the same order. A batch's parts are equal, so the mean of means is the whole's mean.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping, Sequence

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

BUCKET = 2**23  # numbers, 32 MB: the first buckets are on their way while the next are laid out


def own_part() -> int:
    """Return which part of a batch is this process's, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def mean_of_all(tensor: Tensor) -> Tensor:
    """Return the mean over the processes of a tensor that each has, without its graph."""
    if not dist.is_initialized():
        return tensor
    total = tensor.detach().clone()
    dist.all_reduce(total)
    return total / dist.get_world_size()


def means_of_all(scalars: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the means over the processes of named scalars, in one exchange."""
    if not dist.is_initialized() or not scalars:
        return dict(scalars)
    means = mean_of_all(torch.stack([value.detach().float() for value in scalars.values()]))
    return dict(zip(scalars, means.unbind(), strict=True))


def whole_batch(part: Tensor) -> Tensor:
    """Return the batch ``[B, …]`` of which each process has an equal part ``[B / processes, …]``, in their order."""
    if not dist.is_initialized():
        return part
    parts = [torch.empty_like(part, memory_format=torch.contiguous_format) for _ in range(dist.get_world_size())]
    dist.all_gather(parts, part.detach().contiguous())
    return torch.cat(parts)


def largest_of_all(values: Sequence[int]) -> list[int]:
    """Return the largest of each of some whole numbers; exchanged on the CPU, so that no device is waited for."""
    if not dist.is_initialized():
        return list(values)
    found = torch.tensor(values, dtype=torch.int64)
    dist.all_reduce(found, dist.ReduceOp.MAX)
    return found.tolist()


def of_first(values: Sequence[int], length: int) -> list[int]:
    """Return the whole numbers of the first process, at most ``length`` of them and none below 0."""
    if not dist.is_initialized():
        return list(values)
    sent = torch.tensor([*values, *[-1] * (length - len(values))], dtype=torch.int64)
    dist.broadcast(sent, 0)
    return [value for value in sent.tolist() if value >= 0]


def collect_for_first(part: Tensor, counts: Sequence[int]) -> Tensor | None:
    """Return ``[Σ counts, …]`` to the first process: the parts ``[counts[rank], …]`` in order, all on the CPU.

    The others get None.
    """
    if not dist.is_initialized():
        return part
    if dist.get_rank():
        if len(part):
            dist.send(part.contiguous(), 0)
        return None
    parts = [part]
    for rank, count in enumerate(counts[1:], start=1):
        if count:
            parts.append(part.new_empty(count, *part.shape[1:]))
            dist.recv(parts[-1], rank)
    return torch.cat(parts)


def average_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Give every parameter the mean of the processes' gradients, in buckets; for networks that DDP does not carry.

    DDP wants one forward of the whole network before each backward. The autoencoder's encoder and decoder are called
    apart, its decoder twice with the equivariance term; the adaptive weight asks for gradients on the way
    (`torch.autograd.grad`, where DDP's hooks do not run), and the R1 penalty derives a gradient once more.
    """
    if not dist.is_initialized():
        return
    buckets: list[list[Tensor]] = []
    room = 0
    for gradient in (parameter.grad for parameter in parameters if parameter.grad is not None):
        if room < gradient.numel():
            buckets.append([])
            room = BUCKET
        buckets[-1].append(gradient)
        room -= gradient.numel()
    sent = []
    for bucket in buckets:
        flat = torch.cat([gradient.reshape(-1) for gradient in bucket])
        sent.append((bucket, flat, dist.all_reduce(flat, async_op=True)))
    for bucket, flat, work in sent:
        assert work is not None
        work.wait()
        flat /= dist.get_world_size()
        for gradient, mean in zip(bucket, torch.split(flat, [gradient.numel() for gradient in bucket]), strict=True):
            gradient.copy_(mean.view(gradient.shape))


class SharedNetwork:
    """A network whose gradients are averaged while they are made (DDP: static graph, gradients as views of buckets).

    ``call`` is what the forward pass goes through. Weights, state and averages are those of the network itself.
    """

    def __init__(self, network: nn.Module) -> None:
        self.call: nn.Module = network
        self._has_averaged = False
        if dist.is_initialized():
            self.call = DistributedDataParallel(network, static_graph=True, gradient_as_bucket_view=True)

    def accumulating(self, *, is_last: bool) -> contextlib.AbstractContextManager[None]:
        """Return what a part of a batch runs in: gradients are exchanged with the last alone.

        The very first backward is exchanged too, from which a static graph is learned; means of means are the same.
        """
        if is_last or not self._has_averaged or not isinstance(self.call, DistributedDataParallel):
            self._has_averaged = True
            return contextlib.nullcontext()
        return self.call.no_sync()
