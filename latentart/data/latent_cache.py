"""Posterior moments of the whole set on disk, written once and read by memory map.

``cache/latents-<key>/`` holds shards of safetensors, each with the ``moments`` of its images, their ``style_id`` and
the ``index`` of the picture that each row shows, and in its header a SHA-256 over them. ``cache.json`` is written last:
its presence says that the cache is whole. The key covers everything the moments depend on, so a stale cache is simply
another folder.
"""

from __future__ import annotations

import contextlib
import hashlib
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from latentart.core.latents import LatentNormalizer, LatentStatistics
from latentart.errors import DataError, ModelError, ResourceError
from latentart.storage.checksums import key_of
from latentart.storage.json_files import read_sealed_json, seal_json, write_json_atomic
from latentart.storage.tensors import write_tensors
from latentart.storage.whole import whole_file

CACHE_FILE = "cache.json"
SHARD_IMAGES = 1024
SHARD_BYTES = 64 * 2**20
FORMAT = 3
DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16}
_STORED_AS = {"fp16": "F16", "bf16": "BF16"}
_STATISTICS_IMAGES = 64
_CHECKSUM = "sha256"


def cache_key(source: Mapping[str, Any]) -> str:
    """Return the name part of a cache: 16 hex digits over everything its moments depend on."""
    return key_of([FORMAT, source])


@dataclass(frozen=True)
class CacheLayout:
    """How ``count`` images of ``shape`` (variants, 2Z, h, w) lie in shards, ``shard_images`` in each but the last."""

    count: int
    shape: tuple[int, int, int, int]
    dtype: str
    shard_images: int

    @classmethod
    def plan(cls, count: int, shape: tuple[int, int, int, int], dtype: str) -> CacheLayout:
        """Return the layout of a new cache: shards of at most ``SHARD_BYTES``."""
        return cls(count, shape, dtype, max(1, min(SHARD_IMAGES, SHARD_BYTES // (2 * math.prod(shape)))))

    @property
    def num_shards(self) -> int:
        """How many shards there are."""
        return math.ceil(self.count / self.shard_images)

    def images(self, shard: int) -> range:
        """Return the indexes of a shard's images."""
        return range(shard * self.shard_images, min((shard + 1) * self.shard_images, self.count))

    def batches(self, shards: Iterable[int], size: int) -> Iterator[list[int]]:
        """Yield the images of some shards in batches, none of which crosses from one shard into another."""
        for shard in shards:
            images = self.images(shard)
            yield from (list(images[start : start + size]) for start in range(0, len(images), size))


def shard_path(folder: Path, shard: int) -> Path:
    """Return the path of a shard."""
    return folder / f"shard-{shard:05d}.safetensors"


def is_complete(folder: Path) -> bool:
    """Tell whether a cache has been written to its end."""
    return (folder / CACHE_FILE).is_file()


def write_shards(
    folder: Path,
    layout: CacheLayout,
    shards: Iterable[int],
    encoded: Iterator[tuple[Tensor, Tensor, Tensor]],
    *,
    on_progress: Callable[[int], None],
) -> None:
    """Write shards from their batches of (moments float ``[n, variants, 2Z, h, w]``, style_id [n], index [n]).

    ``encoded`` follows ``layout.batches``; ``on_progress`` is told how many images are done.

    Raises:
        DataError: a moment is not finite, or is more than half precision holds.
        ResourceError: the disk does not take it.
    """
    total = 0
    for shard in shards:
        images = layout.images(shard)
        count, done = len(images), 0
        tensors = {
            "moments": torch.empty(count, *layout.shape, dtype=DTYPES[layout.dtype]),
            "style_id": torch.empty(count, dtype=torch.int64),
            "index": torch.empty(count, dtype=torch.int64),
        }
        while done < count:
            parts = next(encoded)
            rows = slice(done, done + len(parts[0]))
            for tensor, part in zip(tensors.values(), parts, strict=True):
                tensor[rows] = part
            require_finite(parts[0], tensors["moments"][rows], images[rows])
            done = rows.stop
            on_progress(total + done)
        total += done
        _write_shard(shard_path(folder, shard), tensors)


def require_finite(moments: Tensor, stored: Tensor, images: range) -> None:
    """Refuse moments that are not numbers, or that became infinite in the type they are stored in.

    Raises:
        DataError: as said; the message names the images.
    """
    if bool(torch.isfinite(stored).all()):
        return
    which = f"images {images[0]} to {images[-1]}"
    if bool(torch.isfinite(moments).all()):
        msg = f"the moments of {which} reach {float(moments.abs().max()):.3g}, more than fp16 holds (65504)."
        raise DataError(msg, "Set data.cache_dtype=bf16.")
    msg = f"the autoencoder gives moments that are not finite for {which}."
    raise DataError(msg, "Train it again with a lower learning rate.")


def _write_shard(path: Path, tensors: dict[str, Tensor]) -> None:
    try:
        with whole_file(path, is_durable=True) as temporary:
            write_tensors(temporary, tensors, {_CHECKSUM: _checksum(tensors)})
    except (OSError, ResourceError) as error:
        reason = error.message if isinstance(error, ResourceError) else f"Cannot write {path}: {error.strerror}."
        raise ResourceError(reason, "Make room on that disk, then run the same command again: it goes on.") from None


def survey(
    folder: Path, layout: CacheLayout, shards: Iterable[int], *, is_thorough: bool = False
) -> tuple[list[int], list[int]]:
    """Return which of the shards are missing or not whole, and which images of the others show another picture.

    With ``is_thorough`` every byte is read, and a shard with a changed one is not whole.
    """
    missing, replaced = [], []
    for shard in shards:
        try:
            index = _read_labels(folder, layout, shard)[1].tolist()
            if is_thorough:
                _require_sound(shard_path(folder, shard))
        except (OSError, SafetensorError):
            missing.append(shard)
        else:
            replaced += [wanted for wanted, given in zip(layout.images(shard), index, strict=True) if wanted != given]
    return missing, replaced


def discard_shards(folder: Path, layout: CacheLayout, images: Iterable[int]) -> None:
    """Delete the shards that hold these images, so that they are made again; the cache is no longer complete."""
    (folder / CACHE_FILE).unlink(missing_ok=True)
    for shard in {image // layout.shard_images for image in images}:
        shard_path(folder, shard).unlink(missing_ok=True)


def complete_cache(folder: Path, layout: CacheLayout, source: Mapping[str, Any]) -> None:
    """Measure all the shards, one after the other, and write ``cache.json`` with what they were made from.

    Raises:
        DataError: a shard is missing or damaged.
    """
    missing, replaced = survey(folder, layout, range(layout.num_shards))
    if missing:
        raise DataError(f"{shard_path(folder, missing[0])} is damaged.", "Run the same command again.")
    statistics = LatentStatistics()
    for shard in range(layout.num_shards):
        for part in torch.split(_map_moments(folder, shard), _STATISTICS_IMAGES):
            statistics.update(part.flatten(0, 1))
    normalizer = statistics.normalizer()
    about = {
        "format": FORMAT,
        "source": dict(source),
        "layout": asdict(layout),
        "replaced": replaced,
        "mean": list(normalizer.mean),
        "std": list(normalizer.std),
    }
    write_json_atomic(folder / CACHE_FILE, seal_json(about))


@contextlib.contextmanager
def _open_shard(path: Path) -> Iterator[Any]:
    """Open a shard; what is wrong with it is said with its name."""
    try:
        with safe_open(path, framework="pt") as file:
            yield file
    except SafetensorError as error:
        raise SafetensorError(f"{path.name}: {error}") from None


def _read_labels(folder: Path, layout: CacheLayout, shard: int) -> tuple[Tensor, Tensor]:
    """Return a shard's style_id and index without reading its moments; opening compares its size to its header.

    Raises:
        OSError, SafetensorError: it is not there, torn, or not of this layout.
    """
    path, count = shard_path(folder, shard), len(layout.images(shard))
    with _open_shard(path) as file:
        moments = file.get_slice("moments")
        found = [moments.get_dtype(), *moments.get_shape()]
        style_id, index = file.get_tensor("style_id"), file.get_tensor("index")
    if found != [_STORED_AS[layout.dtype], count, *layout.shape] or not len(style_id) == len(index) == count:
        raise SafetensorError(f"{path.name} holds {found}")
    return style_id, index


def _checksum(tensors: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for _, tensor in sorted(tensors.items()):
        digest.update(tensor.view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _require_sound(path: Path) -> None:
    """Compare a shard's tensors to the checksum in its header.

    Raises:
        OSError, SafetensorError: it is not there, or changed.
    """
    with _open_shard(path) as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - the file is no mapping
        expected = (file.metadata() or {}).get(_CHECKSUM)
    if _checksum(tensors) != expected:
        raise SafetensorError(f"{path.name}: its checksum (SHA-256) does not match")


def _map_moments(folder: Path, shard: int) -> Tensor:
    with _open_shard(shard_path(folder, shard)) as file:
        return file.get_tensor("moments")


class LatentCache:
    """A complete cache, open for reading; only the rows that are asked for come into memory.

    ``replaced`` are the images that show another picture, because their own was gone.
    """

    def __init__(self, folder: Path, about: Mapping[str, Any]) -> None:
        self.folder, self.replaced = folder, list(about["replaced"])
        self.layout = CacheLayout(**{**about["layout"], "shape": tuple(about["layout"]["shape"])})
        self.normalizer = LatentNormalizer(tuple(about["mean"]), tuple(about["std"]))
        shards = range(self.layout.num_shards)
        self.style_id = torch.cat([_read_labels(folder, self.layout, shard)[0] for shard in shards])
        self._mapped: dict[int, np.ndarray[Any, np.dtype[np.int16]]] = {}

    @classmethod
    def open(cls, folder: Path, *, is_thorough: bool = False) -> LatentCache:
        """Check every shard of a complete cache and read its labels; moments are mapped when they are asked for.

        With ``is_thorough`` every byte is read and compared to the shards' checksums.

        Raises:
            DataError: it is damaged.
        """
        try:
            cache = cls(folder, read_sealed_json(folder / CACHE_FILE))
            for shard in range(cache.layout.num_shards if is_thorough else 0):
                _require_sound(shard_path(folder, shard))
            return cache
        except (OSError, SafetensorError, ModelError, LookupError, TypeError, ValueError, ArithmeticError) as error:
            raise _damaged(folder, error) from None

    def __getstate__(self) -> dict[str, Any]:
        """Leave the mapped shards out: a worker process maps its own."""
        return {**self.__dict__, "_mapped": {}}

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.style_id)

    def scale_as(self, latents: Mapping[str, Any]) -> None:
        """Take other statistics of the latents than its own, as model.json has them."""
        self.normalizer = LatentNormalizer(tuple(latents["mean"]), tuple(latents["std"]))

    @property
    def num_variants(self) -> int:
        """How many latents each image has: its crops, each plain and, where that is wanted, mirrored."""
        return self.layout.shape[0]

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """(Z, h, w)."""
        _, channels, height, width = self.layout.shape
        return channels // 2, height, width

    def read(self, indexes: Sequence[int], variants: Sequence[int]) -> Tensor:
        """Return moments ``[n, 2Z, h, w]``, float32, of those images in those variants.

        Raises:
            DataError: a shard has gone or broken since the cache was opened.
        """
        rows = np.empty((len(indexes), *self.layout.shape[1:]), dtype=np.int16)
        for row, index, variant in zip(rows, indexes, variants, strict=True):
            shard, place = divmod(index, self.layout.shard_images)
            row[...] = self._moments(shard)[place, variant]
        return torch.from_numpy(rows).view(DTYPES[self.layout.dtype]).float()

    def _moments(self, shard: int) -> np.ndarray[Any, np.dtype[np.int16]]:
        """Map a shard: no file stays open. As 16-bit integers, for numpy copies rows faster and has no bf16."""
        if shard not in self._mapped:
            try:
                self._mapped[shard] = _map_moments(self.folder, shard).view(torch.int16).numpy()
            except (OSError, SafetensorError) as error:
                raise _damaged(self.folder, error) from None
        return self._mapped[shard]


def _damaged(folder: Path, error: Exception) -> DataError:
    return DataError(f"the latent cache at {folder} is damaged ({error}).", "Run `latentart encode`: it mends it.")
