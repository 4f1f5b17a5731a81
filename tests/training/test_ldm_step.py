"""One update of the denoiser: a perfect one has no loss, and a restored one goes on bit for bit."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

import pytest
import torch
from torch import Tensor, nn

from latentart.core.diffusion.objective import DiffusionTask
from latentart.core.diffusion.process import Target, Weighting, add_noise, loss_weight, target_from
from latentart.core.diffusion.schedules import NoiseSchedule, make_betas
from latentart.core.diffusion.uncertainty import LearnedUncertainty
from latentart.core.ema import Ema
from latentart.core.networks.blocks import BlockShape
from latentart.core.networks.unet import UNet
from latentart.errors import ModelError, TrainingDivergedError
from latentart.training.checkpoint import read_tensors, write_tensors
from latentart.training.devices import Placement
from latentart.training.ldm_step import LdmBatch, LdmStep, LossByNoise
from latentart.training.muon import build_muon
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


def build(
    denoiser: nn.Module | None = None,
    task: DiffusionTask | None = None,
    tracks: Sequence[float] = (),
    *,
    uses_muon: bool = False,
) -> LdmStep:
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
    if uses_muon:
        optimizer = build_muon(denoiser, lr=1e-3, muon_lr=2e-3, betas=(0.9, 0.99), weight_decay=1e-2)  # type: ignore[assignment]
    task = task or DiffusionTask(SCHEDULE)
    return LdmStep(
        denoiser,  # type: ignore[arg-type]
        Ema(denoiser),
        optimizer,
        task,
        CPU,
        tracks=[Ema(denoiser, relative_std=std) for std in tracks],
        uncertainty=LearnedUncertainty() if task.weighting == "learned" else None,
    )


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


@pytest.mark.parametrize("uses_muon", [False, True])
@pytest.mark.parametrize("is_plain", [True, False])
def test_a_restored_step_goes_on_bit_for_bit(*, is_plain: bool, uses_muon: bool) -> None:
    """Two updates, state into a new step, two more: all tensors equal four updates in one go.

    With averages that are tracked beside and learned weights too.
    """
    task = None if is_plain else DiffusionTask(SCHEDULE, weighting="learned")
    tracks = () if is_plain else (0.05, 0.1)
    whole, first, second = (build(None, task, tracks, uses_muon=uses_muon) for _ in range(3))
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
    more = set() if is_plain else {"average_0500", "average_1000", "uncertainty"}
    assert ours[0].keys() == {"denoiser", "ema", "optimizer", *more}
    for name, part in ours[0].items():
        assert part.keys() == theirs[0][name].keys()
        assert all(torch.equal(value, theirs[0][name][key]) for key, value in part.items())


def test_channels_last_weights_go_on_bit_for_bit_through_files(tmp_path: Path) -> None:
    """As on a GPU: files hold plain tensors, and moments come back in the layout of their weights."""
    whole, first, second = (build() for _ in range(3))
    for step in (whole, first, second):
        for network in (step.denoiser, step.ema.network):
            network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    for number in range(4):
        whole(batch(number), number, 1e-3)
    for number in range(2):
        first(batch(number), number, 1e-3)
    tensors, values = first.state()
    for name, part in tensors.items():
        write_tensors(tmp_path / name, part)

    second.restore({name: read_tensors(tmp_path / name) for name in tensors}, values)
    kernel = second.denoiser.conv_in.weight
    moment = second.optimizer.state[kernel]["exp_avg"]
    for number in range(2, 4):
        second(batch(number), number, 1e-3)

    assert kernel.is_contiguous(memory_format=torch.channels_last)
    assert moment.stride() == kernel.stride()
    for name, part in second.state()[0].items():
        assert all(torch.equal(value, whole.state()[0][name][key]) for key, value in part.items())


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


def test_every_track_is_the_average_of_its_width() -> None:
    """Each moves as an average alone would."""
    step = build(tracks=(0.05, 0.2))
    alone = [Ema(step.denoiser, relative_std=0.05), Ema(step.denoiser, relative_std=0.2)]
    for number in range(5):
        step(batch(number), number, 1e-2)
        for average in alone:
            average.update(step.denoiser, number + 1)

    states = [track.network.state_dict() for track in step.tracks.values()]
    for average, state in zip(alone, states, strict=True):
        assert all(torch.equal(value, state[name]) for name, value in average.network.state_dict().items())
    assert not torch.equal(states[0]["conv_in.weight"], states[1]["conv_in.weight"])


@pytest.mark.parametrize("has_them", [False, True])
def test_other_averages_or_weights_than_were_saved_are_refused(*, has_them: bool) -> None:
    """An average cannot begin in the middle of a run: what is missing or too much is named."""
    task = DiffusionTask(SCHEDULE, weighting="learned")
    plain, full = build(), build(None, task, (0.05,))
    saved, taking = (full, plain) if has_them else (plain, full)
    tensors, values = saved.state()

    says = "it has average_0500, uncertainty too" if has_them else "it has no average_0500, uncertainty"
    with pytest.raises(ModelError, match=f"The saved step does not fit: {says}"):
        taking.restore(tensors, values)


def test_learned_weights_are_trained_without_decay() -> None:
    """They have their own group, and move towards the log of the error."""
    step = build(None, DiffusionTask(SCHEDULE, weighting="learned"))
    assert step.uncertainty is not None

    for number in range(3):
        step(batch(number), number, 1e-2)

    group = step.optimizer.param_groups[-1]
    assert (len(group["params"]), group["weight_decay"]) == (1, 0.0)
    assert group["params"][0] is step.uncertainty.weight
    assert step.uncertainty.weight.detach().any()


def test_the_loss_by_noise_is_the_plain_one() -> None:
    """Off by 0.5 everywhere, each part of the timesteps that was met has 0.25, whatever the weights."""
    given = batch()
    truth = target_from("v", given.x0, given.eps, SCHEDULE.alpha_bar[given.t])
    step = build(Oracle(truth, 0.5), DiffusionTask(SCHEDULE, "v", "min_snr"))

    step(given, 0, 0.0)
    first, second = step.by_noise.take(), step.by_noise.take()

    met = {f"loss_t{i}": pytest.approx(0.25) for i in (0, 2, 5, 7)}
    assert first == {f"loss_t{i}": None for i in range(8)} | met
    assert set(second.values()) == {None}


def test_losses_are_averaged_over_the_steps_in_equal_parts() -> None:
    """Each part has the mean of its own images since the last time, at every number of timesteps."""
    by_noise = LossByNoise(100, torch.device("cpu"))
    by_noise.add(torch.tensor([0, 12, 13, 99]), torch.tensor([1.0, 2.0, 10.0, 5.0]))
    by_noise.add(torch.tensor([3, 50]), torch.tensor([6.0, 7.0]))
    few = LossByNoise(2, torch.device("cpu"))
    few.add(torch.tensor([0, 1]), torch.tensor([1.0, 2.0]))

    assert list(by_noise.take("x").values()) == [3.0, 10.0, None, None, 7.0, None, None, 5.0]
    assert few.take("x") == {f"x_t{i}": {0: 1.0, 4: 2.0}.get(i) for i in range(8)}


def test_labels_of_several_columns_train_their_own_rows() -> None:
    """Only the rows of the labels in the batch get a gradient."""
    denoiser = UNet(
        2,
        [3, 2],
        (4, 8),
        num_blocks=1,
        attention=("none", "none"),
        middle_attention="none",
        downsampling="average",
        upsampling="nearest",
        shape=BlockShape(groups=2, head_channels=4, conditioning_channels=8),
    )
    for number, parameter in enumerate(denoiser.parameters()):
        parameter.data = draw(*parameter.shape, seed=number) / max(parameter[0].numel(), 4) ** 0.5
    step, given = build(denoiser), batch()

    step(LdmBatch(given.x0, given.eps, given.t, torch.tensor([[1, 0], [1, 2], [3, 0], [3, 2]])), 0, 1e-3)

    gradient = step.denoiser.style_embedding.weight.grad
    assert gradient is not None
    assert gradient.any(1).tolist() == [False, True, False, True, True, False, True]
