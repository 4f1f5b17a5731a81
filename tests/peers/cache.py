"""Latents: what encoding and reading cost, and whether training waits for them."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from statistics import median

import numpy as np
import torch

from latentart.data.latent_cache import LatentCache
from latentart.planning.rates import ROUNDS, Copy, seconds_of
from latentart.process.devices import Placement
from latentart.training.encode import encode
from latentart.training.train_ldm import train_ldm
from latentart.training.train_vae import train_vae
from latentart.workspace.clean_data import clean_data
from latentart.workspace.demo import PICTURES_PER_STYLE, QUICK, draw_raw
from latentart.workspace.init import init_workspace
from peers.figures import Figure
from peers.limits import time_in_turns

BYTES_PER_NUMBER = 2  # as latents are stored


def bench_cache(folder: Path, steps: int, placement: Placement) -> Iterator[Figure]:
    """Encode the demo's pictures with the demo's small autoencoder, read the cache, and train on it for a while."""
    settings = [*QUICK, f"ldm.training.steps={steps}", "ldm.training.run.log_every=10"]
    workspace = init_workspace(folder / "work", "demo", None, settings)
    draw_raw(workspace, pictures_per_style=PICTURES_PER_STYLE)
    clean_data(workspace, quiet=True)
    train_vae(workspace, "all", placement, quiet=True)
    seconds = seconds_of(lambda: encode(workspace, placement, quiet=True))
    cache = LatentCache.open(encode(workspace, placement, quiet=True))
    encoded = len(cache) * cache.num_variants / seconds
    value = f"{encoded:.0f} images/s at {workspace.config.ldm.training.resolution} px"
    yield Figure("encoding on the fly", value, number=encoded, unit="images/s")
    read, limit = reading_and_copy_rate(cache)
    yield Figure("reading cached latents", f"{read:.0f} images/s", number=read, unit="images/s")
    share = read * BYTES_PER_NUMBER * math.prod(cache.layout.shape[1:]) / limit
    value = f"{share:.1%} of {limit / 1e9:.1f} GB/s"
    yield Figure("reading, share of the copy rate", value, number=share, numbers={"B/s": limit})
    ratio = read / encoded
    yield Figure("reading over encoding", f"{ratio:.0f} times", ratio)
    train_ldm(workspace, placement, quiet=True)
    lines = map(json.loads, (workspace.ldm_run / "metrics.jsonl").read_text().splitlines())
    shares = [
        line["data_share"] for line in lines if "data_share" in line and line["step"] > 10
    ]  # the first batches are waited for
    share = sum(shares) / len(shares)
    yield Figure("share of an LDM step spent waiting for data", f"{share:.2%}", share)


def reading_and_copy_rate(cache: LatentCache, batch_size: int = 256) -> tuple[float, float]:
    """Return images read and bytes copied a second, measured in turns."""
    rng = np.random.default_rng(0)
    batches = [rng.integers(0, len(cache), batch_size).tolist() for _ in range(50)]
    variants = [0] * batch_size
    cache.read(batches[0], variants)
    copy = Copy(torch.device("cpu"))
    reading, copying = time_in_turns([lambda: [cache.read(indexes, variants) for indexes in batches], copy], ROUNDS)
    return len(batches) * batch_size / median(reading), copy.rate(copying)
