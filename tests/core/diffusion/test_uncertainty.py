"""The learned uncertainty: its optimum, its reach, and what it leaves alone."""

from __future__ import annotations

import math

import pytest
import torch

from latentart.core.diffusion.uncertainty import LearnedUncertainty

SNR = torch.tensor([1e4, 1.0, 1e-3], dtype=torch.float64)


def filled(num_features: int = 32) -> LearnedUncertainty:
    """Return one whose weights are not 0."""
    network = LearnedUncertainty(num_features)
    network.weight.data = torch.randn(num_features, generator=torch.Generator().manual_seed(0))
    return network


def test_it_starts_at_0_and_draws_nothing() -> None:
    """A fresh one leaves the loss as it is; making it does not turn the global generator on."""
    before = torch.get_rng_state()

    u = LearnedUncertainty()(SNR)

    assert torch.equal(u, torch.zeros(3))
    assert torch.equal(torch.get_rng_state(), before)


def test_its_optimum_is_the_log_of_the_mean_error() -> None:
    """Trained on errors of three noise levels, two each, u of each level comes to the log of their mean."""
    network = LearnedUncertainty()
    errors = torch.tensor([[0.001, 0.003], [0.1, 0.3], [1.0, 5.0]])
    optimizer = torch.optim.Adam(network.parameters(), lr=0.05)
    for _ in range(600):
        u = network(SNR)[:, None]
        loss = (errors * (-u).exp() + u).mean()
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()

    assert network(SNR).tolist() == pytest.approx([math.log(0.002), math.log(0.2), math.log(3.0)], abs=0.01)


def test_it_is_its_cosine_series() -> None:
    """By hand: log-SNR/4 = -5 … 5 is the angle 0 … π, and the k-th weight is that of the cosine of k times it."""
    network = LearnedUncertainty(3)
    network.weight.data = torch.tensor([0.5, 2.0, -1.0])
    log_snr = torch.tensor([-20.0, 0.0, 20.0], dtype=torch.float64)

    u = network(log_snr.exp())

    assert u.tolist() == pytest.approx([0.5 + 2 - 1, 0.5 + 0 + 1, 0.5 - 2 - 1], abs=1e-5)


def test_it_is_finite_at_both_ends() -> None:
    """Without signal and without noise it says what it says at the bounds, and its gradient is sound."""
    network = filled()

    u = network(torch.tensor([0.0, math.exp(-20), math.exp(20), math.inf], dtype=torch.float64))
    torch.autograd.backward(u.sum())

    assert u[0] == u[1]
    assert float(u[2].detach()) == pytest.approx(float(u[3].detach()), abs=1e-4)
    assert network.weight.grad is not None
    assert bool(network.weight.grad.isfinite().all())


def test_an_image_does_not_depend_on_its_batch() -> None:
    """One level alone has, bit for bit, what it has among others."""
    network = filled()

    assert torch.equal(network(SNR)[1:2], network(SNR[1:2]))
    assert (network(SNR).dtype, network(SNR).shape) == (torch.float32, (3,))
