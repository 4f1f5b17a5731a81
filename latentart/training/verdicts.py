"""The verdict on a run in training, at every preview: in its metrics, in its log, and never in its way.

What the denoiser's previews show is measured, then judged together with the losses; a stage of the autoencoder is
judged by its losses and its error on held-out pictures.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from latentart.kinds import ModelPart
from latentart.layout import Workspace
from latentart.scoring.evidence import Kind
from latentart.scoring.judging import find_judge
from latentart.scoring.metrics.judge import judge_in_batches
from latentart.scoring.metrics.memorization import CopyLimits, find_neighbors, to_thumbnails
from latentart.scoring.metrics.spread import relative_spread
from latentart.scoring.real_pictures import find_real
from latentart.scoring.run_history import RunHistory
from latentart.scoring.verdict import judge_run
from latentart.training.job import StageJob
from latentart.training.ldm_previews import PreviewPage
from latentart.training.log import RunLog

logger = logging.getLogger(__name__)

BLANK_LOSS = {"v": 1.0}  # x_t and v have no covariance at any noise level, so knowing nothing is guessing 0


class RunVerdict:
    """Judges a run by its metrics; it reads only what is new, and a resumed run goes on where it was."""

    def __init__(self, run: Path, log: RunLog, what: ModelPart, num_steps: int) -> None:
        self.log, self.num_steps = log, num_steps
        self.history = RunHistory(run, what)
        self._kind: Kind | None = None

    def say(self, step: int, measured: Mapping[str, float | None], **extra: str) -> None:
        """Write down what was measured at a step and the verdict; a line of the log says a new one, or a grave one."""
        if measured:
            self.log.metrics(step, **measured, **extra)
        self.history.read()
        if self._kind is None and self.history.said:
            self._kind = self.history.said[-1].verdict.kind
        verdict = judge_run(self.history.to_history(self.num_steps))
        self.log.metrics(step, verdict=verdict.kind, evidence=verdict.evidence, advice=verdict.advice, **extra)
        text = f"step {step}: {verdict}"
        if verdict.is_warning:
            logger.warning("%s", text)
        elif verdict.kind != self._kind:
            self.log.note(text)
        self._kind = verdict.kind


def without_harm(work: Callable[[], object], what: str = "No verdict on the run this time") -> None:
    """Do what a run can do without: whatever goes wrong in it, memory and bugs too, is a warning.

    Days of training are worth more than a verdict.
    """
    try:
        work()
    except Exception as error:
        logger.warning("%s: %s", what, str(error).strip() or type(error).__name__)


class LdmVerdict:
    """Measures the samples of a page and judges the run of ``num_steps``; what it needs is made at the first page."""

    def __init__(self, workspace: Workspace, log: RunLog, page: PreviewPage, num_steps: int) -> None:
        self.workspace, self.page = workspace, page
        self.verdict = RunVerdict(workspace.ldm_run, log, "denoiser", num_steps)
        self.is_on = workspace.config.ldm.training.run.verdict
        self._judge: PreviewJudge | None = None
        self._is_tried = False

    def say(self, step: int) -> None:
        """Judge the run by the page of a step, unless it is off or no page of that step was drawn."""
        if self.is_on and self.page.samples is not None and self.page.step == step:
            without_harm(lambda: self.verdict.say(step, self._measure()))

    def _measure(self) -> dict[str, float | None]:
        """Return what the page's samples show; what cannot be measured is left out."""
        assert self.page.samples is not None
        pixels, style_id = self.page.samples
        found: dict[str, float | None] = {"judged_samples": len(pixels)}
        if (blank := BLANK_LOSS.get(self.page.step_fn.task.target)) is not None:
            found["blank_loss"] = blank
        if not self._is_tried:
            self._is_tried = True
            without_harm(self._make_judge, "The verdict does without a judge")
        return found | (self._judge.measure(pixels, style_id) if self._judge else {})

    def _make_judge(self) -> None:
        self._judge = PreviewJudge(self.workspace, self.page.style_names)


class PreviewJudge:
    """The workspace's judge and real pictures, as in `evaluate ldm`; ``style_names`` are those of samples' ids."""

    def __init__(self, workspace: Workspace, style_names: Sequence[str]) -> None:
        self.judge = find_judge(workspace, quiet=True)
        self.real = find_real(workspace, self.judge, quiet=True)
        known = workspace.read_pictures()[1]
        self.own_ids = torch.tensor([known.index(name) if name in known else -1 for name in style_names])
        guesses = self.judge.decide(self.real.unseen.features).argmax(1)
        self.ceiling = float((guesses == self.real.unseen.style_id).double().mean())
        self.chance = 1 / len(known)
        self.limits: CopyLimits | None = None
        if len(self.real.searched) > 1:
            self.limits = CopyLimits.from_new(find_neighbors(self.real.searched, self.real.unseen_thumbnails))

    def measure(self, pixels: Tensor, style_id: Tensor) -> dict[str, float | None]:
        """Return how many samples are recognized, beside a guess and real pictures, how they differ, and copies."""
        style_id = self.own_ids[style_id]
        is_known = style_id >= 0  # a style that the set has no pictures of any more has no judge
        style_id, unseen = style_id[is_known], self.real.unseen
        features, logits = (
            torch.cat(parts) for parts in zip(*judge_in_batches(self.judge, pixels[is_known]), strict=True)
        )
        found: dict[str, float | None] = {
            "recognition": float((logits.argmax(1) == style_id).double().mean()),
            "recognition_chance": self.chance,
            "recognition_real": self.ceiling,
            "spread": relative_spread(features, style_id, unseen.features, unseen.style_id),
        }
        if self.limits is not None:
            neighbors = find_neighbors(self.real.searched, to_thumbnails(pixels))
            found["copies"] = float(self.limits.find(neighbors).double().mean())
        return found


class VaeVerdict:
    """Judges a stage at its previews; stages differ in their losses and their resolution, so each stands alone."""

    def __init__(self, job: StageJob, run: Path, log: RunLog) -> None:
        self.job = job
        self.verdict = RunVerdict(run, log, "autoencoder", job.num_steps)
        self._blank: float | None = None

    def say(self, step: int) -> None:
        """Judge the stage at a step of the run."""
        without_harm(lambda: self.verdict.say(step, self._measure(), stage=self.job.stage))

    def _measure(self) -> dict[str, float | None]:
        if self._blank is None:
            self._blank = self.job.evaluation.blank_error(self.job.step_fn.terms.reconstruction_kind)
        return {"blank_loss": self._blank}
