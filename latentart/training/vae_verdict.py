"""The verdict on a stage of the autoencoder's run, from its losses and its error on held-out pictures."""

from __future__ import annotations

from pathlib import Path

import torch

from latentart.scoring.reconstructions import FOLLOWED_PICTURES, Evaluation
from latentart.training.log import RunLog
from latentart.training.run_verdict import RunVerdict, without_harm


class VaeVerdict:
    """Judges a stage at its previews; stages differ in their losses and their resolution, so each stands alone."""

    def __init__(self, evaluation: Evaluation, run: Path, log: RunLog, stage: str, num_steps: int) -> None:
        self.evaluation, self.stage = evaluation, stage
        self.verdict = RunVerdict(run, log, "autoencoder", num_steps)
        self._blank: float | None = None

    def say(self, step: int) -> None:
        """Judge the stage at a step of the run."""
        without_harm(lambda: self.verdict.say(step, self._measure(), stage=self.stage))

    def _measure(self) -> dict[str, float | None]:
        if self._blank is None:
            self._blank = blank_error(self.evaluation)
        return {"blank_loss": self._blank}


def blank_error(evaluation: Evaluation) -> float:
    """Return the mean absolute error of one who knows each scored picture's mean color alone, in image units."""
    errors = [
        (images - images.mean((2, 3), keepdim=True)).abs().mean((1, 2, 3)).cpu()
        for images in evaluation.images(evaluation.scored, FOLLOWED_PICTURES)
    ]
    return float(torch.cat(errors).mean())
