"""Autoguidance's weak network: an early average of the run that a model comes from."""

from __future__ import annotations

import copy
from pathlib import Path

from latentart.core.networks.conditioning import Denoiser
from latentart.errors import ModelError
from latentart.model.averages import Average, list_averages, load_average
from latentart.model.folder import Model

SHARE = 0.25  # of the training; the networks of Karras et al. 2406.02507 have seen a share of 1/16 to 1/4


def choose_weak(model: Model, folder: Path, sha256: str | None = None) -> Average:
    """Return the snapshot nearest to a quarter of the training, of the widest average; or the one of that hash.

    Raises:
        ModelError: the run that the model folder lies in has none, or not that one.
    """
    run = folder.resolve().parent
    averages = list_averages(run)
    if sha256 is not None:
        found = next((average for average in averages if average.sha256 == sha256), None)
        if found is None:
            msg = f"{run} has no snapshot {sha256[:12]}…, the weak network of that picture's autoguidance."
            raise ModelError(msg, "Bring back the file in averages/ that it was drawn with.")
        return found
    trained = int(model.about["training"]["ldm"]["step"])
    early = [average for average in averages if average.step < trained]
    if not early:
        msg = f"autoguidance needs an early average of the run, and {run} has none."
        raise ModelError(msg, "Train with ldm.training.run.ema.tracks=[0.05,0.1].")
    widest = max(average.relative_std for average in early)
    return min(
        (average for average in early if average.relative_std == widest),
        key=lambda average: abs(average.step - average.start - SHARE * (trained - average.start)),
    )


def build_weak(denoiser: Denoiser, average: Average) -> Denoiser:
    """Return a network like ``denoiser`` with a snapshot's weights, on the same device.

    Raises:
        ModelError: the snapshot is missing, damaged or of another network.
    """
    weak = copy.deepcopy(denoiser)
    load_average(average, weak)
    return weak
