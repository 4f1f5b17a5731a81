"""What a verdict on a run rests on, and what a verdict is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from latentart.kinds import ModelPart
from latentart.scoring.trends import Series

Kind = Literal["too_early", "learning", "finished", "stalled", "overfitting", "memorizing", "diverging"]
KINDS: tuple[Kind, ...] = get_args(Kind)


@dataclass(frozen=True)
class History:
    """What is known of a run so far: series of (step, value) by rising step; None is a number that was not finite.

    Attributes:
        num_steps: how long the run, or its present stage, is to be. begun: the step it began at.
        reached: the newest step of all, where series have but means.
        training, held_out: losses, always of the same kind. gradient_norm; skipped: updates left out so far.
        recognition: share of the samples that a judge takes for their own style. samples: how many it sees each time.
        chance, ceiling: the recognition of a guess, and of real pictures that the judge was not trained on.
        spread: distance between samples of one style, as a share of that between real pictures.
        copies: share of samples nearer to a training picture than all but 1 % of held-out pictures are.
        blank_loss: the held-out loss of one who knows nothing.
    """

    what: ModelPart
    num_steps: int
    training: Series = ()
    held_out: Series = ()
    gradient_norm: Series = ()
    skipped: Series = ()
    recognition: Series = ()
    spread: Series = ()
    copies: Series = ()
    samples: int = 0
    chance: float | None = None
    ceiling: float | None = None
    blank_loss: float | None = None
    begun: int = 0
    reached: int = 0

    @property
    def step(self) -> int:
        """Return how far the run is."""
        series = (self.training, self.held_out, self.recognition)
        return max([self.begun, self.reached, *(points[-1][0] for points in series if points)])

    @property
    def share(self) -> float:
        """Return how much of the run is over, 0…1."""
        return (self.step - self.begun) / max(self.num_steps, 1)

    @property
    def is_finished(self) -> bool:
        """Tell whether there are no steps left."""
        return self.step > self.begun and self.share >= 1


@dataclass(frozen=True)
class Verdict:
    """What is to be thought of a run: a word, what it rests on, and what to do."""

    kind: Kind
    evidence: str
    advice: str

    @property
    def is_warning(self) -> bool:
        """Tell whether something should be done."""
        return self.kind not in ("too_early", "learning", "finished")

    def __str__(self) -> str:
        """Say all three."""
        return f"{self.kind.replace('_', ' ')}: {self.evidence}. {self.advice}"
