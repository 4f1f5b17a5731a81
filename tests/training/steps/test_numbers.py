"""Which updates may be made, when a run gives up, and which losses are named as jumps."""

from __future__ import annotations

import json
import logging
import math
from typing import Any

import pytest
import torch
from torch import nn

from latentart.training.steps.numbers import LostNumbersError, Numbers, norms_by_module, read_numbers


def tell(numbers: Numbers, *losses: float, first: int = 0) -> list[bool]:
    """Let numbers see losses, one a step."""
    return [
        numbers.allow(step, {"loss": loss}, "loss", lambda: {"pictures": [3, 9]})
        for step, loss in enumerate(losses, start=first)
    ]


def noisy(count: int, spread: float = 0.1, seed: int = 0) -> list[float]:
    """Return losses around 1 whose logs are normal."""
    noise = torch.randn(count, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return (spread * noise).exp().tolist()


def test_only_finite_numbers_are_allowed_and_the_others_counted(caplog: pytest.LogCaptureFixture) -> None:
    """Each one left out is a warning with its step, counted from 1; a sound one ends the row."""
    numbers = Numbers("denoiser", max_skipped=3)

    allowed = tell(numbers, 1.0, math.nan, math.inf, 1.0, -math.inf, math.nan, 1.0)

    assert allowed == [True, False, False, True, False, False, True]
    assert numbers.skipped == 4
    assert [record.levelno for record in caplog.records] == [logging.WARNING] * 4
    assert caplog.messages[0] == "denoiser: the update of step 2 is left out, its numbers are not finite: loss nan"


def test_any_number_counts() -> None:
    """A gradient norm alone is enough."""
    assert not Numbers().allow(0, {"loss": 1.0, "gradient_norm": math.inf}, "loss", dict)


def test_the_last_of_a_row_gives_up() -> None:
    """With the losses before it, twenty at most."""
    numbers = Numbers("denoiser", max_skipped=2)
    tell(numbers, *noisy(40), math.nan)

    with pytest.raises(LostNumbersError, match="the denoiser diverged at step 42: 2 updates in a row") as caught:
        tell(numbers, math.nan, first=41)

    losses = caught.value.evidence["last_losses"]
    assert losses[:18] == noisy(40)[22:]
    assert [math.isnan(loss) for loss in losses] == [False] * 18 + [True] * 2
    assert caught.value.exit_code == 7


@pytest.mark.parametrize("spread", [0.01, 0.3, 1.0])
def test_a_jump_is_named_once_with_its_pictures(caplog: pytest.LogCaptureFixture, spread: float) -> None:
    """Seven deviations above the mean of the logs: one line, however long it stays there; then the next jump."""
    numbers, high = Numbers("denoiser"), math.exp(7.5 * max(spread, 0.02))
    tell(numbers, *noisy(300, spread))
    assert caplog.messages == []

    tell(numbers, high, high, *noisy(50, spread, seed=1), high, first=300)

    assert [message.partition(" to ")[0] for message in caplog.messages] == ["denoiser: the loss jumped"] * 2
    assert "at step 301," in caplog.messages[0]
    assert "at step 353," in caplog.messages[1]
    assert caplog.messages[0].endswith("pictures of the batch: 3, 9")


def test_a_jump_of_any_height_does_not_hide_the_next(caplog: pytest.LogCaptureFixture) -> None:
    """What is usual is not widened by it."""
    tell(Numbers(), *noisy(300), 1e30, *noisy(50, seed=1), 3.0)

    assert [message.partition(" at step ")[2].partition(",")[0] for message in caplog.messages] == ["301", "352"]


def test_a_loss_that_falls_or_has_just_begun_is_no_jump(caplog: pytest.LogCaptureFixture) -> None:
    """Nor is one of zero, which has no log."""
    tell(Numbers(), 1.0, 100.0, 1.0, 1e4)
    tell(Numbers(), *(10 * 0.99**step for step in range(500)), 0.0)

    assert caplog.messages == []


def test_a_higher_loss_that_stays_becomes_usual(caplog: pytest.LogCaptureFixture) -> None:
    """A jump to a new level is named once, and another from there again."""
    numbers = Numbers()
    tell(numbers, *noisy(200), *(5 * loss for loss in noisy(1500, seed=1)), *(500 * loss for loss in noisy(5)))

    assert [message.split(" at step ")[1].split(",")[0] for message in caplog.messages] == ["201", "1701"]


def test_restored_numbers_go_on_the_same(caplog: pytest.LogCaptureFixture) -> None:
    """Through JSON, in a row of updates left out: what is counted, followed and lowered stays."""
    whole, first, second = Numbers(), Numbers(), Numbers()
    losses = [*noisy(80), math.nan, math.nan, *noisy(30, seed=1), 50.0]
    for numbers in (whole, first):
        numbers.go_back()
    tell(whole, *losses)
    tell(first, *losses[:81])

    second.restore(json.loads(json.dumps(first.state())))
    tell(second, *losses[81:], first=81)

    assert second.state() == whole.state()
    assert second.has_gone_back


def test_a_rate_once_lowered_stays_low() -> None:
    """Also where an older checkpoint, or one without numbers, is taken afterwards."""
    numbers = Numbers()
    assert [numbers.scale(float)(step) for step in (1, 2)] == [1.0, 2.0]
    before = numbers.state()
    numbers.go_back()

    values: list[dict[str, Any]] = [before, {}]
    for saved in values:
        numbers.restore(saved)
        assert (numbers.rate_factor, numbers.scale(float)(3)) == (0.5, 1.5)


def test_scalars_are_read_together() -> None:
    """Their names and values, whatever their types."""
    values = {"a": torch.tensor(0.1), "b": torch.tensor(2.0, dtype=torch.bfloat16), "c": torch.tensor(math.inf)}

    assert read_numbers(values) == {"a": float(values["a"]), "b": 2.0, "c": math.inf}


def test_gradients_are_measured_module_by_module() -> None:
    """Each top-level module has its norm, those without gradients have none, a loose weight has its own."""
    network = nn.ModuleDict({"first": nn.Linear(2, 1), "second": nn.Linear(2, 1), "third": nn.Linear(2, 1)})
    network.register_parameter("loose", nn.Parameter(torch.ones(1)))
    first, second = network["first"], network["second"]
    assert isinstance(first, nn.Linear)
    assert isinstance(second, nn.Linear)
    first.weight.grad, first.bias.grad = torch.tensor([[2.0, 3.0]]), torch.tensor([6.0])
    second.weight.grad = torch.tensor([[math.nan, 0.0]])
    network.get_parameter("loose").grad = torch.tensor([-4.0])

    norms = norms_by_module(network)

    assert norms.pop("second") != 0
    assert norms == {"first": 7.0, "own": 4.0}
