"""The autoencoder's stages: which are to be trained, which are done, and what each needs before it may begin."""

from __future__ import annotations

import logging
from pathlib import Path

from latentart.config.vae import StageConfig, VaeConfig
from latentart.errors import ModelError, UsageError, nearest
from latentart.layout import Workspace
from latentart.model.folder import trained_steps
from latentart.model.weights.perceptual import check_weights
from latentart.storage.checkpoints import Checkpoint

logger = logging.getLogger(__name__)


def choose_stages(workspace: Workspace, name: str) -> list[StageConfig]:
    """Return the stage of that name, or every stage for ``all``.

    Raises:
        UsageError: no such stage; the nearest is offered.
    """
    stages = list(workspace.config.vae.stages)
    chosen = [stage for stage in stages if name in ("all", stage.name)]
    if not chosen:
        known = [stage.name for stage in stages] + ["all"]
        msg = f"there is no stage '{name}'.{nearest(name, known)}"
        raise UsageError(msg, f"Stages: {', '.join(known)}.")
    return chosen


def stages_done(checkpoint: Checkpoint | None) -> dict[str, int]:
    """Return the finished stages and the run's step at the end of each."""
    return dict(checkpoint.state["stages_done"]) if checkpoint else {}


def is_model_behind(run: Path, stage: StageConfig, checkpoint: Checkpoint | None) -> bool:
    """Tell whether the run ended this stage last and was cut short before its model folder was written."""
    if checkpoint is None or checkpoint.state["stage"] != stage.name:
        return False
    return trained_steps(run / "model", "vae") != checkpoint.step


def require_former_stage(workspace: Workspace, stage: StageConfig, checkpoint: Checkpoint | None) -> None:
    """Refuse a stage that would start from nothing.

    Raises:
        ModelError: the stage before it is not finished.
    """
    former = former_stage(workspace.config.vae, stage)
    if former is not None and former.name not in stages_done(checkpoint):
        msg = f"stage {stage.name} goes on from stage {former.name}, which is not finished in {workspace.vae_run}."
        raise ModelError(msg, f"Run `latentart train vae --stage {former.name}` first, or `--stage all`.")


def former_stage(config: VaeConfig, stage: StageConfig) -> StageConfig | None:
    """Return the stage that one goes on from, None for the first."""
    place = [other.name for other in config.stages].index(stage.name)
    return config.stages[place - 1] if place else None


def require_perceptual_weights(workspace: Workspace, stages: list[StageConfig]) -> None:
    """Refuse to start where a stage, even a later one, will want LPIPS weights that are not here, or not whole.

    Raises:
        DownloadError: they are missing, cut, damaged, or another network's.
    """
    perceptual = workspace.config.vae.perceptual
    if not any(stage.weights.perceptual > 0 for stage in stages):
        return
    if perceptual.backbone == "random":
        logger.info("LPIPS runs on the 'random' backbone: untrained features, a stand-in that needs no download")
        return
    check_weights(perceptual.backbone, Path(perceptual.weights).expanduser() if perceptual.weights else None)
