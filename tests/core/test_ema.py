"""Averages of weights: the profile's equations, and the shadow against a loop written out."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import nn

from latentart.core.ema import Ema, gamma_from_relative_std, power_decay


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
