"""Lanes: what parts of a batch make side by side is what the whole makes, and no thread's haste shows in it."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import Tensor, nn

from latentart.process.lanes import Lanes, Mean, weighted_means

CPU = torch.device("cpu")


def draw(*shape: int, seed: int = 0) -> Tensor:
    """Return normal float32 numbers."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def gradients(count: int, delays: tuple[float, ...] = ()) -> tuple[list[Tensor], list[Tensor]]:
    """Return the gradients of a small network over 7 pictures in so many lanes, and what each lane made."""
    network = nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 3))
    for number, parameter in enumerate(network.parameters()):
        parameter.data = draw(*parameter.shape, seed=number)
    lanes, x = Lanes(count), draw(7, 5, seed=9)
    sizes = lanes.sizes(7)
    parts = list(enumerate(x.split(sizes)))

    def work(part: tuple[int, Tensor], mean: Mean) -> tuple[Tensor, Tensor]:
        number, rows = part
        time.sleep(delays[number] if delays else 0)
        made = network(rows)
        return made.square().mean(), mean(made.mean(0))

    means = lanes.backward(work, parts, sizes, network.parameters())
    return [parameter.grad for parameter in network.parameters() if parameter.grad is not None], means


@pytest.mark.parametrize("count", [2, 3, 4])
def test_gradients_and_means_are_those_of_the_whole(count: int) -> None:
    """Uneven parts count by their sizes, in gradients and in the means that lanes take on the way."""
    (wanted, [mean]), (found, means) = gradients(1), gradients(count)

    for gradient, whole in zip(found, wanted, strict=True):
        torch.testing.assert_close(gradient, whole, atol=1e-6, rtol=1e-5)
    assert len(means) == count
    for each in means:
        torch.testing.assert_close(each, mean, atol=1e-6, rtol=1e-5)
        assert torch.equal(each, means[0])


def test_the_order_of_the_threads_does_not_show() -> None:
    """Gradients are the same bits whichever lane comes first."""
    first, last = gradients(3, (0.0, 0.02, 0.04))[0], gradients(3, (0.04, 0.02, 0.0))[0]

    assert all(torch.equal(a, b) for a, b in zip(first, last, strict=True))


def test_two_calls_at_once_take_turns() -> None:
    """As two trainings in one notebook; with half of the threads each they would wait for each other for ever."""
    with ThreadPoolExecutor(4) as callers:
        made = [callers.submit(gradients, 2, (0.0, 0.01)) for _ in range(24)]
        found = [one.result(timeout=60)[0] for one in made]

    assert all(torch.equal(a, b) for one in found for a, b in zip(one, found[0], strict=True))


def test_gradients_are_added_to_those_that_are_there() -> None:
    """A second backward pass doubles a gradient; a loss without a graph leaves it alone."""
    weight, lanes = nn.Parameter(torch.tensor(2.0)), Lanes(2)

    for _ in range(2):
        lanes.backward(lambda part, _: (part * weight, None), [torch.tensor(1.0), torch.tensor(3.0)], [1, 3], [weight])
    lanes.backward(lambda part, _: (part, None), [torch.tensor(1.0), torch.tensor(3.0)], [1, 3], [weight])

    assert weight.grad == 2 * (1.0 * 0.25 + 3.0 * 0.75)


def test_an_error_in_one_lane_ends_all() -> None:
    """The others, who wait for it, end with it, and what is raised is its own error; the threads serve again."""
    lanes = Lanes(3)

    def work(number: int, mean: Mean) -> tuple[Tensor, Tensor]:
        if number == 1:
            raise MemoryError("no room")
        return torch.zeros(()), mean(torch.ones(1))

    with pytest.raises(MemoryError, match="no room"):
        lanes.backward(work, range(3), [1, 1, 1], [])
    assert torch.equal(lanes.map(lambda x: x + 1, torch.zeros(5)), torch.ones(5))


def test_map_joins_the_parts_and_keeps_the_callers_grad_mode() -> None:
    """A tensor of one row is for all parts; under no_grad no lane makes a graph."""
    x, one, weight = draw(5, 2), draw(1, 2, seed=1), nn.Parameter(torch.tensor(3.0))

    with torch.no_grad():
        found = Lanes(2).map(lambda a, b: a * b * weight, x, one)

    assert torch.equal(found, x * one * 3.0)
    assert not found.requires_grad
    assert Lanes(2).map(lambda a, b: a * b * weight, x, one).requires_grad


def test_there_are_as_many_lanes_as_threads_where_that_changes_nothing_drawn() -> None:
    """One where a network drops features while it learns, is compiled, or lies on a GPU; at most four."""
    plain, dropping, compiled = nn.Linear(1, 1), nn.Dropout(0.5), nn.Linear(1, 1)
    compiled.compile(backend="eager")
    try:
        torch.set_num_threads(6)
        counts = [Lanes.beside(CPU, network).count for network in (plain, dropping, compiled)]
        counts.append(Lanes.beside(CPU, dropping.eval()).count)
        on_gpu = Lanes.beside(torch.device("cuda"), plain).count
    finally:
        torch.set_num_threads(1)

    assert (counts, on_gpu) == ([4, 1, 1, 4], 1)
    assert Lanes.beside(CPU, plain).count == 1
    assert [Lanes(4).sizes(size) for size in (1, 3, 4, 10)] == [[1], [1, 1, 1], [1, 1, 1, 1], [3, 3, 2, 2]]


def test_means_count_by_size_and_one_part_stays_as_it_is() -> None:
    """Of one part the very tensors come back."""
    one = {"loss": torch.tensor(0.1)}

    assert weighted_means([one], [3])["loss"] is one["loss"]
    assert weighted_means([{"a": torch.tensor(1.0)}, {"a": torch.tensor(5.0)}], [3, 1])["a"] == 2.0
