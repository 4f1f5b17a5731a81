"""One update of the denoiser: a perfect one has no loss, and a restored one goes on bit for bit."""

from __future__ import annotations

import copy
from typing import get_args

import pytest
import torch
from torch import Tensor, nn

from latentart.core.diffusion.objective import DiffusionTask
from latentart.core.diffusion.process import Target, Weighting, add_noise, loss_weight, target_from
from latentart.core.diffusion.schedules import NoiseSchedule, make_betas
from latentart.core.ema import Ema
from latentart.core.networks.blocks import BlockShape
from latentart.core.networks.unet import UNet
from latentart.errors import TrainingDivergedError
from latentart.training.devices import Placement
from latentart.training.ldm_step import LdmBatch, LdmStep
from latentart.training.optim import build_adamw

CPU = Placement(torch.device("cpu"), "fp32")
SCHEDULE = NoiseSchedule.from_betas(make_betas("cosine", 1000))
TARGETS, WEIGHTINGS = get_args(Target), get_args(Weighting)


class Oracle(nn.Module):
    """A denoiser that knows the answer and is off by ``error``; it remembers what it was asked."""

    def __init__(self, answer: Tensor, error: float = 0.0) -> None:
        super().__init__()
        self.offset = nn.Parameter(torch.tensor(error))
        self.answer = answer
        self.asked: tuple[Tensor, Tensor, Tensor] | None = None

    def forward(self, x_t: Tensor, t: Tensor, style_id: Tensor) -> Tensor:
        """Return the answer."""
        self.asked = (x_t, t, style_id)
        return self.answer + self.offset


def draw(*shape: int, seed: int = 0) -> Tensor:
    """Return normal float32 numbers."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def batch(seed: int = 0) -> LdmBatch:
    """Return four latents with their noise, timesteps and styles, the last one dropped to the null style."""
    t = torch.tensor([0, 250, 700, 999])
    return LdmBatch(draw(4, 2, 4, 4, seed=seed), draw(4, 2, 4, 4, seed=seed + 1), t, torch.tensor([0, 1, 2, 3]))


def build(denoiser: nn.Module | None = None, task: DiffusionTask | None = None) -> LdmStep:
    """Return a step over a tiny denoiser of three styles, always the same."""
    if denoiser is None:
        denoiser = UNet(
            2,
            [3],
            (4, 8),
            num_blocks=1,
            attention=("none", "linear"),
            middle_attention="full",
            downsampling="average",
            upsampling="nearest",
            shape=BlockShape(groups=2, head_channels=4, conditioning_channels=8),
        )
        for number, parameter in enumerate(denoiser.parameters()):
            parameter.data = draw(*parameter.shape, seed=number) / max(parameter[0].numel(), 4) ** 0.5
    optimizer = build_adamw(denoiser.parameters(), lr=1e-3, betas=(0.9, 0.99), weight_decay=1e-2)
    return LdmStep(denoiser, Ema(denoiser), optimizer, task or DiffusionTask(SCHEDULE), CPU)  # type: ignore[arg-type]


@pytest.mark.parametrize("weighting", WEIGHTINGS)
@pytest.mark.parametrize("target", TARGETS)
def test_a_perfect_denoiser_has_no_loss(target: Target, weighting: Weighting) -> None:
    """Who predicts the target exactly scores 0 for every target, weighting and timestep."""
    given = batch()
    truth = target_from(target, given.x0, given.eps, SCHEDULE.alpha_bar[given.t])
    oracle = Oracle(truth)

    loss = build(oracle, DiffusionTask(SCHEDULE, target, weighting)).loss_per_image(given)

    assert torch.equal(loss.detach(), torch.zeros(4))
    assert oracle.asked is not None
    x_t, t, style_id = oracle.asked
    assert torch.equal(x_t, add_noise(given.x0, given.eps, SCHEDULE.alpha_bar[given.t]))
    assert torch.equal(t, given.t)
    assert torch.equal(style_id, given.style_id)


@pytest.mark.parametrize("weighting", WEIGHTINGS)
@pytest.mark.parametrize("target", TARGETS)
def test_an_error_is_squared_and_weighed(target: Target, weighting: Weighting) -> None:
    """Off by 0.5 everywhere, each image scores 0.25 times the weight of its noise level."""
    given = batch()
    truth = target_from(target, given.x0, given.eps, SCHEDULE.alpha_bar[given.t])

    loss = build(Oracle(truth, 0.5), DiffusionTask(SCHEDULE, target, weighting, 3.0)).loss_per_image(given)

    expected = 0.25 * loss_weight(weighting, target, SCHEDULE.snr[given.t], 3.0)
    torch.testing.assert_close(loss.detach(), expected.float(), atol=1e-7, rtol=1e-5)


def test_a_step_moves_the_weights_and_the_average_and_reports() -> None:
    """The loss reported is the mean over the images before the update."""
    step, twin = build(), build()
    expected = twin.loss_per_image(batch()).mean().detach()

    scalars = step(batch(), 0, 3e-4)

    before, after = twin.denoiser.state_dict(), step.denoiser.state_dict()
    assert scalars.keys() == {"loss", "gradient_norm"}
    torch.testing.assert_close(scalars["loss"], expected, atol=1e-7, rtol=1e-6)
    assert [name for name in after if torch.equal(after[name], before[name])] == []
    assert {group["lr"] for group in step.optimizer.param_groups} == {3e-4}
    # the first update takes the weights whole
    assert all(torch.equal(value, after[name]) for name, value in step.ema.network.state_dict().items())


def test_training_lowers_the_loss() -> None:
    """On one batch that stays, a few updates help."""
    step = build()

    losses = [float(step(batch(), number, 3e-3)["loss"]) for number in range(20)]

    assert losses[-1] < 0.9 * losses[0]


def test_a_restored_step_goes_on_bit_for_bit() -> None:
    """Two updates, state into a new step, two more: all tensors equal four updates in one go."""
    whole, first, second = build(), build(), build()
    for number in range(4):
        whole(batch(number), number, 1e-3)
    for number in range(2):
        first(batch(number), number, 1e-3)
    tensors, values = copy.deepcopy(first.state())

    second.restore(tensors, values)
    for number in range(2, 4):
        second(batch(number), number, 1e-3)

    ours, theirs = second.state(), whole.state()
    assert ours[1] == theirs[1]
    assert ours[0].keys() == {"denoiser", "ema", "optimizer"}
    for name, part in ours[0].items():
        assert part.keys() == theirs[0][name].keys()
        assert all(torch.equal(value, theirs[0][name][key]) for key, value in part.items())


def test_a_loss_that_is_not_finite_ends_the_run_before_any_weight_moves() -> None:
    """Weights, average and moments are what they were."""
    step, given = build(), batch()
    step(given, 0, 1e-3)
    before = copy.deepcopy(step.state()[0])

    with pytest.raises(TrainingDivergedError, match="denoiser diverged at step 2: loss nan"):
        step(LdmBatch(given.x0 * float("nan"), given.eps, given.t, given.style_id), 1, 1e-3)

    for name, part in step.state()[0].items():
        assert all(torch.equal(value, before[name][key]) for key, value in part.items())


def test_a_style_learns_from_its_own_pictures_only() -> None:
    """Rows of styles that are not in the batch get no gradient; a dropped style trains the null row."""
    step, given = build(), batch()

    step(LdmBatch(given.x0, given.eps, given.t, torch.tensor([1, 1, 3, 3])), 0, 1e-3)

    gradient = step.denoiser.style_embedding.weight.grad
    assert gradient is not None
    assert gradient.any(1).tolist() == [False, True, False, True]
