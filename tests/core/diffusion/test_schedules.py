"""Schedules: literature values, the clean end, and grids of timesteps."""

from __future__ import annotations

from itertools import pairwise
from typing import get_args

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from latentart.core.diffusion.schedules import NoiseSchedule, make_betas, straight_alpha_bar, timestep_pairs
from latentart.kinds import ScheduleKind, Spacing

KINDS = st.sampled_from(get_args(ScheduleKind))
SPACINGS = get_args(Spacing)


def schedule_of(num_steps: int, kind: ScheduleKind = "linear") -> NoiseSchedule:
    """Return a schedule of so many steps."""
    return NoiseSchedule.from_betas(make_betas(kind, num_steps))


# T = 1000 with the defaults: first and last β, then ᾱ at 0, 249, 499, 749, 999, to the digits given
GOLDEN = {
    "linear": (["1.000e-04", "2.000e-02"], ["0.999900", "0.524085", "0.078587", "0.003351"], "4.0358e-05"),
    "quadratic": (["1.000e-04", "2.000e-02"], ["0.999900", "0.821521", "0.333188", "0.038606"], "7.3341e-04"),
    "sigmoid": (["1.492e-04", "1.995e-02"], ["0.999851", "0.903745", "0.301931", "0.005732"], "3.9682e-05"),
    "cosine": (["4.128e-05", "9.990e-01"], ["0.999959", "0.847012", "0.493844", "0.144272"], "2.4288e-09"),
}


@pytest.mark.parametrize("kind", GOLDEN)
def test_schedule_has_its_golden_values(kind: ScheduleKind) -> None:
    """Every schedule agrees with values computed independently in double precision."""
    betas, alpha_bar, alpha_bar_end = GOLDEN[kind]

    schedule = NoiseSchedule.from_betas(make_betas(kind, 1000))

    assert [f"{schedule.betas[t]:.3e}" for t in (0, 999)] == betas
    assert [f"{schedule.alpha_bar[t]:.6f}" for t in (0, 249, 499, 749)] == alpha_bar
    assert f"{schedule.alpha_bar[999]:.4e}" == alpha_bar_end


def test_cosine_clips_only_its_last_beta() -> None:
    """The clip of the cosine schedule touches one step of a thousand."""
    betas = make_betas("cosine", 1000)

    assert (betas == 0.999).nonzero().flatten().tolist() == [999]


@given(kind=KINDS, num_steps=st.integers(1, 2000))
def test_alpha_bar_falls_strictly_within_0_and_1(kind: ScheduleKind, num_steps: int) -> None:
    """Each step leaves less of the picture than the one before, and never nothing."""
    schedule = NoiseSchedule.from_betas(make_betas(kind, num_steps))

    assert schedule.num_steps == len(schedule.alpha_bar) == num_steps
    assert schedule.betas.dtype == schedule.alpha_bar.dtype == torch.float64
    assert schedule.alpha_bar[-1] > 0
    assert schedule.alpha_bar[0] < 1
    assert bool((schedule.alpha_bar.diff() < 0).all())


def test_straight_has_its_golden_values() -> None:
    """By hand for four steps: τ = 1/4 … 1 give (3/4)²/((3/4)² + (1/4)²) = 9/10 and so on, to the bit."""
    schedule = NoiseSchedule.from_alpha_bar(straight_alpha_bar(4))

    assert schedule.alpha_bar.tolist() == [9 / 10, 1 / 2, 1 / 10, 0]
    assert schedule.betas.tolist() == pytest.approx([1 / 10, 4 / 9, 4 / 5, 1], rel=1e-15)
    assert schedule.snr.tolist() == pytest.approx([9, 1, 1 / 9, 0], rel=1e-15)
    assert straight_alpha_bar(4, shift=3.0).tolist() == [1 / 2, 1 / 10, 1 / 82, 0]


@pytest.mark.parametrize("shift", [1.0, 1.1, 3.0, 100.0])
@pytest.mark.parametrize("num_steps", [1, 2, 999, 100_000])
def test_straight_ends_in_pure_noise(num_steps: int, shift: float) -> None:
    """The last ᾱ is 0 and the last β 1, to the bit, whatever the shift; before, ᾱ falls within 0 and 1."""
    schedule = NoiseSchedule.from_alpha_bar(straight_alpha_bar(num_steps, shift))

    assert (float(schedule.alpha_bar[-1]), float(schedule.betas[-1])) == (0, 1)
    assert bool(((schedule.betas > 0) & (schedule.betas <= 1)).all())
    assert bool((schedule.alpha_bar.diff() < 0).all())


@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_straight_is_the_path_of_rectified_flow_at_unit_variance(shift: float) -> None:
    """√ᾱ : √(1-ᾱ) is (1-τ) : τ with τ shifted as in Esser et al., eq. 23."""
    alpha_bar = straight_alpha_bar(1000, shift)[:-1]
    tau = torch.arange(1, 1000, dtype=torch.float64) / 1000
    tau = shift * tau / (1 + (shift - 1) * tau)

    length = ((1 - tau) ** 2 + tau**2).sqrt()

    torch.testing.assert_close(alpha_bar.sqrt() * length, 1 - tau, atol=1e-14, rtol=0)
    torch.testing.assert_close((1 - alpha_bar).sqrt() * length, tau, atol=1e-12, rtol=0)


@pytest.mark.parametrize("kind", get_args(ScheduleKind))
def test_zero_terminal_snr_moves_the_last_and_keeps_the_first(kind: ScheduleKind) -> None:
    """ᾱ ends at 0, starts where it did and falls in between, √ᾱ of all steps by one stretch; twice is once."""
    before = schedule_of(1000, kind)

    after = before.to_zero_terminal_snr()

    assert after.alpha_bar[0] == before.alpha_bar[0]
    assert (float(after.alpha_bar[-1]), float(after.betas[-1])) == (0, 1)
    stretch = after.alpha_bar.sqrt().diff() / before.alpha_bar.sqrt().diff()
    torch.testing.assert_close(stretch, stretch[500].expand(999), atol=1e-8, rtol=0)
    assert after.to_zero_terminal_snr() is after
    straight = NoiseSchedule.from_alpha_bar(straight_alpha_bar(10))
    assert straight.to_zero_terminal_snr() is straight


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # between diffusers and numpy
@pytest.mark.parametrize("kind", get_args(ScheduleKind))
def test_zero_terminal_snr_is_that_of_diffusers(kind: ScheduleKind) -> None:
    """The same β, in double precision."""
    twin = pytest.importorskip("diffusers.schedulers.scheduling_ddim")
    before = schedule_of(1000, kind)

    betas = before.to_zero_terminal_snr().betas

    torch.testing.assert_close(betas, twin.rescale_zero_terminal_snr(before.betas), atol=1e-11, rtol=0)


def test_a_schedule_is_the_same_by_either_table() -> None:
    """ᾱ made of β gives back β, and is kept as it was given."""
    by_betas = schedule_of(1000, "cosine")

    by_alpha_bar = NoiseSchedule.from_alpha_bar(by_betas.alpha_bar)

    torch.testing.assert_close(by_alpha_bar.betas, by_betas.betas, atol=1e-14, rtol=0)
    assert torch.equal(by_alpha_bar.alpha_bar, by_betas.alpha_bar)


def test_parameters_shape_the_schedule() -> None:
    """The parameters of a schedule are used, not only accepted."""
    linear = make_betas("linear", 10, beta_start=0.01, beta_end=0.1)
    sigmoid = make_betas("sigmoid", 11, beta_start=0.01, beta_end=0.1, sigmoid_range=30.0)
    cosine = make_betas("cosine", 10, cosine_offset=0.0, max_beta=0.5)

    torch.testing.assert_close(linear, torch.arange(1, 11, dtype=torch.float64) / 100)
    torch.testing.assert_close(sigmoid[[0, 5, 10]], torch.tensor([0.01, 0.055, 0.1]).double(), atol=1e-8, rtol=0)
    assert cosine.max() == 0.5
    torch.testing.assert_close(1 - cosine[0], torch.tensor(torch.pi / 20).double().cos() ** 2)


def test_clean_end_is_exactly_1() -> None:
    """At t = -1 ᾱ is 1, elsewhere it is the table, for a number and for a tensor alike."""
    schedule = NoiseSchedule.from_betas(make_betas("cosine", 1000))

    at_ints = torch.stack([schedule.alpha_bar_at(t) for t in (-1, 0, 999)])
    at_tensor = schedule.alpha_bar_at(torch.tensor([-1, 0, 999]))

    expected = torch.stack([torch.ones((), dtype=torch.float64), schedule.alpha_bar[0], schedule.alpha_bar[999]])
    assert torch.equal(at_ints, expected)
    assert torch.equal(at_tensor, expected)


@pytest.mark.parametrize("t", [-2, 1000])
def test_timestep_out_of_range_is_refused(t: int) -> None:
    """A timestep outside -1 … T-1 does not wrap around."""
    schedule = NoiseSchedule.from_betas(make_betas("linear", 1000))

    with pytest.raises(ValueError, match=f"t: got {t}, expected -1 to 999"):
        schedule.alpha_bar_at(t)


def test_snr_is_signal_over_noise() -> None:
    """The ratio ᾱ/(1-ᾱ) is 1 where half of the variance is noise, 0 where all of it is."""
    schedule = NoiseSchedule.from_betas(torch.tensor([0.2, 0.375, 1.0], dtype=torch.float64))

    torch.testing.assert_close(schedule.snr, torch.tensor([4.0, 1.0, 0.0], dtype=torch.float64))


def test_schedule_moves_only_when_it_must() -> None:
    """Moving a schedule to where it is costs nothing; elsewhere both tables follow."""
    schedule = NoiseSchedule.from_betas(make_betas("linear", 10))

    moved = schedule.to("meta")

    assert schedule.to("cpu") is schedule
    assert moved.betas.is_meta
    assert moved.alpha_bar_at(3).is_meta


@pytest.mark.parametrize(
    "betas",
    [torch.tensor([0.1]), torch.zeros(2, 2).double(), torch.zeros(0).double(), torch.tensor([0.0, 0.5]).double()],
    ids=["float32", "matrix", "empty", "zero"],
)
def test_unsound_betas_are_refused(betas: torch.Tensor) -> None:
    """A schedule is made only of float64 variances in (0, 1]."""
    with pytest.raises(ValueError, match="betas: got"):
        NoiseSchedule.from_betas(betas)


@pytest.mark.parametrize(
    "alpha_bar",
    [
        torch.tensor([0.5]),
        torch.zeros(0).double(),
        torch.tensor([1.0, 0.5]).double(),
        torch.tensor([0.5, 0.5]).double(),
        torch.tensor([0.5, -0.1]).double(),
        torch.tensor([0.5, float("nan")]).double(),
    ],
    ids=["float32", "empty", "clean", "level", "negative", "nan"],
)
def test_unsound_alpha_bar_is_refused(alpha_bar: torch.Tensor) -> None:
    """A schedule is made only of float64 shares that fall from below 1 to 0 at the least."""
    with pytest.raises(ValueError, match="alpha_bar: got"):
        NoiseSchedule.from_alpha_bar(alpha_bar)


def test_unsound_schedule_parameters_are_refused() -> None:
    """A wrong kind, count or range says what it got and what it expected."""
    with pytest.raises(ValueError, match="kind: got 'cosin'"):
        make_betas("cosin", 10)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="num_steps: got 0"):
        make_betas("linear", 0)
    with pytest.raises(ValueError, match="num_steps: got 0"):
        straight_alpha_bar(0)
    with pytest.raises(ValueError, match=r"shift: got 0\.0, expected a number above 0"):
        straight_alpha_bar(10, 0.0)
    with pytest.raises(ValueError, match="num_steps: got 1, expected at least 2"):
        schedule_of(1).to_zero_terminal_snr()
    with pytest.raises(ValueError, match=r"betas: got -0\.1 … 0\.02"):
        make_betas("quadratic", 10, beta_start=-0.1)


@given(
    kind=KINDS,
    spacing=st.sampled_from(SPACINGS),
    counts=st.integers(1, 1200).flatmap(lambda T: st.tuples(st.just(T), st.integers(1, T))),
)
def test_pairs_walk_strictly_down_to_the_clean_end(
    kind: ScheduleKind, spacing: Spacing, counts: tuple[int, int]
) -> None:
    """For every N <= T there are N linked pairs, each going down, the last to -1."""
    num_train, num_steps = counts

    pairs = timestep_pairs(schedule_of(num_train, kind), num_steps, spacing)

    assert len(pairs) == num_steps
    assert pairs[0][0] <= num_train - 1
    assert pairs[-1][1] == -1
    assert all(t > t_prev for t, t_prev in pairs)
    assert all(before[1] == after[0] for before, after in pairwise(pairs))


@pytest.mark.parametrize("spacing", SPACINGS)
def test_as_many_steps_as_trained_visits_each_once(spacing: Spacing) -> None:
    """N = T is every training step, in order, whatever the spacing."""
    assert timestep_pairs(schedule_of(37), 37, spacing) == [(t, t - 1) for t in range(36, -1, -1)]


def test_spacings_differ_at_their_ends() -> None:
    """Trailing starts at T-1, leading ends at 0, linspace does both."""
    schedule = schedule_of(1000)

    assert timestep_pairs(schedule, 4, "trailing") == [(999, 749), (749, 499), (499, 249), (249, -1)]
    assert timestep_pairs(schedule, 4, "leading") == [(750, 500), (500, 250), (250, 0), (0, -1)]
    assert timestep_pairs(schedule, 4, "linspace") == [(999, 666), (666, 333), (333, 0), (0, -1)]
    assert timestep_pairs(schedule, 1, "linspace") == timestep_pairs(schedule, 1) == [(999, -1)]


@pytest.mark.parametrize("num_steps", [0, -1, 1001])
def test_impossible_number_of_steps_is_refused(num_steps: int) -> None:
    """N must be 1 to T."""
    with pytest.raises(ValueError, match=f"num_steps: got {num_steps}, expected 1 to 1000"):
        timestep_pairs(schedule_of(1000), num_steps)


def test_unknown_spacing_is_refused() -> None:
    """A wrong spacing is named."""
    with pytest.raises(ValueError, match="spacing: got 'even', expected trailing, leading, linspace, log_snr"):
        timestep_pairs(schedule_of(1000), 10, "even")  # type: ignore[arg-type]


@pytest.mark.parametrize("num_steps", [2, 7, 20])
def test_log_snr_is_even_where_the_schedule_is_fine(num_steps: int) -> None:
    """With timesteps to spare, the N points from T-1 to 0 are even in log-SNR to half a timestep."""
    schedule = schedule_of(100_000)
    log_snr = schedule.snr.log()

    steps = [t for t, _ in timestep_pairs(schedule, num_steps, "log_snr")]

    assert (steps[0], steps[-1]) == (99_999, 0)
    even = torch.linspace(float(log_snr[-1]), float(log_snr[0]), num_steps, dtype=torch.float64)
    torch.testing.assert_close(log_snr[steps[:-1]], even[:-1], atol=0.01 * float(even[1] - even[0]), rtol=0)


def test_log_snr_spreads_what_a_coarse_end_leaves() -> None:
    """Where one timestep spans several even shares, all others share the rest evenly."""
    schedule = schedule_of(1000, "cosine")

    steps = [t for t, _ in timestep_pairs(schedule, 10, "log_snr")]

    lengths = schedule.snr.log()[steps].diff()
    assert steps[:2] == [999, 998]
    assert lengths[0] > 2 * lengths[1:].max()
    assert lengths[1:].max() < 1.1 * lengths[1:].min()


def test_log_snr_starts_without_signal_too() -> None:
    """A schedule that ends in pure noise, log-SNR -∞, is walked from there."""
    schedule = NoiseSchedule.from_betas(torch.cat([make_betas("linear", 999), torch.ones(1, dtype=torch.float64)]))

    steps = [t for t, _ in timestep_pairs(schedule, 5, "log_snr")]

    assert steps[:2] == [999, 998]
    assert steps[-1] == 0
    assert timestep_pairs(schedule, 1, "log_snr") == [(999, -1)]
    assert timestep_pairs(schedule, 2, "log_snr") == [(999, 0), (0, -1)]
