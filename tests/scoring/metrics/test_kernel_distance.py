"""The kernel distance: torchmetrics' own number, the sum written out, no bias, and growth with the difference."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torchmetrics.image.kid import KernelInceptionDistance

from latentart.scoring.metrics.kernel_distance import kernel_distance


class AsTheyCome(nn.Module):
    """Features for torchmetrics that are the input itself."""

    num_features = 12

    def forward(self, features: Tensor) -> Tensor:
        """Return the input."""
        return features


def draw(seed: int, count: int, dimensions: int = 12, shift: float = 0.0) -> Tensor:
    """Draw normal features."""
    return torch.randn(count, dimensions, generator=torch.Generator().manual_seed(seed)) + shift


@pytest.mark.filterwarnings("ignore:Metric `Kernel Inception Distance` will save")
def test_it_is_the_number_of_torchmetrics() -> None:
    """On the same features, one subset that is the whole set."""
    a, b = draw(0, 40), draw(1, 40, shift=0.3)
    peer = KernelInceptionDistance(feature=AsTheyCome(), subsets=1, subset_size=40)
    peer.update(a, real=True)
    peer.update(b, real=False)

    assert kernel_distance(a, b) == pytest.approx(float(peer.compute()[0]), rel=1e-4)


def test_it_is_the_sum_written_out() -> None:
    """Three numbers against two, in one dimension, by hand."""
    a, b = torch.tensor([[0.0], [1.0], [2.0]]), torch.tensor([[1.0], [-1.0]])
    k = {(x, y): (x * y + 1) ** 3 for x in (0, 1, 2, -1) for y in (0, 1, 2, -1)}
    within_a = 2 * (k[0, 1] + k[0, 2] + k[1, 2]) / 6
    within_b = 2 * k[1, -1] / 2
    between = sum(k[x, y] for x in (0, 1, 2) for y in (1, -1)) / 6

    assert kernel_distance(a, b) == pytest.approx(within_a + within_b - 2 * between)


def test_small_sets_are_not_far_apart() -> None:
    """Of 400 pairs of sets of 5 from one distribution the mean is 0 within its error; that of shifted ones is not."""
    same = torch.tensor([kernel_distance(draw(2 * i, 5), draw(2 * i + 1, 5)) for i in range(400)])
    other = torch.tensor([kernel_distance(draw(2 * i, 5), draw(2 * i + 1, 5, shift=1.0)) for i in range(400)])

    assert abs(float(same.mean())) < 4 * float(same.std()) / 20
    assert float(other.mean()) > 10 * float(same.std()) / 20


@pytest.mark.parametrize(("a", "b"), [((1, 3), (4, 3)), ((4, 3), (4, 2)), ((4,), (4, 3))])
def test_sets_that_cannot_be_compared_are_refused(a: tuple[int, ...], b: tuple[int, ...]) -> None:
    """One feature, or two dimensions."""
    with pytest.raises(ValueError, match="features: got shapes"):
        kernel_distance(torch.zeros(a), torch.zeros(b))
