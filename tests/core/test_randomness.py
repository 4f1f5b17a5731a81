"""Randomness is a function of (seed, purpose, counters): of nothing else, and of all of these."""

from __future__ import annotations

import math

import pytest
import torch

from latentart.core.randomness import (
    epoch_order,
    generator_for,
    normal_for,
    position,
    sample_numbers,
    seed_for,
    uniform_for,
)


def test_seeds_have_not_moved() -> None:
    """Old runs resume under new versions only if these numbers stay."""
    assert seed_for(0, "noise") == 3_036_726_077_145_644_715
    assert seed_for(7, "noise", 1, 2) == 8_554_622_442_667_048_824


def test_seeds_differ_in_every_argument_and_fit_63_bits() -> None:
    """No two of many nearby keys meet, whatever the split between the counters."""
    keys = [(s, p, *c) for s in range(20) for p in ("noise", "t", "1") for c in ((), (1,), (1, 2), (12,), (2, 1))]
    seeds = {seed_for(*key) for key in keys}

    assert len(seeds) == len(keys)
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_numbers_of_any_integer_type_give_the_same_seed() -> None:
    """A counter that comes out of a tensor is the same counter."""
    assert seed_for(3, "t", torch.tensor(5), True) == seed_for(3, "t", 5, 1)  # type: ignore[arg-type]


def test_generators_start_afresh() -> None:
    """The same key gives the same stream, however often it was used before."""
    first = torch.randn(5, generator=generator_for(1, "x", 2))
    second = torch.randn(5, generator=generator_for(1, "x", 2))

    torch.testing.assert_close(first, second, rtol=0, atol=0)


@pytest.mark.parametrize("shape", [(4, 8, 8), (3,), (5, 5), ()])
def test_noise_of_a_sample_does_not_depend_on_its_batch(shape: tuple[int, ...]) -> None:
    """Order, neighbors and batch size change nothing, even for shapes that torch fills in another way."""
    whole = normal_for(0, "noise", range(10), shape, 4)
    shuffled = normal_for(0, "noise", [7, 2, 9], shape, 4)
    alone = torch.cat([normal_for(0, "noise", [i], shape, 4) for i in range(10)])

    assert whole.shape == (10, *shape)
    torch.testing.assert_close(shuffled, whole[[7, 2, 9]], rtol=0, atol=0)
    torch.testing.assert_close(alone, whole, rtol=0, atol=0)


def test_noise_differs_by_seed_purpose_sample_and_counter() -> None:
    """No two of the four variations share a value."""
    draws = [
        normal_for(0, "noise", [1], (16,), 3),
        normal_for(1, "noise", [1], (16,), 3),
        normal_for(0, "other", [1], (16,), 3),
        normal_for(0, "noise", [2], (16,), 3),
        normal_for(0, "noise", [1], (16,), 4),
    ]

    assert len(set(torch.cat(draws).flatten().tolist())) == 5 * 16


def test_noise_is_standard_normal_across_samples() -> None:
    """Mean, deviation and the correlation of neighboring samples are those of independent normals."""
    noise = normal_for(0, "noise", range(2000), (20,)).double()
    count = noise.numel()

    assert noise.mean().abs() < 4 / math.sqrt(count)
    assert (noise.std() - 1).abs() < 4 / math.sqrt(2 * count)
    assert (noise[1:] * noise[:-1]).mean().abs() < 4 / math.sqrt(count)
    assert (noise[:, 0].mean()).abs() < 4 / math.sqrt(2000)


def test_nothing_touches_the_global_generator() -> None:
    """Drawing leaves torch's own generator where it was."""
    before = torch.get_rng_state()
    normal_for(0, "a", range(3), (20,))
    uniform_for(0, "a", range(3))
    epoch_order(0, 0, 10)

    torch.testing.assert_close(torch.get_rng_state(), before, rtol=0, atol=0)


def test_uniform_numbers_do_not_depend_on_the_batch_and_are_uniform() -> None:
    """One number per sample in [0, 1), flat in ten bins."""
    numbers = uniform_for(0, "t", range(5000), 1)
    again = uniform_for(0, "t", [4000, 3], 1)
    bins = torch.histc(numbers, bins=10, min=0, max=1)

    torch.testing.assert_close(again, numbers[[4000, 3]], rtol=0, atol=0)
    assert numbers.dtype == torch.float64
    assert 0 <= numbers.min() < numbers.max() < 1
    assert ((bins - 500).square() / 500).sum() < 27.9  # chi-square, 9 degrees of freedom, p = 0.001


def test_order_is_a_permutation_that_changes_with_epoch_and_seed() -> None:
    """Each epoch holds every picture once, in its own order, the same each time it is asked for."""
    order = epoch_order(5, 3, 100)

    torch.testing.assert_close(order.sort().values, torch.arange(100), rtol=0, atol=0)
    torch.testing.assert_close(order, epoch_order(5, 3, 100), rtol=0, atol=0)
    assert not torch.equal(order, epoch_order(5, 4, 100))
    assert not torch.equal(order, epoch_order(6, 3, 100))
    assert epoch_order(5, 3, 0).tolist() == []
    assert epoch_order(5, 3, 1).tolist() == [0]


@pytest.mark.parametrize(("batch_size", "count"), [(4, 10), (7, 3), (1, 1), (5, 5)])
def test_steps_walk_through_every_epoch_without_gap_or_repeat(batch_size: int, count: int) -> None:
    """Sample numbers follow each other, and any run of epochs shows each picture once per epoch."""
    numbers = [number for step in range(30) for number in sample_numbers(step, batch_size)]
    places = [position(number, count) for number in numbers]

    assert numbers == list(range(30 * batch_size))
    assert places == [(number // count, number % count) for number in numbers]
    assert len(set(places)) == len(places)
    with pytest.raises(ValueError, match="count: got 0"):
        position(3, 0)
