"""The forward process: its inverses, targets, weights and draws."""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import get_args

import pytest
import torch
from torch import Tensor

from latentart.core.diffusion.process import (
    add_noise,
    draw_timesteps,
    expand_to,
    loss_weight,
    squared_error,
    stratify,
    target_from,
    x0_and_eps_from,
)
from latentart.core.diffusion.schedules import NoiseSchedule, make_betas, straight_alpha_bar
from latentart.kinds import Target, Weighting

TARGETS = get_args(Target)
SCHEDULE = NoiseSchedule.from_betas(make_betas("cosine", 1000))
LINEAR = NoiseSchedule.from_betas(make_betas("linear", 1000))
SCHEDULES = {
    "cosine": SCHEDULE,
    "linear": LINEAR,
    "straight": NoiseSchedule.from_alpha_bar(straight_alpha_bar(1000)),
    "shifted": NoiseSchedule.from_alpha_bar(straight_alpha_bar(1000, 3.0)),
    "zero-terminal cosine": SCHEDULE.to_zero_terminal_snr(),
    "zero-terminal linear": LINEAR.to_zero_terminal_snr(),
}


def draw(*seeds: int, dtype: torch.dtype = torch.float64) -> list[Tensor]:
    """Return one normal [6,4,5,3] per seed."""
    return [torch.randn(6, 4, 5, 3, dtype=dtype, generator=torch.Generator().manual_seed(s)) for s in seeds]


def test_expand_to_lines_up_with_images() -> None:
    """[B] becomes [B,1,1,1] in the other's dtype; a scalar stays one."""
    like = torch.zeros(2, 4, 8, 8)

    per_image = expand_to(torch.tensor([1.0, 2.0], dtype=torch.float64), like)
    scalar = expand_to(torch.tensor(1.0, dtype=torch.float64), like)

    assert (per_image.shape, per_image.dtype) == ((2, 1, 1, 1), torch.float32)
    assert (scalar.shape, scalar.dtype) == ((), torch.float32)


def test_noise_follows_the_formula_for_each_image() -> None:
    """Each image gets the noise of its own timestep, keeps its dtype, and is clean at ᾱ = 1."""
    x0, eps = draw(0, 1, dtype=torch.float32)
    alpha_bar_t = torch.tensor([1.0, 0.64, 0.36, 0.5, 0.25, 0.0], dtype=torch.float64)

    x_t = add_noise(x0, eps, alpha_bar_t)

    assert x_t.dtype == torch.float32
    assert torch.equal(x_t[0], x0[0])
    torch.testing.assert_close(x_t[1], 0.8 * x0[1] + 0.6 * eps[1])
    torch.testing.assert_close(x_t[2], 0.6 * x0[2] + 0.8 * eps[2])
    assert torch.equal(x_t[5], eps[5])


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("t", [torch.tensor([0, 1, 250, 500, 900, 998]), 400], ids=["per-image", "scalar"])
def test_targets_lead_back_to_x0_and_eps(target: Target, t: int | Tensor) -> None:
    """What the network should predict holds, with x_t, all of x0 and eps."""
    x0, eps = draw(0, 1)
    alpha_bar_t = SCHEDULE.alpha_bar_at(t)
    x_t = add_noise(x0, eps, alpha_bar_t)

    x0_hat, eps_hat = x0_and_eps_from(target, target_from(target, x0, eps, alpha_bar_t), x_t, alpha_bar_t)

    torch.testing.assert_close(x0_hat, x0, atol=1e-11, rtol=0)
    torch.testing.assert_close(eps_hat, eps, atol=1e-11, rtol=0)


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("told", TARGETS)
@pytest.mark.parametrize("retold", TARGETS)
def test_any_target_can_be_told_as_any_other(told: Target, retold: Target, name: str) -> None:
    """What one target says becomes another and comes back, on every schedule; without signal in all but eps."""
    schedule = SCHEDULES[name]
    x_t, prediction = draw(2, 3)
    t = torch.tensor([1, 10, 250, 500, 900, 990 if "eps" in (told, retold) else 999])
    alpha_bar_t = schedule.alpha_bar_at(t)

    other = target_from(retold, *x0_and_eps_from(told, prediction, x_t, alpha_bar_t), alpha_bar_t)
    back = target_from(told, *x0_and_eps_from(retold, other, x_t, alpha_bar_t), alpha_bar_t)

    torch.testing.assert_close(back, prediction, atol=1e-10, rtol=0)


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("target", ["x0", "v", "flow"])
def test_x0_can_be_told_where_no_signal_is_left(target: Target, name: str) -> None:
    """At the last step of every schedule, of which four end in pure noise, x0 and eps come back whole."""
    x0, eps = draw(0, 1)
    alpha_bar_t = SCHEDULES[name].alpha_bar_at(999)
    x_t = add_noise(x0, eps, alpha_bar_t)

    x0_hat, eps_hat = x0_and_eps_from(target, target_from(target, x0, eps, alpha_bar_t), x_t, alpha_bar_t)

    torch.testing.assert_close(x0_hat, x0, atol=1e-12, rtol=0)
    torch.testing.assert_close(eps_hat, eps, atol=1e-12, rtol=0)


def test_flow_is_noise_minus_picture() -> None:
    """By hand, at ᾱ = 0.36: x_t = 0.6 · 2 + 0.8 · 3 = 3.6 and u = 1 give back 2 and 3."""
    x0, eps, alpha_bar_t = torch.tensor(2.0).double(), torch.tensor(3.0).double(), torch.tensor(0.36).double()

    u = target_from("flow", x0, eps, alpha_bar_t)
    x0_hat, eps_hat = x0_and_eps_from("flow", u, torch.tensor(3.6).double(), alpha_bar_t)

    assert float(u) == 1
    assert (float(x0_hat), float(eps_hat)) == pytest.approx((2, 3))


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("limit", [None, 0.7])
def test_any_prediction_splits_x_t(target: Target, limit: float | None) -> None:
    """x0_hat and eps_hat always make up x_t, also when x0_hat is clamped."""
    x_t, prediction = draw(2, 3)
    alpha_bar_t = SCHEDULE.alpha_bar_at(torch.tensor([0, 1, 250, 500, 900, 998]))

    x0_hat, eps_hat = x0_and_eps_from(target, prediction, x_t, alpha_bar_t, limit)

    torch.testing.assert_close(add_noise(x0_hat, eps_hat, alpha_bar_t), x_t, atol=1e-11, rtol=0)
    assert limit is None or x0_hat.abs().max() == limit


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("alpha_bar", [0.0, 2.4288e-9, 1.0])
def test_ends_of_the_schedule_stay_finite(target: Target, alpha_bar: float) -> None:
    """A half-precision prediction gives finite float32 parts, even with no signal or no noise left."""
    x_t, prediction = draw(2, 3, dtype=torch.float32)
    alpha_bar_t = torch.tensor(alpha_bar, dtype=torch.float64)

    x0_hat, eps_hat = x0_and_eps_from(target, prediction.bfloat16(), x_t, alpha_bar_t, x0_limit=3.0)

    assert x0_hat.dtype == eps_hat.dtype == torch.float32
    assert bool(x0_hat.isfinite().all())
    assert bool(eps_hat.isfinite().all())


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("weighting", get_args(Weighting))
def test_perfect_oracle_scores_0(target: Target, weighting: Weighting) -> None:
    """Who predicts the target has no loss, and who does not has one."""
    x0, eps = draw(0, 1, dtype=torch.float32)
    t = torch.tensor([0, 1, 250, 500, 900, 999])
    truth = target_from(target, x0, eps, SCHEDULE.alpha_bar_at(t))
    weight = loss_weight(weighting, target, SCHEDULE.snr[t])

    assert torch.equal(squared_error(truth, truth), torch.zeros(6))
    assert bool((weight * squared_error(truth + 1, truth) > 0).all())


def test_error_is_a_mean_per_image() -> None:
    """Each image has its own mean, in float32."""
    prediction = torch.tensor([1.0, 2.0]).reshape(2, 1, 1, 1).expand(2, 4, 3, 3).bfloat16()

    error = squared_error(prediction, torch.zeros(2, 4, 3, 3))

    torch.testing.assert_close(error, torch.tensor([1.0, 4.0]), atol=0, rtol=0)


WEIGHTS_OF_X0 = {"min_snr": lambda snr: min(snr, 5.0), "soft_min_snr": lambda snr: snr * 5 / (snr + 5)}


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("weighting", WEIGHTS_OF_X0)
def test_the_same_mistake_weighs_the_same_in_every_target(weighting: Weighting, name: str) -> None:
    """One x0_hat scores the loss of the papers' formula in x0, whether told as eps, x0, v or flow."""
    schedule = SCHEDULES[name]
    x0, eps, wrong = draw(0, 1, 2)
    t = torch.tensor([5, 50, 250, 500, 800, 950])
    alpha_bar_t = schedule.alpha_bar_at(t)
    x_t = add_noise(x0, eps, alpha_bar_t)
    x0_hat, eps_hat = x0_and_eps_from("x0", x0 + wrong, x_t, alpha_bar_t)

    losses = [
        loss_weight(weighting, target, schedule.snr[t])
        * squared_error(target_from(target, x0_hat, eps_hat, alpha_bar_t), target_from(target, x0, eps, alpha_bar_t))
        for target in TARGETS
    ]

    weight_of_x0 = torch.tensor([WEIGHTS_OF_X0[weighting](float(snr)) for snr in schedule.snr[t]]).double()
    for loss in losses:
        torch.testing.assert_close(loss, weight_of_x0 * wrong.square().mean(dim=(1, 2, 3)), atol=0, rtol=1e-4)


@pytest.mark.parametrize(
    ("weighting", "weights"),
    [
        (
            "min_snr",
            {"eps": [1, 1, 4 / 9], "x0": [0, 1, 4], "v": [0, 1 / 2, 4 / 10], "flow": [0, 1 / 4, 4 / 16]},
        ),
        (
            "soft_min_snr",
            {
                "eps": [1, 4 / 5, 4 / 13],
                "x0": [0, 4 / 5, 36 / 13],
                "v": [0, 2 / 5, 36 / 130],
                "flow": [0, 1 / 5, 36 / 208],
            },
        ),
    ],
)
def test_weights_have_their_values_and_are_sound_without_signal(
    weighting: Weighting, weights: dict[Target, list[float]]
) -> None:
    """At snr = 0, 1 and 9 and γ = 4, by hand."""
    snr = torch.tensor([0.0, 1.0, 9.0], dtype=torch.float64)

    for target, expected in weights.items():
        assert loss_weight(weighting, target, snr, gamma=4.0).tolist() == pytest.approx(expected)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("weighting", get_args(Weighting))
def test_weights_are_sound_with_almost_no_noise(weighting: Weighting, target: Target) -> None:
    """Up to an endless snr they are finite, never negative, and do not pass γ."""
    weight = loss_weight(weighting, target, torch.tensor([1e6, 1e12, 1e300, math.inf], dtype=torch.float64))

    assert bool(((weight >= 0) & (weight <= 5)).all())
    if weighting in WEIGHTS_OF_X0 and target == "x0":
        assert weight.tolist() == pytest.approx([5] * 4, rel=1e-5)


@pytest.mark.parametrize("weighting", ["uniform", "learned"])
def test_other_weights_are_1_in_every_target(weighting: Weighting) -> None:
    """Nothing of the noise level enters here."""
    snr = torch.tensor([0.0, 2.0, 1e9], dtype=torch.float64)

    assert all(loss_weight(weighting, target, snr).tolist() == [1, 1, 1] for target in TARGETS)


def test_unknown_names_are_refused() -> None:
    """A wrong target or weighting is named."""
    x = torch.zeros(1, 1, 1, 1)
    one = torch.ones(())

    with pytest.raises(ValueError, match="target: got 'noise'"):
        target_from("noise", x, x, one)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="target: got 'noise'"):
        x0_and_eps_from("noise", x, x, one)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="target: got 'noise'"):
        loss_weight("min_snr", "noise", one)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="weighting: got 'p2', expected uniform, min_snr, soft_min_snr, learned"):
        loss_weight("p2", "eps", one)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="kind: got 'normal', expected uniform, logit_normal"):
        draw_timesteps(one, 10, "normal")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"std: got 0\.0"):
        draw_timesteps(one, 10, "logit_normal", std=0.0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_timesteps_stay_in_range_for_every_length(dtype: torch.dtype) -> None:
    """The smallest and the largest number below 1 give the first and the last step."""
    largest = torch.nextafter(torch.ones((), dtype=dtype), torch.zeros((), dtype=dtype))

    for num_steps in range(1, 3000):
        assert draw_timesteps(torch.stack([0 * largest, largest]), num_steps).tolist() == [0, num_steps - 1]


def test_timesteps_are_uniform() -> None:
    """Evenly spread numbers meet each step equally often."""
    t = draw_timesteps((torch.arange(4000) + 0.5) / 4000, 1000)

    assert t.dtype == torch.int64
    assert torch.equal(t.bincount(), torch.full((1000,), 4))


@pytest.mark.parametrize(("mean", "std"), [(0.0, 1.0), (0.8, 0.5), (-1.0, 2.0)])
def test_logit_normal_timesteps_have_its_quantiles(mean: float, std: float) -> None:
    """The share of draws below a timestep is the normal probability of its logit."""
    uniform = (torch.arange(100_000, dtype=torch.float64) + 0.5) / 100_000

    t = draw_timesteps(uniform, 1000, "logit_normal", mean, std)

    for place in (0.05, 0.25, 0.5, 0.75, 0.95):
        share = NormalDist(mean, std).cdf(math.log(place / (1 - place)))
        assert float((t < 1000 * place).double().mean()) == pytest.approx(share, abs=2e-5)
    assert bool((t.diff() >= 0).all())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("mean", [-10.0, 0.0, 10.0])
def test_logit_normal_timesteps_stay_in_range(mean: float, dtype: torch.dtype) -> None:
    """The smallest and the largest uniform number are finite timesteps, also where the sigmoid is 1."""
    largest = torch.nextafter(torch.ones((), dtype=dtype), torch.zeros((), dtype=dtype))

    first, last = draw_timesteps(torch.stack([0 * largest, largest]), 1000, "logit_normal", mean, 10.0).tolist()

    assert (first, last) == (0, 999)


@pytest.mark.parametrize("u", [0.0, 0.3, 1 - 2**-24])
def test_stratified_batch_covers_every_stratum(u: float) -> None:
    """A batch has one timestep in each equal part of the schedule: floor(T (i + u) / B)."""
    uniform = torch.full((8,), u)

    t = draw_timesteps(stratify(uniform, torch.arange(8), 8), 1000)

    assert t.tolist() == [int(125 * (i + u)) for i in range(8)]


def test_shift_turns_the_strata_round() -> None:
    """A shift of one stratum hands each image its neighbor's, and stays in [0, 1)."""
    uniform = torch.full((8,), 0.25)

    shifted = stratify(uniform, torch.arange(8), 8, shift=1 / 8)

    assert (8 * shifted).tolist() == [1.25, 2.25, 3.25, 4.25, 5.25, 6.25, 7.25, 0.25]


def test_parts_of_a_batch_draw_what_the_whole_would() -> None:
    """Two devices with half of the batch each draw together what one draws."""
    uniform = torch.rand(8, generator=torch.Generator().manual_seed(0))
    position = torch.arange(8)

    whole = stratify(uniform, position, 8, 0.4)
    parts = [stratify(uniform[part], position[part], 8, 0.4) for part in (slice(0, 4), slice(4, 8))]

    assert torch.equal(torch.cat(parts), whole)
