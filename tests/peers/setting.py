"""What contenders have in common: a size and what they are fed with; and weights that follow from seed 0."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

import torch
from torch import nn

ModelT = TypeVar("ModelT")


@dataclass(frozen=True)
class Setting(Generic[ModelT]):
    """A network's size, and its food: squares of ``side`` pixels or latents, so many at once."""

    name: str
    model: ModelT
    side: int
    batch_size: int


def with_seed_0(build: Callable[[], nn.Module]) -> nn.Module:
    """Return what is built, with weights of seed 0."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return build()


def count_parameters(network: nn.Module) -> int:
    """Return how many numbers a network learns."""
    return sum(parameter.numel() for parameter in network.parameters())
