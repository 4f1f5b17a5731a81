"""Posterior moments of the whole set on disk, written once and read by memory map.

``cache/latents-<key>/`` holds shards of safetensors and a ``cache.json`` that is written last: its presence says that
the cache is whole. The key covers everything the moments depend on, so a stale cache is simply another folder.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from latentart.core.latents import LatentNormalizer, LatentStatistics
from latentart.errors import DataError, ModelError
from latentart.training.checkpoint import read_tensors, write_tensors
from latentart.training.folders import read_json, write_json_atomic

CACHE_FILE = "cache.json"
SHARD_IMAGES = 1024
FORMAT = 1


def cache_key(autoencoder_hash: str, data_fingerprint: str, resolution: int, *, flip: bool) -> str:
    """Return the name part of a cache: 16 hex digits over everything the moments depend on."""
    content = json.dumps([FORMAT, autoencoder_hash, data_fingerprint, resolution, flip])
    return hashlib.sha256(content.encode()).hexdigest()[:16]


def write_cache(
    folder: Path,
    count: int,
    encode: Callable[[Sequence[int]], Tensor],
    style_ids: Sequence[int],
    *,
    batch_size: int,
    on_progress: Callable[[int], None],
) -> None:
    """Write what is missing of a cache of ``count`` images and then its ``cache.json``.

    ``encode`` gives moments ``[n, variants, 2Z, h, w]`` of the images with those indexes, variant 1 mirrored;
    ``on_progress`` is told how many images are done.

    Raises:
        DataError: an encoded moment is not finite.
    """
    folder.mkdir(parents=True, exist_ok=True)
    statistics = LatentStatistics()
    for number, start in enumerate(range(0, count, SHARD_IMAGES)):
        end = min(start + SHARD_IMAGES, count)
        path = shard_path(folder, number)
        if not _is_whole(path, end - start):
            parts = []
            for i in range(start, end, batch_size):
                parts.append(encode(range(i, min(i + batch_size, end))).half())
                on_progress(min(i + batch_size, end))
            moments = torch.cat(parts)
            if not bool(torch.isfinite(moments).all()):
                msg = f"the autoencoder gives moments that are not finite for images {start} to {end - 1}."
                raise DataError(msg, "Train it again with a lower learning rate.")
            temporary = path.with_suffix(".tmp")
            write_tensors(temporary, {"moments": moments, "style_id": torch.tensor(style_ids[start:end])})
            temporary.replace(path)
        statistics.update(read_tensors(path)["moments"].flatten(0, 1))
        on_progress(end)
    normalizer = statistics.normalizer()
    write_json_atomic(
        folder / CACHE_FILE,
        {"format": FORMAT, "count": count, "mean": list(normalizer.mean), "std": list(normalizer.std)},
    )


def shard_path(folder: Path, number: int) -> Path:
    """Return the path of a shard."""
    return folder / f"shard-{number:05d}.safetensors"


def is_complete(folder: Path) -> bool:
    """Tell whether a cache has been written to its end."""
    return (folder / CACHE_FILE).is_file()


def _is_whole(path: Path, count: int) -> bool:
    try:
        with safe_open(path, framework="pt") as shard:
            return bool(shard.get_slice("moments").get_shape()[0] == count)
    except (OSError, SafetensorError):
        return False


@dataclass(frozen=True)
class LatentCache:
    """A complete cache, open for reading; only the rows that are asked for come into memory."""

    moments: list[Tensor]
    style_id: Tensor
    normalizer: LatentNormalizer

    @classmethod
    def open(cls, folder: Path) -> LatentCache:
        """Map every shard of a complete cache.

        Raises:
            DataError: it is damaged.
        """
        try:
            about = read_json(folder / CACHE_FILE)
            shards = []
            for number in range(math.ceil(about["count"] / SHARD_IMAGES)):
                with safe_open(shard_path(folder, number), framework="pt") as shard:
                    shards.append((shard.get_tensor("moments"), shard.get_tensor("style_id")))
            normalizer = LatentNormalizer(tuple(about["mean"]), tuple(about["std"]))
        except (OSError, SafetensorError, ModelError, KeyError, TypeError) as error:
            msg = f"the latent cache at {folder} is damaged ({error})."
            raise DataError(msg, "Delete that folder; it is made again.") from None
        return cls([m for m, _ in shards], torch.cat([s for _, s in shards]), normalizer)

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.style_id)

    @property
    def num_variants(self) -> int:
        """1, or 2 where mirrored moments are kept too."""
        return self.moments[0].shape[1]

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """(Z, h, w)."""
        _, _, channels, height, width = self.moments[0].shape
        return channels // 2, height, width

    def read(self, indexes: Sequence[int], variants: Sequence[int]) -> Tensor:
        """Return moments ``[n, 2Z, h, w]``, float32, of those images in those variants."""
        rows = [
            self.moments[index // SHARD_IMAGES][index % SHARD_IMAGES, variant]
            for index, variant in zip(indexes, variants, strict=True)
        ]
        return torch.stack(rows).float()
