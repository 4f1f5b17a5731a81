"""Optimizer and learning rate: torch's own schedules step by step, and a resume that is exact."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from latentart.core.randomness import normal_for
from latentart.errors import ModelError
from latentart.storage.checkpoints import checkpoint_folder, load_checkpoint, take_checkpoint, write_checkpoint
from latentart.storage.tensors import load_matching
from latentart.training.steps.optim import (
    RatePlan,
    Schedule,
    build_adamw,
    flatten_optimizer,
    restore_optimizer,
    set_first_beta,
    set_learning_rate,
)


def build() -> tuple[nn.Module, torch.optim.AdamW]:
    """Return a small network, always the same, and its optimizer."""
    model = nn.Sequential(nn.Conv2d(2, 8, 3, padding=1), nn.GroupNorm(2, 8), nn.SiLU(), nn.Conv2d(8, 2, 3))
    for number, parameter in enumerate(model.parameters()):
        nn.init.uniform_(parameter, -0.3, 0.3, generator=torch.Generator().manual_seed(number))
    return model, build_adamw(model.parameters(), lr=1e-3, betas=(0.5, 0.9), weight_decay=1e-2)


def train(model: nn.Module, optimizer: torch.optim.Optimizer, steps: range) -> list[float]:
    """Train on noise that depends on the step alone and return the losses."""
    losses = []
    for step in steps:
        set_learning_rate(optimizer, RatePlan(kind="onecycle", peak=1e-2, total_steps=10)(step))
        loss = functional.mse_loss(model(normal_for(0, "x", [step], (2, 6, 6))), torch.ones(1, 2, 4, 4))
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        losses.append(loss.item())
    return losses


def everything(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Return all tensors of a model and its optimizer."""
    return {**model.state_dict(), **flatten_optimizer(optimizer)[0]}


@pytest.mark.parametrize("stop", [0, 1, 5, 9])
def test_resumed_training_equals_unbroken_training_bit_for_bit(tmp_path: Path, stop: int) -> None:
    """Stop anywhere, before the first step too, save, load into new objects, go on: the same to the last bit."""
    model, optimizer = build()
    losses = train(model, optimizer, range(10))
    first, first_optimizer = build()
    resumed_losses = train(first, first_optimizer, range(stop))
    tensors, json = flatten_optimizer(first_optimizer)
    parts = {"model": first.state_dict(), "optimizer": tensors}
    write_checkpoint(tmp_path, take_checkpoint(stop, parts, {"optimizer": json}))
    loaded = load_checkpoint(checkpoint_folder(tmp_path, stop))
    second, second_optimizer = build()
    load_matching(second, loaded.tensors["model"], "model")
    restore_optimizer(second_optimizer, loaded.tensors["optimizer"], loaded.state["optimizer"])
    resumed_losses += train(second, second_optimizer, range(stop, 10))

    assert resumed_losses == losses
    assert second_optimizer.state_dict()["param_groups"] == optimizer.state_dict()["param_groups"]
    torch.testing.assert_close(everything(second, second_optimizer), everything(model, optimizer), rtol=0, atol=0)


def test_restored_state_does_not_write_into_what_it_came_from() -> None:
    """Going on after a restore leaves the loaded tensors as they were."""
    model, optimizer = build()
    train(model, optimizer, range(2))
    tensors, json = flatten_optimizer(optimizer)
    loaded = {name: value.clone() for name, value in tensors.items()}
    other, other_optimizer = build()
    restore_optimizer(other_optimizer, loaded, json)
    train(other, other_optimizer, range(2))

    torch.testing.assert_close(loaded["0.step"], torch.tensor(2.0), rtol=0, atol=0)


def test_state_of_other_parameters_is_refused() -> None:
    """Other groups, indices and shapes are named, and broken JSON is no crash."""
    model, optimizer = build()
    train(model, optimizer, range(1))
    tensors, json = flatten_optimizer(optimizer)
    small = build_adamw(nn.Linear(2, 2).parameters(), lr=1.0, betas=(0.5, 0.9), weight_decay=0.0)

    with pytest.raises(ModelError, match="other groups"):
        restore_optimizer(small, tensors, json)
    for broken in ({}, {"param_groups": [1, 2], "others": {}}, {"param_groups": json["param_groups"]}):
        with pytest.raises(ModelError, match="other groups"):
            restore_optimizer(optimizer, tensors, broken)
    with pytest.raises(ModelError, match=r"no parameter for '99\.exp_avg'"):
        restore_optimizer(optimizer, {**tensors, "99.exp_avg": torch.zeros(1)}, json)
    with pytest.raises(ModelError, match=r"'0\.exp_avg' has shape \[7\]"):
        restore_optimizer(optimizer, {**tensors, "0.exp_avg": torch.zeros(7)}, json)


def test_keys_of_other_torch_versions_do_no_harm() -> None:
    """A key that only one of the two torch versions knows is ignored or keeps its own value."""
    _, optimizer = build()
    tensors, json = flatten_optimizer(optimizer)
    groups = [{**group, "unheard_of": 1} for group in json["param_groups"]]
    del groups[0]["eps"]
    restore_optimizer(optimizer, tensors, {**json, "param_groups": groups})

    assert optimizer.param_groups[0]["eps"] == 1e-8
    assert "unheard_of" not in optimizer.param_groups[0]


def test_only_matrices_and_kernels_are_decayed() -> None:
    """Biases and norms are in a group without decay; frozen parameters are in none."""
    model, optimizer = build()
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    before = [parameter.detach().clone() for parameter in model.parameters()]
    optimizer.step()
    ratios = [(p / b).flatten()[0].item() for p, b in zip(model.parameters(), before, strict=True)]
    expected = [1 - 1e-3 * 1e-2 if b.ndim >= 2 else 1.0 for b in before]

    assert ratios == pytest.approx(expected, abs=2e-7)
    model.requires_grad_(requires_grad=False)
    with pytest.raises(ValueError, match="empty parameter list"):
        build_adamw(model.parameters(), lr=1.0, betas=(0.5, 0.9), weight_decay=0.1)


def torch_rates(scheduler: torch.optim.lr_scheduler.LRScheduler, steps: int) -> Iterator[float]:
    """Yield the rates that one of torch's own schedulers sets."""
    for _ in range(steps):
        yield scheduler.optimizer.param_groups[0]["lr"]
        scheduler.optimizer.step()
        scheduler.step()


@pytest.mark.parametrize(
    ("total_steps", "share", "div", "final_div"),
    [(1000, 0.3, 25.0, 1e4), (7, 0.3, 25.0, 1e4), (333, 0.05, 10.0, 100.0), (1, 0.3, 25.0, 1e4), (50, 0.9, 2.0, 3.0)],
)
def test_onecycle_is_torchs(total_steps: int, share: float, div: float, final_div: float) -> None:
    """Over whole runs each rate is that of OneCycleLR."""
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(
        optimizer,
        max_lr=3e-4,
        total_steps=total_steps,
        pct_start=share,
        div_factor=div,
        final_div_factor=final_div,
        cycle_momentum=False,
    )
    ours = [
        RatePlan(
            kind="onecycle",
            peak=3e-4,
            total_steps=total_steps,
            warmup_share=share,
            div_factor=div,
            final_div_factor=final_div,
        )(step)
        for step in range(total_steps)
    ]

    assert ours == pytest.approx(list(torch_rates(scheduler, total_steps)), rel=1e-12, abs=0)


@pytest.mark.parametrize("shares", [(), (0.5,), (0.3, 0.6, 0.9), (0.9, 0.25), (0.5, 0.5), (1.0,)])
def test_multistep_is_torchs(shares: tuple[float, ...]) -> None:
    """Over whole runs each rate is that of MultiStepLR."""
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=3e-4)
    scheduler = torch.optim.lr_scheduler.MultiStepLR(optimizer, [round(s * 200) for s in shares], gamma=0.3)
    ours = [
        RatePlan(kind="multistep", peak=3e-4, total_steps=200, milestones=shares, gamma=0.3)(step)
        for step in range(200)
    ]

    assert ours == pytest.approx(list(torch_rates(scheduler, 200)), rel=1e-12, abs=0)


def test_onecycle_at_a_top_on_the_first_step_starts_at_the_peak() -> None:
    """Where torch divides by zero (a warm-up of exactly one step) the run starts at the peak and only falls."""
    rates = [RatePlan(kind="onecycle", peak=1.0, total_steps=10, warmup_share=0.1)(step) for step in range(12)]

    assert rates[0] == 1.0
    assert all(later < earlier for earlier, later in pairwise(rates[:10]))
    assert rates[9] == rates[10] == rates[11] == pytest.approx(1 / 25 / 1e4, rel=1e-12)


@pytest.mark.parametrize("kind", ["onecycle", "cosine", "constant"])
def test_a_new_cycle_is_a_run_of_its_own(kind: Schedule) -> None:
    """Up to its step the rate is that of the run that ended there, then that of a run of the steps that are left."""
    made, left, whole = (
        [RatePlan(kind=kind, peak=0.1, total_steps=total, warmup_steps=3, new_cycle_at=cycle)(s) for s in range(total)]
        for total, cycle in ((20, 0), (30, 0), (50, 20))
    )

    assert whole == made + left


@pytest.mark.parametrize(("total_steps", "share"), [(100, 0.3), (7, 0.3), (1, 0.3), (50, 0.9)])
def test_cycled_momentum_is_torchs(total_steps: int, share: float) -> None:
    """Over whole runs each β1 is that of OneCycleLR; off, or with another schedule, there is none to set."""
    optimizer = torch.optim.AdamW([nn.Parameter(torch.zeros(1))], betas=(0.5, 0.9))
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=total_steps, pct_start=share)
    plan = RatePlan(kind="onecycle", peak=0.1, total_steps=total_steps, warmup_share=share, cycle_momentum=True)

    torchs = [optimizer.param_groups[0]["betas"][0] for _ in torch_rates(scheduler, total_steps - 1)]
    torchs.append(optimizer.param_groups[0]["betas"][0])

    assert [plan.first_beta(step) for step in range(total_steps)] == pytest.approx(torchs, abs=1e-12)
    assert RatePlan(kind="onecycle", peak=0.1, total_steps=9).first_beta(4) is None
    assert RatePlan(kind="constant", peak=0.1, total_steps=9, cycle_momentum=True).first_beta(4) is None


def test_cycled_momentum_begins_anew_with_the_cycle() -> None:
    """As the rate does."""
    once = RatePlan(kind="onecycle", peak=0.1, total_steps=10, cycle_momentum=True)
    twice = RatePlan(kind="onecycle", peak=0.1, total_steps=20, cycle_momentum=True, new_cycle_at=10)

    assert [twice.first_beta(step) for step in range(20)] == 2 * [once.first_beta(step) for step in range(10)]


def test_only_the_first_beta_is_set() -> None:
    """In every group; None leaves it."""
    _, optimizer = build()

    set_first_beta(optimizer, None)
    kept = [group["betas"] for group in optimizer.param_groups]
    set_first_beta(optimizer, 0.85)

    assert kept == [(0.5, 0.9)] * 2
    assert [group["betas"] for group in optimizer.param_groups] == [(0.85, 0.9)] * 2


def test_cosine_and_constant_with_warmup() -> None:
    """A linear rise over the first steps, then half a cosine to zero or a constant."""
    cosine = [RatePlan(kind="cosine", peak=2.0, total_steps=104, warmup_steps=4)(step) for step in range(110)]
    constant = [RatePlan(kind="constant", peak=2.0, total_steps=9, warmup_steps=4)(step) for step in range(9)]

    assert cosine[:5] == pytest.approx([0.5, 1.0, 1.5, 2.0, 2.0], rel=1e-12)
    assert cosine[4 + 25] == pytest.approx(1 + math.cos(math.pi / 4), rel=1e-12)
    assert cosine[54] == pytest.approx(1.0, rel=1e-12)
    assert cosine[104:] == pytest.approx([0.0] * 6, abs=1e-15)
    assert constant == [0.5, 1.0, 1.5, 2.0, 2.0, 2.0, 2.0, 2.0, 2.0]


def test_nonsense_is_refused() -> None:
    """A negative step, a run of no steps and an unknown kind are errors."""
    with pytest.raises(ValueError, match="got -1, 5"):
        RatePlan(kind="constant", peak=1.0, total_steps=5)(-1)
    with pytest.raises(ValueError, match="got 0, 0"):
        RatePlan(kind="constant", peak=1.0, total_steps=0)(0)
    with pytest.raises(ValueError, match="'steps'"):
        RatePlan(kind="steps", peak=1.0, total_steps=5)(0)  # type: ignore[arg-type]
