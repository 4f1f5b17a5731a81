"""The autoencoder's stages in their order: which are to be trained, which are done, which one goes on from which."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol, TypeVar

from latentart.errors import ModelError, UsageError, nearest
from latentart.model.folder import trained_steps
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
