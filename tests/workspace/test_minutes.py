"""Steps fitted to the time that one has: the arithmetic, and what the config says afterwards."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch

from latentart.config.optim import OptimizerConfig
from latentart.config.workspace import load_config, resolve
from latentart.layout import Workspace
from latentart.process.devices import Placement
from latentart.training.build import build_rate_plan
from latentart.workspace import minutes
from latentart.workspace.minutes import (
    FEWEST,
    Length,
    TimeGiven,
    fit_factor,
    fit_ldm,
    fit_vae,
    scale_stage,
    seconds_spent,
    stretch,
)

Run = Callable[..., Any]
CPU = Placement(torch.device("cpu"))


@pytest.fixture(autouse=True)
def few_are_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three updates of each kind, for the figures do not matter here."""
    monkeypatch.setattr(minutes, "TRYING", 0.0)


def test_updates_fill_the_time_that_is_left_beside_what_is_fixed() -> None:
    """All of them grow alike; where not even the rest fits there are none."""
    lengths = [Length(10.0, 2.0), Length(30.0, 3.0)]

    assert fit_factor(lengths, 45.0) == 1.0
    assert fit_factor(lengths, 165.0) == 4.0
    assert fit_factor(lengths, 4.0) == 0.0


def test_a_stage_keeps_its_shape() -> None:
    """The discriminator comes in after the same share of it, warm-up and ramp likewise; a share stays as it is."""
    stages = {stage.name: stage for stage in resolve({"preset": "demo"}).vae.stages}

    longer = scale_stage(stages["l1"], 800, 2.0)
    shortest = scale_stage(stages["l1"], 800, 0.0)
    share = scale_stage(stages["l1"].model_copy(update={"discriminator_start": 0.5}), 800, 3.0)

    entry = {"discriminator_start": 1520, "discriminator_warmup": 40, "ramp": 20}
    assert longer == {"steps": 1600, "epochs": None, **entry}
    assert (shortest["steps"], shortest["discriminator_start"]) == (FEWEST, round(760 * FEWEST / 800))
    assert (share["steps"], share["discriminator_start"]) == (2400, 0.5)
    assert scale_stage(stages["hires"], 70, 1.0)["discriminator_start"] == 0


@pytest.mark.parametrize("done", [40, 250, 300])
def test_the_rate_never_leaps_where_a_run_is_stretched(done: int) -> None:
    """In its middle or after its end: it never doubles from one update to the next, nor begins high."""
    settings = OptimizerConfig(lr=1e-3)
    longer = stretch(done, 300, 5.0)

    rate = build_rate_plan(settings, longer["steps"], new_cycle_at=longer["new_cycle_at"])

    rates = [rate(step) for step in range(done, longer["steps"])]
    assert longer == {"steps": done + 1500, "epochs": None, "new_cycle_at": done}
    assert rates[0] == pytest.approx(1e-3 / 25)
    assert max(rates) == pytest.approx(1e-3)
    assert all(later < 1.05 * earlier for earlier, later in pairwise(rates))


def test_what_was_fitted_counts_as_spent() -> None:
    """As far as the steps are done; of steps that someone set nothing is known."""
    training = resolve({"preset": "demo"}).ldm.training

    assert seconds_spent(training, 850, 850) == 0.0
    assert seconds_spent(training.model_copy(update={"fitted_minutes": 3.0}), 400, 100) == 45.0


def test_stages_are_fitted_once(cleaned: Path) -> None:
    """The file says the steps; asked for the same once more nothing is tried, and other settings stay off the file."""
    workspace = Workspace.open(cleaned / "latentart.json", ("vae.stages.l1.lr=0.001",))
    before = load_config(workspace.config_path)

    fitted = fit_vae(workspace, "all", CPU, TimeGiven(minutes=2, seconds=20))
    again = fit_vae(fitted, "all", CPU, TimeGiven(minutes=2, seconds=20))

    written = load_config(workspace.config_path)
    assert again is fitted
    assert fitted.overrides == workspace.overrides, "or places outside the workspace would no longer be named"
    assert [stage.steps for stage in written.vae.stages] == [stage.steps for stage in fitted.config.vae.stages]
    assert all((stage.steps or 0) >= FEWEST and stage.fitted_minutes == 2 for stage in written.vae.stages)
    assert (written.vae.stages[0].lr, fitted.config.vae.stages[0].lr) == (before.vae.stages[0].lr, 0.001)
    assert written.ldm == before.ldm
    assert not workspace.vae_run.exists()


def test_a_finished_denoiser_is_stretched(workspace: Path, run: Run) -> None:
    """It goes on where it ended, by a schedule begun anew; its autoencoder stays, and so does less time than it had."""
    home = Workspace.open(workspace / "latentart.json")
    done = home.config.ldm.training.steps or 0

    assert fit_ldm(home, CPU, TimeGiven(minutes=1, seconds=0.0)) is home, "there is no time left"
    fitted = fit_ldm(home, CPU, TimeGiven(minutes=1, seconds=3600))
    assert fit_vae(fitted, "all", CPU, TimeGiven(minutes=1)) is fitted
    ended = run(workspace, "train", "ldm", "--minutes", "1", "-q", f"ldm.training.steps={done + 2}")

    training = json.loads((workspace / "latentart.json").read_text())["ldm"]["training"]
    assert ended.code == 0, ended.err
    assert (training["new_cycle_at"], training["fitted_minutes"]) == (done, 1)
    assert training["steps"] == fitted.config.ldm.training.steps > done + FEWEST
    model = json.loads((workspace / "runs/ldm/model/model.json").read_text())
    assert model["training"]["ldm"]["step"] == done + 2


def test_quick_is_no_number_of_minutes(run: Run, tmp_path: Path) -> None:
    """Both say how long the demo lasts."""
    run(tmp_path, "demo", "--quick", "--minutes", "3").error(2)
