"""Noise schedules as curves and strips."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from latentart.config.ldm import DiffusionConfig
from latentart.planning.schedule import all_kinds, build_curves, describe_curves, even_steps, noise_strip

Run = Callable[..., Any]


def test_levels_are_those_of_the_papers() -> None:
    """ᾱ and log-SNR at even steps, from the formulas."""
    curves = {curve.name: curve for curve in build_curves(DiffusionConfig(), all_kinds())}

    assert list(curves) == ["cosine", "linear", "quadratic", "sigmoid", "straight"]
    assert [curve.is_own for curve in curves.values()] == [True, False, False, False, False]
    cosine = curves["cosine"].level(499)
    angle = (0.5 + 0.008) / 1.008 * math.pi / 2
    alpha_bar = (math.cos(angle) / math.cos(0.008 / 1.008 * math.pi / 2)) ** 2
    assert cosine["alpha_bar"] == pytest.approx(alpha_bar, rel=1e-12)
    assert cosine["log_snr"] == pytest.approx(math.log(alpha_bar / (1 - alpha_bar)), rel=1e-10)
    assert curves["linear"].level(999)["alpha_bar"] == pytest.approx(4.0358e-5, rel=1e-4)  # Ho et al.'s prior
    assert curves["linear"].level(0)["alpha_bar"] == pytest.approx(1 - 1e-4, rel=1e-12)
    assert curves["straight"].level(499) == {"t": 499, "alpha_bar": 0.5, "log_snr": 0.0}
    assert curves["straight"].level(999) == {"t": 999, "alpha_bar": 0.0, "log_snr": None}
    assert curves["straight"].half() == 499


def test_the_own_kind_keeps_its_settings() -> None:
    """The config's schedule is drawn as it is trained with; others have their defaults and its number of steps."""
    own = {"num_steps": 10, "schedule": {"kind": "straight", "shift": 3.0}}
    straight, linear = build_curves(DiffusionConfig.model_validate(own), ["straight", "linear", "straight"])

    assert straight.level(4)["alpha_bar"] == pytest.approx(0.25 / (0.25 + (3 * 0.5) ** 2))
    assert linear.schedule.num_steps == 10


@pytest.mark.parametrize(
    ("num_steps", "columns", "steps"), [(1000, 3, [0, 500, 999]), (8, 8, list(range(8))), (2, 2, [0, 1])]
)
def test_steps_are_even_and_reach_both_ends(num_steps: int, columns: int, steps: list[int]) -> None:
    """From 0 to T-1."""
    assert even_steps(num_steps, columns) == steps


def test_a_strip_goes_from_the_picture_to_noise() -> None:
    """At first it is the picture to a pixel value or two, at the end of the straight path the picture is gone."""
    (straight,) = build_curves(DiffusionConfig(), ["straight"])
    gray, black = torch.full((3, 96, 96), 128, dtype=torch.uint8), torch.zeros(3, 96, 96, dtype=torch.uint8)

    strips = [noise_strip(pixels, straight.schedule, [0, 999]) for pixels in (gray, black)]
    cells = [[strip.crop((2 + 98 * i, 2, 98 + 98 * i, 98)).tobytes() for i in range(2)] for strip in strips]

    assert max(abs(value - 128) for value in cells[0][0]) <= 1
    assert cells[0][1] == cells[1][1], "the same noise, with nothing of the picture"


def test_numbers_can_be_read_by_programs() -> None:
    """Each schedule has its levels and where half of it is noise."""
    (one,) = describe_curves(build_curves(DiffusionConfig(num_steps=4), ["linear"]), 2)

    assert one["kind"] == "linear"
    assert [level["t"] for level in one["levels"]] == [0, 3]
    assert one["half_noise_at_t"] == 4, "four steps do not get so far"


@pytest.mark.slow
def test_it_works_without_a_workspace(run: Run, tmp_path: Path) -> None:
    """A drawn picture and the defaults will do; a second figure does not replace the first."""
    first = run(tmp_path, "schedule", "--kind", "all", "--columns", "4", "--json")
    second = run(tmp_path, "schedule", "ldm.diffusion.schedule.kind=linear")

    told = json.loads(first.out)
    assert (told["figure"], told["picture"]) == ("schedule.svg", "a drawn picture (High_Renaissance)")
    assert [one["kind"] for one in told["schedules"]] == all_kinds()
    assert (second.code, second.out) == (0, "schedule_2.svg\n")
    assert "linear: half of it is noise from t = 259 on" in second.err
    text = (tmp_path / "schedule.svg").read_text(encoding="utf-8")
    assert text.rstrip().endswith("</svg>")
    assert text.count("in pixels") == 5


def test_it_shows_the_first_clean_picture_or_another(run: Run, story: Any, workspace: Path) -> None:
    """In a workspace the picture is a real one, and `--image` names another; a PNG is one."""
    done = run(workspace, "schedule", "--json")
    named = run(workspace, "schedule", "--image", story.raw / "Cubism/0.png", "--out", "a.png", "--json")

    assert json.loads(done.out)["picture"].startswith("data/Cubism/")
    assert json.loads(named.out)["picture"].endswith("Cubism/0.png")
    with Image.open(workspace / "a.png") as figure:
        assert figure.format == "PNG"


def test_nothing_is_overwritten(run: Run, tmp_path: Path) -> None:
    """A file that is there stays, one that is no figure's name is refused, and so is what is no picture."""
    (tmp_path / "mine.svg").write_text("mine")

    assert "nothing is overwritten" in run(tmp_path, "schedule", "--out", "mine.svg").error(2)
    assert "end in .svg or .png" in run(tmp_path, "schedule", "--out", "mine.pdf").error(2)
    assert "mine.svg" in run(tmp_path, "schedule", "--image", "mine.svg").error(4)
    assert (tmp_path / "mine.svg").read_text() == "mine"
    assert [path.name for path in tmp_path.iterdir()] == ["mine.svg"]
