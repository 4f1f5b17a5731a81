"""The autoencoder's stages in their order: which are to be trained, which are done, which one goes on from which."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol, TypeVar

from latentart.core.networks.autoencoder import Autoencoder
from latentart.errors import ConfigError, ModelError, UsageError, nearest
from latentart.layout import Workspace
from latentart.model.folder import autoencoder_config, load_autoencoder, trained_steps
from latentart.process.devices import Placement
from latentart.storage.checkpoints import Checkpoint


class Stage(Protocol):
    """One of several that follow each other."""

    @property
    def name(self) -> str:
        """What it is called."""
        ...

    @property
    def new_cycle_at(self) -> int:
        """The step of its own at which its learning rate begins anew, 0 for none."""
        ...


class Tunable(Stage, Protocol):
    """One that may go on from an autoencoder of others."""

    @property
    def resolution(self) -> int:
        """Side of its pictures, in pixels."""
        ...

    @property
    def trainable(self) -> str | None:
        """What of the network trains, None where nobody said so."""
        ...


AStage = TypeVar("AStage", bound=Stage)


def choose_stages(stages: Sequence[AStage], name: str) -> list[AStage]:
    """Return the stage of that name, or every stage for ``all``.

    Raises:
        UsageError: no such stage; the nearest is offered.
    """
    chosen = [stage for stage in stages if name in ("all", stage.name)]
    if not chosen:
        known = [stage.name for stage in stages] + ["all"]
        msg = f"there is no stage '{name}'.{nearest(name, known)}"
        raise UsageError(msg, f"Stages: {', '.join(known)}.")
    return chosen


def former_stage(stages: Sequence[AStage], stage: Stage) -> AStage | None:
    """Return the stage that one goes on from, None for the first."""
    place = [other.name for other in stages].index(stage.name)
    return stages[place - 1] if place else None


def stages_done(checkpoint: Checkpoint | None) -> dict[str, int]:
    """Return the finished stages and the run's step at the end of each."""
    return dict(checkpoint.state["stages_done"]) if checkpoint else {}


def is_longer(stage: Stage, last: str, stage_step: int, num_steps: int) -> bool:
    """Tell whether a new cycle goes beyond the step of its own to which the stage came that a run trained ``last``."""
    return stage.name == last and stage.new_cycle_at > 0 and stage_step < num_steps


def is_done(run: Path, stage: Stage, checkpoint: Checkpoint | None, num_steps: int) -> bool:
    """Tell whether nothing is left to do of a stage that is to have ``num_steps``.

    Of the one that the run ended last it may be the model folder, or a new cycle by which it is made longer.
    """
    is_finished = stage.name in stages_done(checkpoint)
    if checkpoint is None or checkpoint.state["stage"] != stage.name:
        return is_finished
    made_longer = is_longer(stage, stage.name, checkpoint.state["stage_step"], num_steps)
    return is_finished and not made_longer and trained_steps(run / "model", "vae") == checkpoint.step


def require_former_stage(
    run: Path, stages: Sequence[Stage], stage: Stage, checkpoint: Checkpoint | None, instead: str = "`--stage all`"
) -> None:
    """Refuse a stage that would start from nothing; ``instead`` is what else there is to do.

    Raises:
        ModelError: the stage before it is not finished.
    """
    former = former_stage(stages, stage)
    if former is not None and former.name not in stages_done(checkpoint):
        msg = f"stage {stage.name} goes on from stage {former.name}, which is not finished in {run}."
        raise ModelError(msg, f"Run `latentart train vae --stage {former.name}` first, or {instead}.")


def load_pretrained(workspace: Workspace, stage: Tunable, placement: Placement) -> Autoencoder | None:
    """Return the autoencoder that was imported from diffusers, if there is one, for a stage that is to change it.

    Raises:
        ConfigError: the stage's resolution does not suit it.
        UsageError: the stage does not say what of it is to train, or there is no encoder for its decoder to go with.
    """
    name, found = f"vae.stages.{stage.name}", autoencoder_config(workspace)
    if found.kind != "diffusers":
        if stage.trainable == "decoder" and former_stage(workspace.config.vae.stages, stage) is None:
            raise UsageError(f"{name}.trainable: there is no trained encoder that the decoder could go with.")
        return None
    if stage.trainable is None:
        msg = f"the autoencoder in {workspace.vae_run / 'model'} was imported, and is left as it is."
        raise UsageError(msg, f"Go on with `latentart train ldm`, or have it tuned by {name}.trainable=decoder.")
    if stage.resolution % found.factor:
        raise ConfigError(f"{name}.resolution {stage.resolution} is no multiple of {found.factor}, as it is to be.")
    return load_autoencoder(workspace, placement).autoencoder.train().requires_grad_()
