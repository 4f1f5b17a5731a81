"""`latentart encode`: the latent cache that the denoiser trains on; made when missing, whole or gone on with.

Launch: ``latentart encode``, or ``torchrun --nproc-per-node N -m latentart encode`` for a share to each process.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from latentart.builders import build_cache_crops
from latentart.core.latents import LatentNormalizer
from latentart.core.pixels import to_images
from latentart.data.datasets import PictureDataset, max_broken, too_many_broken
from latentart.data.index import index_fingerprint
from latentart.data.latent_cache import (
    CACHE_FILE,
    CacheLayout,
    LatentCache,
    cache_key,
    complete_cache,
    discard_shards,
    is_complete,
    survey,
    write_shards,
)
from latentart.data.loading import choose_workers, load_batches, prefetch
from latentart.errors import DataError, LatentArtError
from latentart.layout import Workspace
from latentart.model.folder import Model, load_autoencoder, save_model, weights_hash
from latentart.process.devices import Placement
from latentart.process.distributed import Ranks, join_ranks, read_ranks, wait_for_all
from latentart.process.lanes import Lanes
from latentart.process.progress import Progress
from latentart.storage.folders import read_json, remove_leftovers
from latentart.storage.whole import require_folders

logger = logging.getLogger(__name__)

ENCODE_BATCH = 32


def encode(workspace: Workspace, placement: Placement, *, quiet: bool = False) -> Path:
    """Bring the latent cache up to date and return its folder; under `torchrun` every process takes a share.

    The latent statistics of the whole set go into the autoencoder's model folder.

    Raises:
        ModelError: there is no trained autoencoder.
        DataError: there are no clean pictures, or more than 1 % of them are gone.
        ResourceError: the disk does not take it, or another process has ended.
    """
    ranks = read_ranks()
    with join_ranks(ranks, placement.device):
        encoding = Encoding(workspace, placement)
        if ranks.is_first:
            require_folders(workspace.cache, encoding.folder)
            encoding.prepare()
        wait_for_all()
        if not is_complete(encoding.folder):
            encoding.encode_share(ranks, quiet=quiet or not ranks.is_first)
        wait_for_all()
        if ranks.is_first:
            encoding.complete()
        wait_for_all()
    return encoding.folder


@dataclass(frozen=True)
class CacheSource:
    """Everything that a cache's moments depend on; another of any of these is another cache.

    Attributes:
        autoencoder: SHA-256 of its weights. pictures: fingerprint of the index.
        crops, seed: how many random crops there are beside the middle, and what they follow from.
    """

    autoencoder: str
    pictures: str
    resolution: int
    flip: bool
    crops: int
    seed: int
    dtype: str

    def changes_since(self, older: Mapping[str, Any]) -> list[str]:
        """Say in words how this differs from what an older cache was made from."""
        changed = {name: value for name, value in asdict(self).items() if value != older.get(name)}
        return [
            f"the {name} changed"
            if name in ("autoencoder", "pictures")
            else f"{name} was {older.get(name)} and is {value}"
            for name, value in changed.items()
        ]


class Encoding:
    """The pictures, the autoencoder and the cache that the one becomes through the other."""

    def __init__(self, workspace: Workspace, placement: Placement) -> None:
        entries, style_names = workspace.read_pictures()
        config, data = workspace.config, workspace.config.data
        self.workspace, self.placement, self.flip = workspace, placement, data.flip
        self.model = load_autoencoder(workspace, placement)
        workspace.require_resolution(self.model.autoencoder.factor)
        crops = build_cache_crops(config.ldm.training.resolution, data, config.seed)
        self.dataset = PictureDataset(workspace.data, entries, style_names, crops, memory_bytes=0)
        self.source = CacheSource(
            weights_hash(workspace.vae_run / "model"),
            index_fingerprint(entries),
            config.ldm.training.resolution,
            data.flip,
            data.cache_crops,
            config.seed if data.cache_crops else 0,
            data.cache_dtype,
        )
        self.folder = workspace.cache / f"latents-{cache_key(asdict(self.source))}"
        autoencoder, variants = self.model.autoencoder, len(crops.crops) * (1 + data.flip)
        side = config.ldm.training.resolution // autoencoder.factor
        shape = (variants, 2 * autoencoder.latent_channels, side, side)
        self.layout = CacheLayout.plan(len(entries), shape, data.cache_dtype)

    def prepare(self) -> None:
        """Look at what is there: say so, and let go what has to be made again."""
        self.folder.mkdir(parents=True, exist_ok=True)
        remove_leftovers(self.folder)
        try:
            cache = LatentCache.open(self.folder, is_thorough=True)
        except DataError as error:
            cache = None
            if is_complete(self.folder):
                logger.warning("%s What is not whole is made again.", error.message)
        replaced = cache.replaced if cache else survey(self.folder, self.layout, range(self.layout.num_shards))[1]
        returned = [image for image in replaced if self._is_back(image)]
        if cache and not returned:
            logger.info("the latent cache is up to date: %s", self.folder)
            return
        if returned:
            logger.info(
                "pictures that are back since they were encoded: %d; their shards are made again", len(returned)
            )
        discard_shards(self.folder, self.layout, returned)
        for line in describe_stale(self.folder, self.source):
            logger.info("%s", line)

    def _is_back(self, image: int) -> bool:
        with contextlib.suppress(DataError):
            self.dataset.open(image)
            return True
        return False

    def encode_share(self, ranks: Ranks, *, quiet: bool) -> None:
        """Write this process's shards as far as they are missing."""
        missing, _ = survey(self.folder, self.layout, ranks.share(self.layout.num_shards), is_thorough=True)
        keys = ([(0, image) for image in images] for images in self.layout.batches(missing, ENCODE_BATCH))
        workers = choose_workers(self.workspace.config.data.workers, self.placement.device.type)
        total = sum(len(self.layout.images(shard)) for shard in missing)
        with (
            Progress("encode", total, quiet=quiet) as progress,
            contextlib.closing(prefetch(load_batches(self.dataset, keys, workers=workers))) as batches,
        ):
            encoded = ((self._encode(pixels), style_id, index) for pixels, style_id, index in batches)
            write_shards(self.folder, self.layout, missing, encoded, on_progress=progress.update)

    @torch.no_grad()
    def _encode(self, pixels: Tensor) -> Tensor:
        """Return moments ``[n, variants, 2Z, h, w]``, float32 on the CPU, of pixels ``[n, crops, 3, R, R]``."""
        lanes = Lanes.beside(self.placement.device, self.model.autoencoder)
        crops = to_images(self.placement.send(pixels)).unbind(1)
        encode = self.placement.running(self.model.autoencoder.encode)
        moments = [lanes.map(encode, view) for images in crops for view in self._views(images)]
        return torch.stack(moments, dim=1).float().cpu()

    def _views(self, images: Tensor) -> Iterator[Tensor]:
        yield images
        if self.flip:
            yield images.flip(-1)

    def complete(self) -> None:
        """Measure the whole set where that is not done yet, and keep what was found with the autoencoder.

        Raises:
            DataError: more than 1 % of the pictures are gone, all processes together.
        """
        if not is_complete(self.folder):
            _, replaced = survey(self.folder, self.layout, range(self.layout.num_shards))
            if len(replaced) > max_broken(self.layout.count):
                names = [str(self.dataset.root / self.dataset.files[image]) for image in replaced]
                raise too_many_broken(names, self.layout.count)
            complete_cache(self.folder, self.layout, asdict(self.source))
        store_statistics(self.workspace, self.model, LatentCache.open(self.folder).normalizer)


def store_statistics(workspace: Workspace, model: Model, normalizer: LatentNormalizer) -> None:
    """Put the statistics of the whole set into the autoencoder's model folder, where others are there."""
    latents = {"mean": list(normalizer.mean), "std": list(normalizer.std)}
    if model.about["latents"] != latents:
        save_model(workspace.vae_run / "model", {**model.about, "latents": latents}, {"autoencoder": model.autoencoder})


def describe_stale(folder: Path, source: CacheSource) -> list[str]:
    """Say in words why the newest other cache does not serve for this source, and what the others hold on disk."""
    others = [other for other in folder.parent.glob("latents-*") if other != folder and other.is_dir()]
    if not others:
        return []
    lines = []
    if whole := [other for other in others if is_complete(other)]:
        newest = max(whole, key=lambda other: (other / CACHE_FILE).stat().st_mtime_ns)
        changes = ""
        with contextlib.suppress(LatentArtError, LookupError, TypeError):
            changes = ", ".join(source.changes_since(read_json(newest / CACHE_FILE)["source"]))
        changes = changes or "another version of latentart made it"
        lines.append(f"the latent cache {newest.name} is out of date: {changes}")
    megabytes = sum(file.stat().st_size for other in others for file in other.iterdir()) / 1e6
    return [*lines, f"older caches in {folder.parent}: {len(others)}, {megabytes:,.1f} MB; they are safe to delete"]
