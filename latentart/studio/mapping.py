"""A map of a clean set: its cached latents on the plane of their two widest directions."""

from __future__ import annotations

from pathlib import Path

import torch

from latentart.core.latents import split_moments
from latentart.core.randomness import generator_for
from latentart.data.latent_cache import CACHE_FILE, LatentCache, is_complete
from latentart.errors import DataError
from latentart.storage.json_files import read_sealed_json

BATCH = 256


def map_latents(
    cache: Path, fingerprint: str, num_pictures: int, most: int
) -> tuple[list[int], list[tuple[float, float]]]:
    """Return the rows of at most so many pictures of the index, evenly spread, and where each lies within 0…1.

    Raises:
        DataError: no cache of these pictures is complete.
    """
    found = open_cache(cache, fingerprint, num_pictures)
    rows = list(range(0, len(found), -(-len(found) // most)))
    means = []
    for start in range(0, len(rows), BATCH):
        part = rows[start : start + BATCH]
        mean, _ = split_moments(found.read(part, [0] * len(part)))
        means.append(mean.flatten(1))
    latents = torch.cat(means)
    centered = latents - latents.mean(0)
    flat = centered @ widest_directions(centered)
    low, high = flat.quantile(0.005, 0), flat.quantile(0.995, 0)
    inside = ((flat - low) / (high - low).clamp(min=1e-9)).clamp(0, 1)
    return rows, [(round(float(x), 4), round(float(y), 4)) for x, y in inside]


def widest_directions(centered: torch.Tensor, passes: int = 12) -> torch.Tensor:
    """Return the first two principal directions ``[d, 2]`` of rows ``[n, d]`` of mean 0, by subspace iteration."""
    start = torch.randn(centered.shape[1], 6, generator=generator_for(0, "map"))
    basis, _ = torch.linalg.qr(start)
    for _ in range(passes):
        basis, _ = torch.linalg.qr(centered.T @ (centered @ basis))
    _, _, turn = torch.linalg.svd(centered @ basis, full_matrices=False)
    return basis @ turn[:2].T


def open_cache(cache: Path, fingerprint: str, num_pictures: int) -> LatentCache:
    """Return the newest complete cache of the pictures of that fingerprint.

    Raises:
        DataError: there is none.
    """
    folders = sorted(cache.glob("latents-*"), key=lambda path: -path.stat().st_mtime)
    for folder in filter(is_complete, folders):
        source = read_sealed_json(folder / CACHE_FILE).get("source")
        if isinstance(source, dict) and source.get("pictures") == fingerprint:
            found = LatentCache.open(folder)
            if len(found) == num_pictures:
                return found
    raise DataError(f"there is no latent cache of these pictures in {cache}.", "Run `latentart encode`.")
