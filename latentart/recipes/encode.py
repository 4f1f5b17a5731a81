"""`latentart encode`: the latent cache that the denoiser trains on; made when missing, whole or gone on with."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from latentart.builders import build_crop
from latentart.core.pixels import to_images
from latentart.data.datasets import PictureDataset
from latentart.data.index import IndexEntry, index_fingerprint
from latentart.data.latent_cache import LatentCache, cache_key, is_complete, write_cache
from latentart.errors import ModelError
from latentart.recipes.model import Model, load_model, save_model, weights_hash
from latentart.recipes.workspace import Workspace
from latentart.training.devices import Placement
from latentart.training.folders import recover_folder
from latentart.training.progress import Progress

logger = logging.getLogger(__name__)

ENCODE_BATCH = 32


def encode(workspace: Workspace, placement: Placement, *, quiet: bool = False) -> Path:
    """Bring the latent cache up to date and return its folder.

    The latent statistics of the whole set go into the autoencoder's model folder.

    Raises:
        ModelError: there is no trained autoencoder.
        DataError: there are no clean pictures, or one is gone.
    """
    entries, style_names = workspace.read_pictures()
    model = load_autoencoder(workspace, placement)
    resolution, flip = workspace.config.ldm.training.resolution, workspace.config.data.flip
    key = cache_key(weights_hash(workspace.vae_run / "model"), index_fingerprint(entries), resolution, flip=flip)
    folder = workspace.cache / f"latents-{key}"
    if is_complete(folder):
        logger.info("the latent cache is up to date: %s", folder)
        return folder
    encoder = CacheEncoder(workspace, model, entries, style_names, placement)
    with Progress("encode", len(entries), quiet=quiet) as progress:
        write_cache(
            folder,
            len(entries),
            encoder,
            encoder.dataset.style_ids,
            batch_size=ENCODE_BATCH,
            on_progress=progress.update,
        )
    store_statistics(workspace, model, LatentCache.open(folder))
    return folder


def load_autoencoder(workspace: Workspace, placement: Placement) -> Model:
    """Return the workspace's autoencoder.

    Raises:
        ModelError: it is not trained yet, or damaged.
    """
    return load_model(find_autoencoder(workspace), placement)


def find_autoencoder(workspace: Workspace) -> Path:
    """Return the model folder of the workspace's autoencoder.

    Raises:
        ModelError: it is not trained yet.
    """
    folder = workspace.vae_run / "model"
    recover_folder(folder)
    if not folder.is_dir():
        msg = f"there is no trained autoencoder in {workspace.vae_run}."
        raise ModelError(msg, "Run `latentart train vae` first.")
    return folder


class CacheEncoder:
    """Gives the moments of pictures by index: plain, and mirrored where the config asks for it."""

    def __init__(
        self,
        workspace: Workspace,
        model: Model,
        entries: list[IndexEntry],
        style_names: list[str],
        placement: Placement,
    ) -> None:
        data = workspace.config.data
        crop = build_crop(workspace.config.ldm.training.resolution, data, workspace.config.seed, is_random=False)
        self.dataset = PictureDataset(workspace.data, entries, style_names, crop, memory_bytes=0)
        self.model, self.placement, self.flip = model, placement, data.flip

    @torch.no_grad()
    def __call__(self, indexes: Sequence[int]) -> Tensor:
        """Return moments ``[n, variants, 2Z, h, w]``, float32 on the CPU."""
        pixels = torch.stack([self.dataset[(0, i)][0] for i in indexes]).to(self.placement.device)
        images = to_images(pixels)
        variants = [images, images.flip(-1)] if self.flip else [images]
        with self.placement.autocast():
            moments = [self.model.autoencoder.encode(variant) for variant in variants]
        return torch.stack(moments, dim=1).float().cpu()


def store_statistics(workspace: Workspace, model: Model, cache: LatentCache) -> None:
    """Put the statistics of the whole set into the autoencoder's model folder."""
    normalizer = cache.normalizer
    about = {**model.about, "latents": {"mean": list(normalizer.mean), "std": list(normalizer.std)}}
    save_model(workspace.vae_run / "model", about, {"autoencoder": model.autoencoder})
