"""A verdict on a run in training, at every preview: in its metrics, in its log, and never in its way."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from pathlib import Path

from latentart.scoring.run_history import RunHistory, What
from latentart.scoring.verdict import Kind, judge_run
from latentart.training.log import RunLog

logger = logging.getLogger(__name__)


class RunVerdict:
    """Judges a run by its metrics; it reads only what is new, and a resumed run goes on where it was."""

    def __init__(self, run: Path, log: RunLog, what: What, num_steps: int) -> None:
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
