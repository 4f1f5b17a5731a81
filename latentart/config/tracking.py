"""Where else a run's numbers and previews go."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from latentart.config.base import StrictConfig


class TrackingConfig(StrictConfig):
    """Trackers beside the run's own log, of both trainings; one that fails is switched off and never stops a run."""

    tensorboard: bool = False
    """Whether runs write TensorBoard's files into their folder; needs latentart[tensorboard]."""

    wandb: bool = False
    """Whether runs go to Weights & Biases; needs latentart[wandb]. WANDB_MODE=offline keeps them on this machine."""

    project: Annotated[str, Field(min_length=1, max_length=128, pattern=r"^[^\x00-\x1f/\\#?%:]+$")] = "latentart"
    """The project in Weights & Biases."""
