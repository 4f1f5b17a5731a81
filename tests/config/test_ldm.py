"""Settings of the diffusion process: what is refused, and what the others become."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from latentart.builders import build_schedule, build_task
from latentart.config.ldm import DiffusionConfig
from latentart.config.workspace import resolve
from latentart.core.diffusion.objective import DiffusionTask
from latentart.core.diffusion.schedules import NoiseSchedule, make_betas, straight_alpha_bar
from latentart.errors import ConfigError
from latentart.model.description import read_description

GOLDEN = Path(__file__).parents[1] / "golden" / "model-format-1" / "model.json"
STRAIGHT = {"schedule": {"kind": "straight"}}


@pytest.mark.parametrize(
    ("diffusion", "cause"),
    [
        (STRAIGHT, "the straight schedule"),
        ({"zero_terminal_snr": True}, "zero_terminal_snr"),
        ({**STRAIGHT, "zero_terminal_snr": True}, "zero_terminal_snr"),
    ],
)
def test_eps_is_refused_where_a_schedule_ends_in_pure_noise(diffusion: dict[str, Any], cause: str) -> None:
    """One line names the place, the cause and the way out; the other targets are taken."""
    with pytest.raises(ConfigError) as caught:
        resolve({"ldm": {"diffusion": {**diffusion, "target": "eps"}}})

    message = str(caught.value)
    assert f"ldm.diffusion: target eps cannot be learned with {cause}, which ends in pure noise" in message
    assert "take v, x0 or flow" in message
    assert "\n" not in message
    for target in ("v", "x0", "flow"):
        assert resolve({"ldm": {"diffusion": {**diffusion, "target": target}}}).ldm.diffusion.target == target


def test_eps_stays_allowed_elsewhere() -> None:
    """A schedule that keeps some signal takes every target."""
    assert DiffusionConfig(target="eps").target == "eps"


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("schedule.shift=0.5", "ldm.diffusion.schedule.shift: must be at least 1"),
        ("schedule.beta_end=0.1", "unknown setting ldm.diffusion.schedule.beta_end"),
        ("timesteps=normal", "ldm.diffusion.timesteps: must be 'uniform' or 'logit_normal'"),
        ("timestep_std=0", "ldm.diffusion.timestep_std: must be more than 0"),
        ("timestep_mean=11", "ldm.diffusion.timestep_mean: must be at most 10"),
        ("weighting=soft_minsnr", "Did you mean 'soft_min_snr'?"),
    ],
)
def test_what_makes_no_process_is_refused(setting: str, message: str) -> None:
    """Each out of range in one line with its path."""
    with pytest.raises(ConfigError) as caught:
        resolve({"ldm": {"diffusion": STRAIGHT}}, [f"ldm.diffusion.{setting}"])

    assert message in str(caught.value)


@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_the_straight_schedule_is_built_with_its_shift(shift: float) -> None:
    """The table is straight_alpha_bar's, with zero_terminal_snr or without."""
    config = DiffusionConfig.model_validate({"num_steps": 50, "schedule": {"kind": "straight", "shift": shift}})
    both = config.model_copy(update={"zero_terminal_snr": True})

    assert torch.equal(build_schedule(config).alpha_bar, straight_alpha_bar(50, shift))
    assert torch.equal(build_schedule(both).alpha_bar, straight_alpha_bar(50, shift))


@pytest.mark.parametrize("kind", ["cosine", "linear", "quadratic", "sigmoid"])
def test_zero_terminal_snr_stretches_every_schedule(kind: Any) -> None:
    """It is the schedule of that kind, stretched; off by default."""
    usual = DiffusionConfig.model_validate({"num_steps": 50, "schedule": {"kind": kind}})
    stretched = usual.model_copy(update={"zero_terminal_snr": True})

    expected = NoiseSchedule.from_betas(make_betas(kind, 50))
    assert torch.equal(build_schedule(usual).alpha_bar, expected.alpha_bar)
    assert torch.equal(build_schedule(stretched).alpha_bar, expected.to_zero_terminal_snr().alpha_bar)
    assert build_schedule(stretched).alpha_bar[-1] == 0


def test_a_task_has_its_configs_numbers() -> None:
    """Target, weights and draws arrive where they belong."""
    settings = {"target": "flow", "weighting": "soft_min_snr", "min_snr_gamma": 4.0}
    draws = {"timesteps": "logit_normal", "timestep_mean": 0.5, "timestep_std": 0.7}
    config = DiffusionConfig.model_validate({**STRAIGHT, **settings, **draws})

    task = build_task(config)

    assert (task.target, task.weighting, task.gamma) == ("flow", "soft_min_snr", 4.0)
    assert (task.timesteps, task.timestep_mean, task.timestep_std) == ("logit_normal", 0.5, 0.7)
    assert torch.equal(task.schedule.alpha_bar, straight_alpha_bar(1000))


def test_an_old_model_means_what_it_meant() -> None:
    """The process of a model of format 1 loads: the usual schedule, draws and weights."""
    about = json.loads(GOLDEN.read_text(encoding="utf-8"))

    diffusion = read_description(about, GOLDEN).diffusion
    assert diffusion is not None
    task = build_task(diffusion)

    schedule = NoiseSchedule.from_betas(make_betas("cosine", 1000))
    assert torch.equal(task.schedule.alpha_bar, schedule.alpha_bar)
    usual = DiffusionTask(task.schedule, "v", "min_snr", 5.0)
    assert task == usual
