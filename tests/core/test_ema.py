"""Averages of weights: the profile's equations, and the shadow against a loop written out."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import nn

from latentart.core.ema import Ema, gamma_from_relative_std, power_decay, synthesis_weights


def wander(network: nn.Linear, step: int) -> None:
    """Set a network's weights to some that depend on the step alone."""
    generator = torch.Generator().manual_seed(step)
    for parameter in network.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator)


def test_power_decay_is_its_formula() -> None:
    """β = (1 - 1/t)^(γ+1); the first update takes the weights whole."""
    assert power_decay(1, 6.94) == 0.0
    assert power_decay(2, 1.0) == 0.25
    assert power_decay(10, 2.0) == pytest.approx(0.729)


@pytest.mark.parametrize("relative_std", [0.01, 0.05, 0.1, 0.2, 0.28])
def test_gamma_solves_its_equation(relative_std: float) -> None:
    """σ² = (γ+1) / ((γ+2)² (γ+3)) (Karras et al., eq. 126)."""
    gamma = gamma_from_relative_std(relative_std)

    assert (gamma + 1) / ((gamma + 2) ** 2 * (gamma + 3)) == pytest.approx(relative_std**2, rel=1e-9)


def test_gamma_of_the_paper() -> None:
    """Karras et al. name 6.94 for a width of 10 % and 16.97 for 5 %."""
    assert gamma_from_relative_std(0.10) == pytest.approx(6.94, abs=0.005)
    assert gamma_from_relative_std(0.05) == pytest.approx(16.97, abs=0.005)


@pytest.mark.parametrize("relative_std", [-0.1, 0.0, 0.289, 1.0, math.nan])
def test_a_width_that_no_profile_has_is_refused(relative_std: float) -> None:
    """Only 0 … 0.289 can be solved."""
    with pytest.raises(ValueError, match="between 0 and"):
        gamma_from_relative_std(relative_std)


@pytest.mark.parametrize("decay", [None, 0.9])
def test_shadow_equals_an_explicit_loop(decay: float | None) -> None:
    """It is shadow ← β shadow + (1-β) weights, from the network's first weights on."""
    network = nn.Linear(3, 2)
    wander(network, 0)
    ema = Ema(network, relative_std=0.1, decay=decay)
    expected = [p.detach().double() for p in network.parameters()]

    for step in range(1, 30):
        wander(network, step)
        ema.update(network, step)
        beta = power_decay(step, gamma_from_relative_std(0.1)) if decay is None else min(0.9, (1 + step) / (10 + step))
        expected = [beta * e + (1 - beta) * p.detach() for e, p in zip(expected, network.parameters(), strict=True)]

    for shadow, value in zip(ema.network.parameters(), expected, strict=True):
        torch.testing.assert_close(shadow, value.float(), atol=1e-5, rtol=1e-5)


def test_power_profile_weighs_past_steps_by_their_power() -> None:
    """After t steps the weights of step s count (s^(γ+1) - (s-1)^(γ+1)) / t^(γ+1): a power of the time."""
    network = nn.Linear(1, 1, bias=False)
    ema = Ema(network, relative_std=0.1)
    gamma = gamma_from_relative_std(0.1)

    for step in range(1, 21):
        network.weight.data.fill_(1.0 if step == 15 else 0.0)
        ema.update(network, step)

    shadow = next(ema.network.parameters()).item()
    assert shadow == pytest.approx((15 ** (gamma + 1) - 14 ** (gamma + 1)) / 20 ** (gamma + 1), rel=1e-4)


@pytest.mark.parametrize("decay", [None, 0.999])
def test_a_constant_stays_constant_to_the_bit(decay: float | None) -> None:
    """Averaging weights that do not move changes nothing."""
    network = nn.Linear(3, 2)
    ema = Ema(network, decay=decay)

    for step in range(1, 50):
        ema.update(network, step)

    assert all(torch.equal(a, b) for a, b in zip(ema.network.parameters(), network.parameters(), strict=True))


def test_the_shadow_is_frozen_and_apart() -> None:
    """It wants no gradient, is in evaluation mode, and neither network writes into the other."""
    network = nn.Linear(3, 2)
    ema = Ema(network)
    before = copy.deepcopy(network.state_dict())

    wander(ema.network, 5)  # type: ignore[arg-type]

    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert network.training
    assert not ema.network.training
    assert not any(p.requires_grad for p in ema.network.parameters())


def test_buffers_are_averaged_as_weights_are() -> None:
    """A quantizer's codes are averages of what the weights make: they move at the same pace."""
    network = nn.Linear(1, 1, bias=False)
    network.register_buffer("codes", torch.zeros(2))
    ema = Ema(network, decay=0.9)
    network.weight.data += 1.0
    network.get_buffer("codes").add_(1.0)
    start = next(ema.network.parameters()).item()

    ema.update(network, 1000)

    assert ema.network.get_buffer("codes").tolist() == pytest.approx([0.1, 0.1])
    assert next(ema.network.parameters()).item() == pytest.approx(start + 0.1)


STEPS = [step for step in range(20, 481, 20) for _ in range(2)]
STDS = [0.05, 0.10] * 24


def profile(step: int, relative_std: float, last: int = 480) -> torch.Tensor:
    """Return what each update counts in an average after ``step`` of them, written out, float64 [last]."""
    time, power = torch.arange(last + 1, dtype=torch.float64), gamma_from_relative_std(relative_std) + 1
    reached = (time / step).clamp(max=1.0) ** power
    return reached.diff()


@pytest.mark.parametrize(("relative_std", "bound"), [(0.03, 0.05), (0.075, 0.005), (0.13, 0.01), (0.2, 0.03)])
def test_a_synthesized_average_is_the_one_that_was_tracked(relative_std: float, bound: float) -> None:
    """On a random walk it is nearer to the tracked one than ``bound`` of the way that the weights have gone."""
    network = nn.Linear(8, 8)
    tracks = [Ema(network, relative_std=std) for std in (0.05, 0.10)]
    direct = Ema(network, relative_std=relative_std)
    generator, snapshots = torch.Generator().manual_seed(0), []
    first = network.weight.detach().clone()
    for step in range(1, 481):
        network.weight.data += 0.01 * torch.randn(network.weight.shape, generator=generator)
        for ema in (*tracks, direct):
            ema.update(network, step)
        if step % 20 == 0:
            snapshots += [ema.network.get_parameter("weight").detach().double() for ema in tracks]

    weights, miss = synthesis_weights(STEPS, STDS, 480, relative_std)
    made = (torch.stack(snapshots) * weights[:, None, None]).sum(0)

    tracked = direct.network.get_parameter("weight").detach()
    assert (made - tracked).norm() < bound * (network.weight.detach() - first).norm()
    assert miss < 0.03


@pytest.mark.parametrize("relative_std", [0.02, 0.075, 0.13, 0.25])
def test_the_miss_is_the_distance_of_the_profiles(relative_std: float) -> None:
    """It is what a sum over the single updates gives, and no other weights that sum to 1 come nearer."""
    weights, miss = synthesis_weights(STEPS, STDS, 480, relative_std)
    profiles = torch.stack([profile(step, std) for step, std in zip(STEPS, STDS, strict=True)])
    wanted = profile(480, relative_std)

    def distance(weights: torch.Tensor) -> float:
        return float((weights @ profiles - wanted).norm() / wanted.norm())

    assert weights.sum().item() == pytest.approx(1.0, abs=1e-9)
    assert miss == pytest.approx(distance(weights), rel=0.05, abs=1e-4)
    generator = torch.Generator().manual_seed(1)
    for _ in range(20):
        change = 0.1 * torch.randn(len(weights), generator=generator, dtype=torch.float64)
        assert distance(weights + change - change.mean()) > miss


def test_a_snapshot_of_the_width_wanted_is_taken_alone() -> None:
    """What was tracked needs no synthesis, at the last step and at earlier ones."""
    last, miss = synthesis_weights(STEPS, STDS, 480, 0.10)
    early, _ = synthesis_weights(STEPS[:20], STDS[:20], 200, 0.05)

    assert last.tolist() == pytest.approx([0.0] * 47 + [1.0], abs=1e-6)
    assert early.tolist() == pytest.approx([0.0] * 18 + [1.0, 0.0], abs=1e-6)
    assert miss < 1e-6


@pytest.mark.parametrize(
    ("steps", "stds", "message"),
    [
        ([], [], "got 0"),
        ([10, 10], [0.1, 0.1], "got 2, 1 of them different"),
        ([10, 30], [0.1, 0.1], "got 10 to 30, expected 1 to 20"),
        ([0, 20], [0.1, 0.1], "got 0 to 20"),
        ([10, 20], [0.1, 0.3], "between 0 and"),
    ],
)
def test_snapshots_that_make_no_average_are_refused(steps: list[int], stds: list[float], message: str) -> None:
    """None, one twice, one from the future, and widths that do not exist."""
    with pytest.raises(ValueError, match=message):
        synthesis_weights(steps, stds, 20, 0.1)
