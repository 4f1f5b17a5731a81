"""Where and in which type the networks run."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn

from latentart.errors import ResourceError
from latentart.kinds import Precision
from latentart.process.distributed import read_ranks

logger = logging.getLogger(__name__)


def choose_device(name: str | None = None) -> torch.device:
    """Return the named device, else the first CUDA device, else Apple's, else the CPU.

    Of the processes that `torchrun` starts each takes the CUDA device of its own number.

    Raises:
        ResourceError: there is no such device.
    """
    ranks = read_ranks()
    if ranks.world_size > 1 and name in (None, "cuda") and torch.cuda.is_available():
        name = f"cuda:{ranks.local_rank}"
    if name is None:
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:  # torch's own words list two dozen kinds
        msg = f"the device '{name}' cannot be used: there is none of that name."
        raise ResourceError(
            msg, "Give cpu, cuda, cuda:1 or mps; `latentart doctor` lists those of this machine."
        ) from None
    try:
        torch.zeros(1, device=device).item()  # reading it back tells a device without memory
    except (RuntimeError, AssertionError, NotImplementedError, ImportError) as error:
        logger.debug("%s", error)
        msg = f"the device '{name}' cannot be used: PyTorch finds none that answers."
        raise ResourceError(
            msg, "`latentart doctor` lists the devices that can; `latentart -v` and the rest say PyTorch's words."
        ) from None
    return device


def resolve_precision(precision: Precision, device: torch.device) -> Literal["fp32", "bf16"]:
    """Return the type to run in: ``auto`` takes bf16 only where the device has instructions for it.

    Without them a CPU emulates bf16, some ten times slower than float32.
    """
    if precision != "auto":
        return precision
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    if device.type != "cpu":
        return "fp32"
    capabilities = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    return "bf16" if capabilities.get("avx512_bf16") or capabilities.get("amx_bf16") else "fp32"


class Placement:
    """A device, a type and a memory layout: where a network goes and what its forward pass runs under."""

    def __init__(self, device: torch.device, precision: Precision = "auto") -> None:
        self.device = device
        self.precision = resolve_precision(precision, device)

    @property
    def layout(self) -> torch.memory_format:
        """How maps lie in memory: channels last on GPUs and for a CPU's bf16, whose convolutions want it."""
        lies_last = self.device.type == "cuda" or (self.device.type == "cpu" and self.precision == "bf16")
        return torch.channels_last if lies_last else torch.contiguous_format

    def place(self, network: nn.Module) -> nn.Module:
        """Move a network to the device, in the layout that its convolutions want."""
        return network.to(self.device, memory_format=self.layout)  # type: ignore[call-overload]

    def send(self, tensor: Tensor) -> Tensor:
        """Copy a CPU tensor to the device; to a GPU from pinned memory, so that the copy runs beside other work."""
        if self.device.type == "cuda":
            return tensor.pin_memory().to(self.device, non_blocking=True)
        return tensor.to(self.device)

    def autocast(self) -> contextlib.AbstractContextManager[object]:
        """Return the context that the forward pass and the losses run in; weights stay float32."""
        if self.precision == "fp32":
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, dtype=torch.bfloat16)

    def running(self, network: Callable[..., Tensor]) -> Callable[..., Tensor]:
        """Return a forward pass that runs under ``autocast``, in whichever thread it is called."""

        def forward(*tensors: Tensor) -> Tensor:
            with self.autocast():
                return network(*tensors)

        return forward
