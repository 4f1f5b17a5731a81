"""The samples that a denoiser is judged by: drawn in shards, so that memory is bounded and a stopped call goes on.

runs/ldm/evaluations/<key>/shard-00000/samples.safetensors: small copies of the pictures, and Inception's features.
Sample i is of style ``i mod K`` and of seed ``seed + i div K``; it is the same whatever is drawn beside it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from latentart.errors import ModelError
from latentart.model.generate import SamplerSettings
from latentart.process.distributed import Ranks
from latentart.process.progress import Progress
from latentart.sampling.blends import Blend, labels_of
from latentart.sampling.sample import Studio
from latentart.sampling.settings import NOT_DESCRIBED
from latentart.scoring.metrics.judge import shrink
from latentart.storage.checksums import key_of
from latentart.storage.folders import commit_folder, discard_folder, verify_folder
from latentart.storage.tensors import read_tensors, write_tensors

VERSION = 1
SHARD = 64


@dataclass(frozen=True, kw_only=True)
class SampleSet:
    """So many samples of each style, by one model and one way of drawing.

    Attributes:
        hashes: SHA-256 of each weights file.
        precision: the type the networks ran in. has_inception: whether FID's features are kept.
    """

    parent: Path
    styles: tuple[str, ...]
    per_style: int
    seed: int
    settings: SamplerSettings
    hashes: dict[str, str]
    precision: str
    has_inception: bool

    @property
    def total(self) -> int:
        """How many samples there are."""
        return len(self.styles) * self.per_style

    @property
    def num_shards(self) -> int:
        """How many shards they lie in."""
        return -(-self.total // SHARD)

    @property
    def folder(self) -> Path:
        """Where they lie: more samples of each style go there too, everything else has another place."""
        source = [VERSION, self.styles, self.seed, self.described, self.hashes, self.precision, self.has_inception]
        return self.parent / key_of(source)

    @property
    def described(self) -> dict[str, Any]:
        """The settings that change the pictures."""
        return {name: value for name, value in asdict(self.settings).items() if name not in NOT_DESCRIBED}

    def numbers(self, shard: int) -> range:
        """Return which samples a shard holds."""
        return range(shard * SHARD, min((shard + 1) * SHARD, self.total))

    def picture(self, number: int) -> Tensor:
        """Return the small copy of one sample, uint8 ``[3, R, R]``.

        Raises:
            ModelError: its shard is missing or damaged.
        """
        return self.require(number // SHARD)["pixels"][number % SHARD]

    def shard_folder(self, shard: int) -> Path:
        """Return a shard's folder."""
        return self.folder / f"shard-{shard:05d}"

    def style_id(self, shard: int) -> list[int]:
        """Return the place in ``styles`` of each sample of a shard."""
        return [number % len(self.styles) for number in self.numbers(shard)]

    def read(self, shard: int) -> dict[str, Tensor] | None:
        """Return a shard's samples, ``pixels`` and perhaps ``inception``; None where they are not all there."""
        folder, count = self.shard_folder(shard), len(self.numbers(shard))
        if not folder.is_dir():
            return None
        try:
            verify_folder(folder)
            tensors = read_tensors(folder / "samples.safetensors")
        except ModelError:
            return None
        if len(tensors["pixels"]) < count:
            return None
        return {name: tensor[:count] for name, tensor in tensors.items()}

    def read_all(self) -> Iterator[tuple[int, dict[str, Tensor]]]:
        """Yield every shard's number and samples.

        Raises:
            ModelError: one is missing or damaged.
        """
        for shard in range(self.num_shards):
            yield shard, self.require(shard)

    def require(self, shard: int) -> dict[str, Tensor]:
        """Return a shard's samples.

        Raises:
            ModelError: they are missing or damaged.
        """
        tensors = self.read(shard)
        if tensors is None:
            msg = f"{self.shard_folder(shard)} is missing or damaged."
            raise ModelError(msg, "Run the same command again: it is drawn anew.")
        return tensors


def draw_samples(
    samples: SampleSet, studio: Studio, inception: nn.Module | None, ranks: Ranks, *, quiet: bool = False
) -> None:
    """Draw this process's share of the shards that are not there yet; no more than one batch is in memory at once.

    Raises:
        ResourceError: the memory does not suffice for one picture, or the disk does not take it.
    """
    missing = [shard for shard in ranks.share(samples.num_shards) if samples.read(shard) is None]
    if not missing:
        return
    generator = studio.generator(compiles=samples.settings.compile)
    total, done = sum(len(samples.numbers(shard)) for shard in missing), 0
    with Progress("sample", total, quiet=quiet) as progress:
        for shard in missing:
            parts: dict[str, list[Tensor]] = {"pixels": []}
            for batch in _batches(samples.numbers(shard), samples.settings.batch_size):
                blends = [Blend(((samples.styles[number % len(samples.styles)], 1.0),)) for number in batch]
                seeds = [samples.seed + number // len(samples.styles) for number in batch]
                labels = labels_of(studio.model, studio.denoiser, blends)
                pixels = generator(labels, seeds, samples.settings)
                parts["pixels"].append(shrink(pixels))
                if inception is not None:
                    parts.setdefault("inception", []).append(inception(pixels.to(studio.placement.device)).cpu())
                done += len(batch)
                progress.update(done)
            _write_shard(samples.shard_folder(shard), parts)


def _batches(numbers: range, size: int) -> Iterator[range]:
    return (numbers[start : start + size] for start in range(0, len(numbers), size))


def _write_shard(folder: Path, parts: dict[str, list[Tensor]]) -> None:
    tensors = {name: torch.cat(found) for name, found in parts.items()}
    if folder.exists():
        discard_folder(folder)
    commit_folder(folder, lambda temporary: write_tensors(temporary / "samples.safetensors", tensors))
