"""The verdict on the denoiser's run: what its previews show is measured, then judged together with the losses."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from latentart.layout import Workspace
from latentart.scoring.judging import find_judge
from latentart.scoring.metrics.judge import judge_in_batches
from latentart.scoring.metrics.memorization import CopyLimits, find_neighbors, to_thumbnails
from latentart.scoring.metrics.spread import relative_spread
from latentart.scoring.real_pictures import find_real
from latentart.training.ldm_previews import PreviewPage
from latentart.training.log import RunLog
from latentart.training.run_verdict import RunVerdict, without_harm

BLANK_LOSS = {"v": 1.0}  # x_t and v have no covariance at any noise level, so knowing nothing is guessing 0


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
