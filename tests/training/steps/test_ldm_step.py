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
from latentart.core.diffusion.process import add_noise, loss_weight, target_from
from latentart.core.diffusion.schedules import NoiseSchedule, make_betas
from latentart.core.diffusion.uncertainty import LearnedUncertainty
from latentart.core.ema import Ema
from latentart.core.networks.blocks import BlockShape, StackShape
from latentart.core.networks.unet import UNet
from latentart.errors import ModelError
from latentart.kinds import Target, Weighting
from latentart.process.devices import Placement
from latentart.process.lanes import Lanes
from latentart.storage.tensors import read_tensors, write_tensors
from latentart.training.steps.ldm_step import LdmBatch, LdmStep, LossByNoise
from latentart.training.steps.muon import build_muon
from latentart.training.steps.numbers import LostNumbersError, Numbers
from latentart.training.steps.optim import Learner, build_adamw

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
            StackShape(
                widths=(4, 8),
                num_blocks=1,
                attention=("none", "linear"),
                middle_attention="full",
                blocks=BlockShape(groups=2, head_channels=4, conditioning_channels=8),
            ),
        )
        for number, parameter in enumerate(denoiser.parameters()):
            parameter.data = draw(*parameter.shape, seed=number) / max(parameter[0].numel(), 4) ** 0.5
    optimizer = build_adamw(denoiser.parameters(), lr=1e-3, betas=(0.9, 0.99), weight_decay=1e-2)
    if uses_muon:
        optimizer = build_muon(denoiser, lr=1e-3, muon_lr=2e-3, betas=(0.9, 0.99), weight_decay=1e-2)  # type: ignore[assignment]
    task = task or DiffusionTask(SCHEDULE)
    return LdmStep(
        Learner(denoiser, Ema(denoiser), optimizer, [Ema(denoiser, relative_std=std) for std in tracks]),  # type: ignore[arg-type]
        task,
        CPU,
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
    assert scalars.keys() == {"loss", "gradient_norm", "skipped_steps"}
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
    expected = whole.state()[0]
    for name, part in second.state()[0].items():
        assert all(torch.equal(value, expected[name][key]) for key, value in part.items())


def test_an_update_with_numbers_that_are_not_finite_is_left_out() -> None:
    """Weights, averages and moments are what they were, losses by noise have no part in it, the next update is made."""
    step, given = build(tracks=(0.05,)), batch()
    step(given, 0, 1e-3)
    step.by_noise.take()
    before = copy.deepcopy(step.state()[0])

    left_out = step(LdmBatch(given.x0 * float("nan"), given.eps, given.t, given.style_id), 1, 1e-3)

    for name, part in step.state()[0].items():
        assert all(torch.equal(value, before[name][key]) for key, value in part.items())
    assert float(left_out["skipped_steps"]) == 1
    assert set(step.by_noise.take().values()) == {None}
    assert float(step(given, 2, 1e-3)["skipped_steps"]) == 1
    assert not torch.equal(step.denoiser.state_dict()["conv_in.weight"], before["denoiser"]["conv_in.weight"])


def test_a_gradient_that_is_not_finite_is_left_out_where_the_loss_is_sound() -> None:
    """And an update is the same bit for bit where one before it was left out."""
    step, twin = build(), build()
    hook = step.denoiser.conv_in.weight.register_hook(lambda gradient: gradient / 0)  # type: ignore[no-untyped-call]
    assert bool(step(batch(), 0, 1e-3)["loss"].isfinite())
    hook.remove()

    step(batch(1), 1, 1e-3)
    twin(batch(1), 1, 1e-3)

    expected = twin.state()[0]["denoiser"]
    assert all(torch.equal(value, expected[key]) for key, value in step.state()[0]["denoiser"].items())


def test_too_many_updates_left_out_end_it() -> None:
    """With what may say why."""
    step, given = build(), batch()
    step.numbers = Numbers("denoiser", max_skipped=2)
    bad = LdmBatch(given.x0, given.eps * float("inf"), given.t, given.style_id, (5, 6, 7, 8))
    step(bad, 4, 1e-3)

    with pytest.raises(
        LostNumbersError, match=r"denoiser diverged at step 6: 2 updates in a row .* loss nan"
    ) as caught:
        step(bad, 5, 1e-3)

    found = caught.value.evidence
    assert (found["step"], found["lr"], found["pictures"], found["skipped_steps"]) == (6, 1e-3, [5, 6, 7, 8], 2)
    assert found["gradient_norms"].keys() == dict(step.denoiser.named_children()).keys()


@pytest.mark.parametrize("weighting", WEIGHTINGS)
@pytest.mark.parametrize("size", [1, 2, 3, 4, 9])
def test_parts_of_a_batch_make_the_update_of_the_whole(size: int, weighting: Weighting) -> None:
    """Loss, gradients and, where they decide, weights within 1e-6: also where the last part is smaller."""
    task = DiffusionTask(SCHEDULE, weighting=weighting)
    whole, parts = build(None, task), build(None, task)
    parts.micro_batch = size

    scalars = [step(batch(), 0, 1e-3) for step in (whole, parts)]

    for name in ("loss", "gradient_norm"):
        torch.testing.assert_close(scalars[0][name], scalars[1][name], atol=1e-6, rtol=1e-6)
    for ours, theirs in zip(whole.denoiser.parameters(), parts.denoiser.parameters(), strict=True):
        assert ours.grad is not None
        torch.testing.assert_close(ours.grad, theirs.grad, atol=1e-6, rtol=1e-6)
    assert parts.by_noise.take() == pytest.approx(whole.by_noise.take(), abs=1e-6)
    if size >= 4:
        assert all(torch.equal(v, parts.denoiser.state_dict()[k]) for k, v in whole.denoiser.state_dict().items())


def test_parts_are_no_larger_than_asked_for() -> None:
    """The network sees three images, then one; the average moves once."""
    given, sizes = batch(), []
    oracle = Oracle(torch.zeros(1), 0.5)
    oracle.register_forward_pre_hook(lambda _, inputs: sizes.append(len(inputs[0])))
    step = build(oracle)
    step.micro_batch = 3

    step(given, 0, 1e-3)

    assert sizes == [3, 1]
    assert {int(state["step"]) for state in step.optimizer.state.values()} == {1}


@pytest.mark.parametrize(("room", "expected"), [(4, 4), (3, 2), (1, 1)])
@pytest.mark.parametrize("has_begun", [False, True])
def test_the_largest_part_that_fits_is_found_and_nothing_moves(room: int, expected: int, *, has_begun: bool) -> None:
    """Memory for ``room`` images: half by half, and the training after it is bit for bit the same."""
    step, twin = build(tracks=(0.05,)), build(tracks=(0.05,))
    if has_begun:
        step(batch(), 0, 1e-3)
        twin(batch(), 0, 1e-3)

    def refuse(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        if len(inputs[0]) > room:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    hook = step.denoiser.register_forward_pre_hook(refuse)
    assert step.fit_micro_batch(batch()) == step.micro_batch == expected
    hook.remove()
    step.micro_batch = None

    for number in range(1, 3):
        step(batch(number), number, 1e-3)
        twin(batch(number), number, 1e-3)
    (ours, our_values), (others, other_values) = step.state(), twin.state()
    assert our_values == other_values
    for name, part in ours.items():
        assert part.keys() == others[name].keys()
        assert all(torch.equal(value, others[name][key]) for key, value in part.items())


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
        StackShape(
            widths=(4, 8),
            num_blocks=1,
            attention=("none", "none"),
            middle_attention="none",
            blocks=BlockShape(groups=2, head_channels=4, conditioning_channels=8),
        ),
    )
    for number, parameter in enumerate(denoiser.parameters()):
        parameter.data = draw(*parameter.shape, seed=number) / max(parameter[0].numel(), 4) ** 0.5
    step, given = build(denoiser), batch()

    step(LdmBatch(given.x0, given.eps, given.t, torch.tensor([[1, 0], [1, 2], [3, 0], [3, 2]])), 0, 1e-3)

    gradient = step.denoiser.style_embedding.weight.grad
    assert gradient is not None
    assert gradient.any(1).tolist() == [False, True, False, True, True, False, True]


@pytest.mark.parametrize("weighting", ["min_snr", "learned"])
def test_lanes_are_parts_of_a_batch_at_once(weighting: Weighting) -> None:
    """Two lanes leave, bit for bit, what the same parts leave one after the other."""
    one, two = build(task=DiffusionTask(SCHEDULE, "v", weighting)), build(task=DiffusionTask(SCHEDULE, "v", weighting))
    one.micro_batch, two.lanes = 2, Lanes(2)

    for number in range(3):
        scalars, others = one(batch(number), number, 1e-3), two(batch(number), number, 1e-3)

    assert all(torch.equal(value, others[name]) for name, value in scalars.items())
    first, second = one.state()[0], two.state()[0]
    assert all(torch.equal(value, second[name][key]) for name in first for key, value in first[name].items())
