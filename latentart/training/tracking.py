"""Which trackers a workspace's runs have, and what those are told of its settings."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from latentart.config.workspace import Config
from latentart.process.distributed import read_ranks
from latentart.training.survival.resuming import READ, Kind
from latentart.training.trackers import TensorBoard, Tracker, Trackers, WeightsAndBiases

PLACES = ("raw", "root", "labels")  # of the group data


def open_trackers(run: Path, config: Config, kind: Kind) -> Trackers:
    """Return what the config asks for, of the first process only; nothing is opened before the training begins."""
    wanted = config.tracking
    build: dict[str, Callable[[], Tracker]] = {}
    if wanted.wandb:
        build["Weights & Biases"] = partial(WeightsAndBiases, run, wanted.project, tracked_settings(config, kind))
    if wanted.tensorboard:
        build["TensorBoard"] = partial(TensorBoard, run / "tensorboard")
    return Trackers(build if read_ranks().is_first else {})


def tracked_settings(config: Config, kind: Kind) -> dict[str, Any]:
    """Return the settings that a run is trained by, without any place on this machine."""
    tree = config.to_json()
    settings: dict[str, Any] = {"preset": tree["preset"]} | {name: tree[name] for name in READ[kind]}
    settings["data"] = {name: value for name, value in settings["data"].items() if name not in PLACES}
    if "vae" in settings:
        perceptual = {**settings["vae"]["perceptual"], "weights": None}
        settings["vae"] = {**settings["vae"], "perceptual": perceptual}
    return settings
