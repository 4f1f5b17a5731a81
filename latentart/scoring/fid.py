"""FID and KID: distances in the features of the standard Inception network, where its weights are here."""

from __future__ import annotations

import logging
from dataclasses import dataclass

import torch
from torch import Tensor

from latentart.data.index import index_fingerprint
from latentart.errors import DownloadError
from latentart.layout import Workspace
from latentart.model.weights.inception import InceptionFeatures, find_inception, load_inception
from latentart.process.devices import Placement
from latentart.scoring.judging import read_middles, spread
from latentart.scoring.kept import kept
from latentart.scoring.metrics.frechet import FeatureStatistics, frechet_distance
from latentart.scoring.metrics.kernel_distance import kernel_distance
from latentart.storage.checksums import key_of

logger = logging.getLogger(__name__)

MOST_REAL = 10_000  # pictures; more take long and change little
SUBSETS, SUBSET = 10, 1000  # of KID
AT_ONCE = 16


@dataclass(frozen=True)
class InceptionScores:
    """FID, KID with its standard error, None of too few pictures, and how many real ones they are taken against."""

    fid: float
    kid: float
    kid_error: float | None
    real_pictures: int


def load_if_there(placement: Placement, *, is_silent: bool = False) -> InceptionFeatures | None:
    """Return Inception where it is here and sound; a line says why it is not, and how to get it."""
    try:
        network = load_inception(find_inception())
    except DownloadError as error:
        if not is_silent:
            logger.info("FID and KID are left out: %s %s", error.message, error.hint)
        return None
    return network.to(placement.device)


def find_real_features(
    workspace: Workspace, inception: InceptionFeatures, placement: Placement, *, quiet: bool = False
) -> Tensor:
    """Return Inception's features ``[M, 2048]`` of the clean set's middle squares, spread over it; kept in the cache.

    Raises:
        DataError: there are no clean pictures, or more than 1 % of them are gone.
        ResourceError: the disk does not take it.
    """
    entries, names = workspace.read_pictures()
    indexes = spread(range(len(entries)), MOST_REAL)
    source = [index_fingerprint(entries), workspace.config.ldm.training.resolution, len(indexes)]
    folder = workspace.cache / f"inception-{key_of(source)}"

    def measure() -> dict[str, Tensor]:
        label = "Inception on real pictures"
        read = read_middles(workspace, entries, names, indexes, label, quiet=quiet, at_once=AT_ONCE)
        return {"features": torch.cat([inception(placement.send(pixels)).cpu() for pixels, _ in read])}

    return kept(folder, "real", lambda tensors: tensors["features"], measure)


def score_inception(real: Tensor, fake: Tensor, *, seed: int = 0) -> InceptionScores:
    """Return FID and KID of features ``[n, 2048]``; KID as the mean over subsets of at most 1,000.

    Heusel et al. 1706.08500, Bińkowski et al. 1801.01401. FID of few pictures is too high: compare only equal sizes.
    KID's error is the deviation over subsets of 1,000 too, as others give it. Of fewer than 2,000 pictures it is that
    over halves, which estimates the standard error of the whole (delete-d jackknife): larger subsets would be alike.
    Of fewer than four pictures in a set there are no halves to take it of, and no error can be told.

    Raises:
        ValueError: there are fewer than two pictures in a set.
    """
    statistics = FeatureStatistics(), FeatureStatistics()
    for one, features in zip(statistics, (real, fake), strict=True):
        one.update(features)
    size = min(SUBSET, len(real), len(fake))
    half = min(SUBSET, len(real) // 2, len(fake) // 2)
    kids = _kids(real, fake, size, seed)
    deviation = None
    if half > 1:
        deviation = float((kids if half == size else _kids(real, fake, half, seed)).std())
    return InceptionScores(frechet_distance(*statistics), float(kids.mean()), deviation, len(real))


def _kids(real: Tensor, fake: Tensor, size: int, seed: int) -> Tensor:
    """Return the kernel distances of subsets that large, float64."""
    generator = torch.Generator().manual_seed(seed)
    found = []
    for _ in range(SUBSETS):
        a, b = (features[torch.randperm(len(features), generator=generator)[:size]] for features in (real, fake))
        found.append(kernel_distance(a, b))
    return torch.tensor(found, dtype=torch.float64)
