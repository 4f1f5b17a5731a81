"""What the denoiser learns: losses against the formula, weights that are learned, draws of timesteps."""

from __future__ import annotations

from dataclasses import replace
from typing import get_args

import pytest
import torch
from torch import Tensor

from latentart.builders import build_task
from latentart.config.ldm import DiffusionConfig
from latentart.core.diffusion.objective import DiffusionTask
from latentart.core.diffusion.process import add_noise, draw_timesteps, loss_weight, target_from
from latentart.core.diffusion.schedules import NoiseSchedule, make_betas, straight_alpha_bar
from latentart.core.diffusion.uncertainty import LearnedUncertainty
from latentart.kinds import Target, Weighting

TARGETS, WEIGHTINGS = get_args(Target), get_args(Weighting)
COSINE = NoiseSchedule.from_betas(make_betas("cosine", 1000))
SCHEDULES = {
    "cosine": COSINE,
    "straight": NoiseSchedule.from_alpha_bar(straight_alpha_bar(1000)),
    "zero-terminal": COSINE.to_zero_terminal_snr(),
}
T = torch.tensor([0, 250, 700, 999])


def draw(seed: int) -> Tensor:
    """Return normal float32 [4,2,3,3]."""
    return torch.randn(4, 2, 3, 3, generator=torch.Generator().manual_seed(seed))


def uncertainty_of(level: float) -> LearnedUncertainty:
    """Return one that says ``level`` everywhere."""
    network = LearnedUncertainty()
    network.weight.data[0] = level
    return network


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("weighting", WEIGHTINGS)
@pytest.mark.parametrize("target", TARGETS)
def test_a_perfect_oracle_has_no_plain_loss(target: Target, weighting: Weighting, name: str) -> None:
    """Who predicts the target of the x_t it is shown scores 0, plain and weighted, at every level of every schedule."""
    schedule = SCHEDULES[name]
    x0, eps = draw(0), draw(1)
    asked = []

    def predict(x_t: Tensor) -> Tensor:
        asked.append(x_t)
        return target_from(target, x0, eps, schedule.alpha_bar[T])

    task = DiffusionTask(schedule, target, weighting)
    weighted, plain = task.losses(predict, x0, eps, T, LearnedUncertainty() if weighting == "learned" else None)

    assert torch.equal(plain, torch.zeros(4))
    assert torch.equal(weighted, torch.zeros(4))
    assert torch.equal(asked[0], add_noise(x0, eps, schedule.alpha_bar[T]))


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("weighting", ["uniform", "min_snr", "soft_min_snr"])
@pytest.mark.parametrize("target", TARGETS)
def test_an_error_is_squared_then_weighed(target: Target, weighting: Weighting, name: str) -> None:
    """Off by 0.5 everywhere, each image scores 0.25 plain, and 0.25 times the weight of its noise level."""
    schedule = SCHEDULES[name]
    x0, eps = draw(0), draw(1)
    task = DiffusionTask(schedule, target, weighting, 3.0)

    def predict(_x_t: Tensor) -> Tensor:
        return target_from(target, x0, eps, schedule.alpha_bar[T]) + 0.5

    weighted, plain = task.losses(predict, x0, eps, T)

    torch.testing.assert_close(plain, torch.full((4,), 0.25))
    torch.testing.assert_close(weighted, 0.25 * loss_weight(weighting, target, schedule.snr[T], 3.0).float())
    assert torch.equal(task.loss_per_image(predict, x0, eps, T), weighted)


@pytest.mark.parametrize("weighting", ["min_snr", "soft_min_snr"])
@pytest.mark.parametrize("target", TARGETS)
def test_nearly_pure_noise_is_trained_in_every_target(target: Target, weighting: Weighting) -> None:
    """As built from a config, no timestep from the middle to the noisy end weighs next to nothing; the papers' do."""
    task = build_task(DiffusionConfig(target=target, weighting=weighting))
    noisy = torch.arange(500, 1000)
    error = torch.zeros(500, 1, 2, 2)

    def weights(of: DiffusionTask) -> Tensor:
        return of.losses(lambda x_t: torch.ones_like(x_t), error, error, noisy)[0]

    papers = weights(replace(task, floor=0.0))
    floored = weights(task)

    assert float(floored.min()) >= (0.05 if target != "eps" else 0.5)
    if target != "eps":
        assert float(papers[490:].max()) < 3e-4
        torch.testing.assert_close(floored[490:], torch.full((10,), 0.1), atol=4e-3, rtol=0)
    else:
        assert torch.equal(floored, papers)


@pytest.mark.parametrize("weighting", ["uniform", "min_snr", "soft_min_snr"])
@pytest.mark.parametrize("target", TARGETS)
def test_the_floor_is_the_larger_of_two_weights_of_x0(target: Target, weighting: Weighting) -> None:
    """Slowly, number by number: the error of x0 weighs max(w, floor), told in the target's space."""
    floor, gamma = 0.1, 5.0
    for snr in (1e-9, 1e-3, 0.09, 0.11, 1.0, 5.0, 1e4):
        weight = {"min_snr": min(snr, gamma), "soft_min_snr": snr * gamma / (snr + gamma)}.get(weighting)
        magnified = {"eps": snr, "x0": 1.0, "v": snr + 1, "flow": (snr**0.5 + 1) ** 2}[target]
        expected = 1.0 if weight is None else (weight if target == "eps" else max(weight, floor)) / magnified

        found = loss_weight(weighting, target, torch.tensor([snr], dtype=torch.float64), gamma, floor)

        assert float(found) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("target", TARGETS)
def test_learned_weights_are_error_over_e_to_the_u_plus_u(target: Target) -> None:
    """With u = 2 an error of 0.25 scores 0.25/e² + 2 in every target; the plain one stays."""
    x0, eps = draw(0), draw(1)
    task = DiffusionTask(COSINE, target, "learned")

    weighted, plain = task.losses(
        lambda _: target_from(target, x0, eps, COSINE.alpha_bar[T]) + 0.5, x0, eps, T, uncertainty_of(2.0)
    )

    torch.testing.assert_close(plain, torch.full((4,), 0.25))
    torch.testing.assert_close(weighted, 0.25 * torch.exp(torch.tensor([-2.0] * 4)) + 2)


def test_learned_weights_take_each_image_at_its_own_level() -> None:
    """The uncertainty is asked at the snr of the image's timestep."""
    x0, eps = draw(0), draw(1)
    network = LearnedUncertainty()
    network.weight.data = torch.randn(32, generator=torch.Generator().manual_seed(0)) / 4

    weighted, plain = DiffusionTask(COSINE, "v", "learned").losses(torch.zeros_like, x0, eps, T, network)

    u = network(COSINE.snr[T])
    torch.testing.assert_close(weighted, plain / u.exp() + u)
    assert len(set(u.tolist())) == 4


def test_learned_weights_scale_the_gradient_of_the_prediction_and_no_more() -> None:
    """The prediction's gradient is the plain one over e^u; u's own is 1 - error/e^u, 0 at the log of the error."""
    x0, eps = draw(0), draw(1)
    prediction = draw(2).requires_grad_()
    network = uncertainty_of(0.7)

    weighted, plain = DiffusionTask(COSINE, "v", "learned").losses(lambda _: prediction, x0, eps, T, network)

    by_weighted, by_weight = torch.autograd.grad(weighted.sum(), [prediction, network.weight], retain_graph=True)
    (by_plain,) = torch.autograd.grad(plain.sum(), prediction)
    torch.testing.assert_close(by_weighted, by_plain * torch.exp(torch.tensor(-0.7)))
    torch.testing.assert_close(by_weight[0], (1 - plain.detach() * torch.exp(torch.tensor(-0.7))).sum())
    at_best = uncertainty_of(float(plain.detach().mean().log()))
    best, _ = DiffusionTask(COSINE, "v", "learned").losses(lambda _: prediction.detach(), x0, eps, T, at_best)
    assert float(torch.autograd.grad(best.sum(), at_best.weight)[0][0]) == pytest.approx(0, abs=1e-5)


def test_learned_weights_cannot_be_forgotten() -> None:
    """Without the network that learns them the loss would silently be the plain one."""
    with pytest.raises(ValueError, match="uncertainty: got None"):
        DiffusionTask(COSINE, "v", "learned").losses(torch.zeros_like, draw(0), draw(1), T)


def test_draws_are_those_of_the_task() -> None:
    """Kind, mean, spread and length arrive; by default draws are uniform."""
    uniform = torch.rand(500, generator=torch.Generator().manual_seed(0))
    usual = DiffusionTask(COSINE)
    middle = DiffusionTask(COSINE, timesteps="logit_normal", timestep_mean=0.5, timestep_std=0.7)

    assert torch.equal(usual.draw_timesteps(uniform), draw_timesteps(uniform, 1000))
    assert torch.equal(middle.draw_timesteps(uniform), draw_timesteps(uniform, 1000, "logit_normal", 0.5, 0.7))
    assert not torch.equal(middle.draw_timesteps(uniform), usual.draw_timesteps(uniform))


def test_a_moved_task_keeps_its_settings() -> None:
    """Only the tables go to the device."""
    task = DiffusionTask(
        COSINE, "flow", "soft_min_snr", 4.0, timesteps="logit_normal", timestep_mean=0.5, timestep_std=0.7
    )

    moved = task.to("meta")

    assert moved.schedule.alpha_bar.is_meta
    assert (moved.target, moved.weighting, moved.gamma) == ("flow", "soft_min_snr", 4.0)
    assert (moved.timesteps, moved.timestep_mean, moved.timestep_std) == ("logit_normal", 0.5, 0.7)
