"""Everything random in a run, as a pure function of (seed, purpose, counters): no global generator, no state.

So a resumed run needs only its step, and what a sample gets does not depend on batch, worker or process.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor, nn


def seed_for(seed: int, purpose: str, *counters: int) -> int:
    """Return a seed in [0, 2^63) that is unrelated for every other (seed, purpose, counters)."""
    key = repr((int(seed), str(purpose), *map(int, counters))).encode()
    return int.from_bytes(hashlib.blake2b(key, digest_size=8).digest(), "big") >> 1


def generator_for(seed: int, purpose: str, *counters: int) -> torch.Generator:
    """Return a new CPU generator seeded by ``seed_for``; torch uses the lower 32 bits of that seed."""
    return torch.Generator().manual_seed(seed_for(seed, purpose, *counters))


def normal_for(seed: int, purpose: str, samples: Sequence[int], shape: tuple[int, ...], *counters: int) -> Tensor:
    """Draw standard normal noise [n, *shape], float32 on the CPU; row i depends on ``samples[i]`` alone."""
    noise = torch.empty(len(samples), *shape)
    generator = torch.Generator()
    for row, sample in zip(noise, samples, strict=True):
        row.normal_(generator=generator.manual_seed(seed_for(seed, purpose, sample, *counters)))
    return noise


def uniform_for(seed: int, purpose: str, samples: Sequence[int], *counters: int) -> Tensor:
    """Draw one uniform number in [0, 1) per sample: [n] float64 of 53 bits, row i from ``samples[i]`` alone.

    Keep it in float64 while comparing or scaling: rounded to float32 it can become 1.
    """
    values = [(seed_for(seed, purpose, sample, *counters) >> 10) * 2.0**-53 for sample in samples]
    return torch.tensor(values, dtype=torch.float64)


def seed_dropout(network: nn.Module, seed: int, step: int, part: int = 0) -> None:
    """Let what a network drops in ``step`` follow from the seed; torch draws it from its own generators.

    ``part`` tells processes apart that each have another part of the batch.
    """
    if any(isinstance(layer, nn.Dropout) and layer.p > 0 for layer in network.modules()):
        torch.manual_seed(seed_for(seed, "dropout", step, *([part] if part else [])))


def epoch_order(seed: int, epoch: int, count: int) -> Tensor:
    """Return the order of an epoch: a permutation of 0 … count-1, [count] int64."""
    return torch.randperm(count, generator=generator_for(seed, "order", epoch))


def sample_numbers(step: int, batch_size: int) -> range:
    """Return the global numbers of the samples of a step: step · batch_size + 0 … batch_size-1."""
    return range(step * batch_size, (step + 1) * batch_size)


def position(sample_number: int, count: int) -> tuple[int, int]:
    """Return (epoch, place in that epoch's order) of a global sample number.

    Raises:
        ValueError: ``count``, the number of pictures, is less than 1.
    """
    if count < 1:
        raise ValueError(f"count: got {count}, expected at least 1")
    return divmod(sample_number, count)
