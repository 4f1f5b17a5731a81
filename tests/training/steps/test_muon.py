"""Muon: orthogonal updates for the matrices inside a network, AdamW for the rest, and a resume that is exact."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from latentart.builders import build_denoiser
from latentart.config.denoiser import UNetConfig
from latentart.config.optim import OptimizerConfig
from latentart.core.randomness import normal_for
from latentart.storage.checkpoints import checkpoint_folder, load_checkpoint, take_checkpoint, write_checkpoint
from latentart.storage.tensors import load_matching
from latentart.training.build import build_optimizer
from latentart.training.steps.muon import Muon, build_muon, inner_matrices, orthogonalize
from latentart.training.steps.optim import (
    RatePlan,
    build_adamw,
    flatten_optimizer,
    restore_optimizer,
    set_learning_rate,
)


def draw(*shape: int, seed: int = 0) -> Tensor:
    """Return normal numbers."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def build(muon_lr: float = 1e-3) -> tuple[nn.Module, Muon]:
    """Return a small network, always the same, with one kernel and one matrix inside, and its optimizer."""
    model = nn.Sequential()
    model.add_module("conv_in", nn.Conv2d(2, 8, 3, padding=1))
    model.add_module("norm", nn.GroupNorm(2, 8))
    model.add_module("inner", nn.Conv2d(8, 8, 3, padding=1))
    model.add_module("pool", nn.Flatten())
    model.add_module("linear", nn.Linear(8 * 16, 4))
    for number, parameter in enumerate(model.parameters()):
        nn.init.uniform_(parameter, -0.3, 0.3, generator=torch.Generator().manual_seed(number))
    return model, build_muon(model, lr=1e-3, muon_lr=muon_lr, betas=(0.5, 0.9), weight_decay=1e-2)


def train(model: nn.Module, optimizer: torch.optim.Optimizer, steps: range) -> list[float]:
    """Train on noise that depends on the step alone and return the losses."""
    losses = []
    for step in steps:
        set_learning_rate(optimizer, RatePlan(kind="onecycle", peak=1e-2, total_steps=10)(step))
        loss = functional.mse_loss(model(normal_for(0, "x", [step], (2, 4, 4))), torch.ones(1, 4))
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        losses.append(loss.item())
    return losses


@pytest.mark.parametrize("shape", [(16, 16), (8, 40), (40, 8), (1, 5)])
def test_an_orthogonalized_matrix_keeps_its_directions_and_levels_its_singular_values(shape: tuple[int, int]) -> None:
    """U and V stay, and what lies between 1 and 0.1 of the norm comes to lie between 0.65 and 1.25."""
    left, _, right = torch.linalg.svd(draw(*shape), full_matrices=False)
    values = torch.linspace(1.0, 0.2, min(shape))

    made = orthogonalize(left * values @ right)

    inside = left.T @ made @ right.T
    torch.testing.assert_close(inside - inside.diagonal().diag(), torch.zeros_like(inside), atol=1e-4, rtol=0)
    assert inside.diagonal().min() > 0.65
    assert inside.diagonal().max() < 1.25


def test_the_inner_matrices_of_a_denoiser() -> None:
    """Kernels and linear layers, but no embedding, bias or norm, and neither the first nor the last layer."""
    config = UNetConfig(widths=(8, 16), attention=("none", "full"), groups=4, head_channels=8, embedding_channels=16)
    network = build_denoiser(config, 4, [3])
    inner = {id(weight) for weight in inner_matrices(network)}

    left = [name for name, weight in network.named_parameters() if id(weight) not in inner and weight.ndim >= 2]

    assert sorted(left) == ["conv_in.weight", "conv_out.weight", "style_embedding.weight"]
    assert {weight.ndim for weight in network.parameters() if id(weight) in inner} == {2, 4}


def test_a_grouped_convolution_is_left_to_adamw() -> None:
    """Its kernel is many small matrices and none."""
    network = nn.Sequential(nn.Conv2d(4, 4, 3, groups=4), nn.Conv2d(4, 4, 1))

    assert [weight.shape for weight in inner_matrices(network)] == [(4, 4, 1, 1)]


def test_the_first_update_is_the_formula() -> None:
    """It is w ← (1 - lr·wd) w - lr · 0.2·√max(shape) · U Vᵀ, of the kernel as a matrix [out, in·k·k]."""
    kernel = nn.Conv2d(6, 4, 3, bias=False)
    optimizer = build_muon(kernel, lr=0.1, muon_lr=0.1, betas=(0.9, 0.99), weight_decay=0.5)
    before, gradient = kernel.weight.detach().clone(), draw(4, 6, 3, 3)
    kernel.weight.grad = gradient

    optimizer.step()

    update = orthogonalize(gradient.reshape(4, 54)).reshape(4, 6, 3, 3)
    expected = (1 - 0.1 * 0.5) * before - 0.1 * 0.2 * 54**0.5 * update
    torch.testing.assert_close(kernel.weight.detach(), expected, atol=1e-5, rtol=1e-4)


def test_momentum_looks_ahead() -> None:
    """The second update is of 0.95·m + 0.05·g, m the average of the gradients so far."""
    layer = nn.Linear(5, 5, bias=False)
    optimizer = build_muon(layer, lr=1.0, muon_lr=1.0, betas=(0.9, 0.99), weight_decay=0.0)
    gradients = [draw(5, 5, seed=1), draw(5, 5, seed=2)]
    for gradient in gradients:
        before = layer.weight.detach().clone()
        layer.weight.grad = gradient.clone()
        optimizer.step()

    momentum = 0.95 * 0.05 * gradients[0] + 0.05 * gradients[1]
    expected = before - 0.2 * 5**0.5 * orthogonalize(0.95 * momentum + 0.05 * gradients[1])
    torch.testing.assert_close(layer.weight.detach(), expected, atol=1e-4, rtol=1e-4)


def test_an_update_is_as_large_as_adamws() -> None:
    """Its root mean square is some 0.2 of the rate, whatever the shape."""
    for layer in (nn.Linear(64, 64, bias=False), nn.Linear(16, 128, bias=False), nn.Conv2d(32, 16, 3, bias=False)):
        optimizer = build_muon(layer, lr=1.0, muon_lr=1.0, betas=(0.9, 0.99), weight_decay=0.0)
        before = layer.weight.detach().clone()
        layer.weight.grad = draw(*layer.weight.shape)
        optimizer.step()

        assert 0.14 < float((layer.weight.detach() - before).square().mean().sqrt()) < 0.24


def test_the_rest_is_trained_by_adamw_to_the_bit() -> None:
    """Where Muon has nothing to train, both optimizers do the same."""
    mine, theirs = (nn.Sequential(nn.Embedding(5, 4), nn.LayerNorm(4)) for _ in range(2))
    theirs.load_state_dict(mine.state_dict())
    optimizers = (
        build_muon(mine, lr=1e-2, muon_lr=1e-2, betas=(0.5, 0.9), weight_decay=0.1),
        build_adamw(theirs.parameters(), lr=1e-2, betas=(0.5, 0.9), weight_decay=0.1),
    )
    for step in range(5):
        for network, optimizer in zip((mine, theirs), optimizers, strict=True):
            for number, parameter in enumerate(network.parameters()):
                parameter.grad = draw(*parameter.shape, seed=10 * step + number)
            optimizer.step()

    for one, other in zip(mine.parameters(), theirs.parameters(), strict=True):
        assert torch.equal(one, other)


def test_its_part_has_its_own_rate() -> None:
    """Every group follows the schedule; Muon's by its own peak."""
    _, optimizer = build(muon_lr=2e-2)

    set_learning_rate(optimizer, 5e-4)

    rates = [group["lr"] for group in optimizer.param_groups]
    assert [group["is_muon"] for group in optimizer.param_groups] == [True, False, False]
    assert rates == pytest.approx([1e-2, 5e-4, 5e-4])


@pytest.mark.parametrize("stop", [0, 1, 6])
def test_resumed_training_equals_unbroken_training_bit_for_bit(tmp_path: Path, stop: int) -> None:
    """Through a checkpoint on disk, momentum and moments go on as they were."""
    (model, optimizer), (first, first_optimizer), (second, second_optimizer) = build(), build(), build()
    losses = train(model, optimizer, range(10))
    resumed = train(first, first_optimizer, range(stop))
    tensors, json = flatten_optimizer(first_optimizer)
    folder = checkpoint_folder(tmp_path, stop)
    parts = {"model": first.state_dict(), "optimizer": tensors}
    write_checkpoint(tmp_path, take_checkpoint(stop, parts, {"optimizer": json}))
    loaded = load_checkpoint(folder)
    load_matching(second, loaded.tensors["model"], "model")
    restore_optimizer(second_optimizer, loaded.tensors["optimizer"], loaded.state["optimizer"])
    resumed += train(second, second_optimizer, range(stop, 10))

    assert resumed == losses
    assert losses[-1] < 0.7 * losses[0]
    ours, theirs = (
        {**m.state_dict(), **flatten_optimizer(o)[0]} for m, o in ((second, second_optimizer), (model, optimizer))
    )
    torch.testing.assert_close(ours, theirs, rtol=0, atol=0)


def test_the_config_chooses() -> None:
    """Its own rate where the config names one, else AdamW's."""
    layer = nn.Linear(4, 4)
    own = build_optimizer(layer, OptimizerConfig(kind="muon", lr=1e-3, muon_lr=4e-3, weight_decay=0.1))
    same = build_optimizer(layer, OptimizerConfig(kind="muon", lr=1e-3))

    assert isinstance(own, Muon)
    assert [group.get("lr_scale", 1.0) for group in own.param_groups] == [4.0, 1.0]
    assert [group["weight_decay"] for group in own.param_groups] == [0.1, 0.0]
    assert [group.get("lr_scale", 1.0) for group in same.param_groups] == [1.0, 1.0]
    assert isinstance(build_optimizer(layer, OptimizerConfig()), torch.optim.AdamW)
