"""Optimizers, averages and labels in the config: what is kept when one setting changes, and what is refused."""

from __future__ import annotations

import pytest

from latentart.config.optim import LdmEmaConfig, RunConfig
from latentart.config.workspace import resolve
from latentart.errors import ConfigError


def test_another_optimizer_keeps_what_else_is_set() -> None:
    """The preset's rate and schedule are not lost with its kind."""
    before = resolve({"preset": "demo"}).ldm.training.optimizer

    after = resolve({"preset": "demo"}, ["ldm.training.optimizer.kind=muon"]).ldm.training.optimizer

    assert before.lr != type(before)().lr
    assert after == before.model_copy(update={"kind": "muon"})


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("ldm.training.optimizer.kind=muons", "Did you mean 'muon'?"),
        ("ldm.training.run.ema.tracks=[0.1,0.05]", "widths must rise, each by 0.005 at least: got 0.1, 0.05"),
        ("ldm.training.run.ema.tracks=[0.1,0.1]", "widths must rise"),
        ("ldm.training.run.ema.tracks=[0.3]", "must be at most 0.25"),
        ("ldm.training.run.ema.snapshot_every=0", "must be at least 1"),
        ("vae.run.ema.tracks=[0.1]", "unknown setting vae.run.ema.tracks"),
        ('ldm.labels=["genre","genre"]', "each column once: got genre, genre"),
    ],
)
def test_what_makes_no_sense_is_refused(setting: str, message: str) -> None:
    """The path and the reason, in one line."""
    with pytest.raises(ConfigError) as caught:
        resolve({"preset": "demo"}, [setting])

    assert setting.partition("=")[0] in str(caught.value)
    assert message in str(caught.value)


@pytest.mark.parametrize(("num_steps", "interval"), [(1, 1), (24, 1), (25, 2), (850, 36), (300_000, 12_500)])
def test_a_run_leaves_some_24_snapshots(num_steps: int, interval: int) -> None:
    """At least that many steps apart that there are no more than 24; a number of one's own is taken as it is."""
    assert LdmEmaConfig().snapshot_interval(num_steps) == interval
    assert LdmEmaConfig(snapshot_every=7).snapshot_interval(num_steps) == 7


def test_milestones_are_saved_besides() -> None:
    """A checkpoint is due at the multiples of either number; those of the second one stay."""
    run = RunConfig(checkpoint_every=4, milestone_every=6)

    assert [step for step in range(1, 14) if run.is_checkpoint_due(step)] == [4, 6, 8, 12]
    assert list(run.milestones(0, 13)) == [6, 12]
    assert list(run.milestones(6, 12)) == [12]
    assert list(run.milestones(5, 6)) == [6]
    assert [step for step in range(1, 9) if RunConfig(checkpoint_every=4).is_checkpoint_due(step)] == [4, 8]
    assert list(RunConfig().milestones(0, 10**9)) == []
