"""Attention: both kinds against slow sums written out, and quiet at the start."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from latentart.core.networks.attention import (
    Attention,
    build_attention,
    count_heads,
    linear_attention,
)

KINDS: list[Literal["linear", "full"]] = ["linear", "full"]


def draw(*shape: int, seed: int = 0) -> Tensor:
    """Return normal float32 numbers."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def randomize(network: nn.Module) -> None:
    """Fill every weight, those that start at zero too."""
    for number, parameter in enumerate(network.parameters()):
        parameter.data = draw(*parameter.shape, seed=number) * 0.5


def attend_slowly(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Return linear attention of one head, [d, n], [d, n], [e, n], as sums over single numbers."""
    query, key, value = query.detach(), key.detach(), value.detach()
    depth, count = query.shape
    out = torch.zeros(len(value), count, dtype=torch.float64)
    for n in range(count):
        q_total = sum(math.exp(query[d, n]) for d in range(depth))
        for d in range(depth):
            q = math.exp(query[d, n]) / q_total / math.sqrt(depth)
            k_total = sum(math.exp(key[d, m]) for m in range(count))
            for m in range(count):
                out[:, n] += q * math.exp(key[d, m]) / k_total * value[:, m].double()
    return out


def test_linear_attention_is_its_formula_head_by_head() -> None:
    """Every image and head on its own equals the sums of Shen et al., eq. 4-5, written out."""
    query, key, value = draw(2, 3, 4, 6), draw(2, 3, 4, 6, seed=1), draw(2, 3, 5, 6, seed=2)

    out = linear_attention(query, key, value)

    assert out.shape == (2, 3, 5, 6)
    for b in range(2):
        for head in range(3):
            expected = attend_slowly(query[b, head], key[b, head], value[b, head]).float()
            torch.testing.assert_close(out[b, head], expected, atol=1e-6, rtol=1e-5)


class MadeNumbers(TorchDispatchMode):
    """Counts the numbers in everything that is computed while it is on, and the most in one tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.total = self.most = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run one operation and count its results."""
        results = function(*args, **(kwargs or {}))
        for tensor in tree_leaves(results):
            if isinstance(tensor, Tensor):
                self.total += tensor.numel()
                self.most = max(self.most, tensor.numel())
        return results


def made_numbers(attend: Callable[[Tensor], Tensor], side: int) -> tuple[int, int]:
    """Return how many numbers attention over a map of side x side makes, with its gradient, and the most in one."""
    x = draw(1, 8, side, side).requires_grad_()
    with MadeNumbers() as made:
        torch.autograd.backward(attend(x).square().sum())
    return made.total, made.most


def attend_in_squares(x: Tensor) -> Tensor:
    """Attend with a weight for every pair of positions."""
    return torch.softmax(x.flatten(2).mT @ x.flatten(2), dim=-1) @ x.flatten(2).mT


def test_linear_attention_is_linear_in_the_positions() -> None:
    """Four times the positions make four times the numbers, forward and back, and nothing holds every pair of them."""
    layer = Attention("linear", 8, head_channels=4, groups=2)
    randomize(layer)

    (total, most), (total_4n, most_4n) = (made_numbers(layer, side) for side in (16, 32))

    assert 3.8 < total_4n / total <= 4
    assert most <= 3 * 8 * 16**2 < 16**4
    assert most_4n <= 3 * 8 * 32**2
    squares, squares_4n = (made_numbers(attend_in_squares, side) for side in (16, 32))
    assert squares_4n[0] / squares[0] > 14, "the measure sees what grows with the square"


def test_linear_attention_survives_large_scores() -> None:
    """Scores far beyond exp's range still give a mean of the values."""
    query, key = 1e4 * draw(1, 1, 4, 6), 1e4 * draw(1, 1, 4, 6, seed=1)

    out = linear_attention(query, key, torch.ones(1, 1, 4, 6))

    torch.testing.assert_close(out, torch.full_like(out, 0.5), atol=1e-6, rtol=1e-6)


def test_linear_layer_splits_channels_as_qkv_then_heads() -> None:
    """The layer is norm, one projection to queries, keys and values, attention per head, projection, residual."""
    layer = Attention("linear", 8, head_channels=4, groups=2)
    randomize(layer)
    x = draw(2, 8, 3, 2)

    out = layer(x)

    normed = functional.group_norm(x, 2, layer.norm.weight, layer.norm.bias)
    query, key, value = torch.einsum("oc,bchw->bohw", layer.to_qkv.weight[:, :, 0, 0], normed).flatten(2).chunk(3, 1)
    heads = [slice(0, 4), slice(4, 8)]
    attended = torch.stack(
        [torch.cat([attend_slowly(query[b, h], key[b, h], value[b, h]).float() for h in heads]) for b in range(2)]
    )
    expected = x + layer.to_out(attended.view(2, 8, 3, 2))
    torch.testing.assert_close(out, expected, atol=1e-5, rtol=1e-5)


def test_full_layer_is_softmax_of_normalized_queries_and_keys() -> None:
    """The layer is softmax(q k / sqrt(d)) v per head, queries and keys at unit root mean square, and a residual."""
    layer = Attention("full", 8, head_channels=4, groups=2)
    randomize(layer)
    x = draw(2, 8, 3, 2)

    out = layer(x)

    normed = functional.group_norm(x, 2, layer.norm.weight, layer.norm.bias)
    query, key, value = torch.einsum("oc,bchw->bohw", layer.to_qkv.weight[:, :, 0, 0], normed).flatten(2).chunk(3, 1)
    attended = torch.zeros(2, 8, 6)
    for head in (slice(0, 4), slice(4, 8)):
        q = query[:, head] / query[:, head].square().mean(1, keepdim=True).sqrt() * layer.query_norm.weight[:, None]
        k = key[:, head] / key[:, head].square().mean(1, keepdim=True).sqrt() * layer.key_norm.weight[:, None]
        weights = torch.softmax(torch.einsum("bdn,bdm->bnm", q, k) / 2.0, dim=-1)
        attended[:, head] = torch.einsum("bnm,bdm->bdn", weights, value[:, head])
    expected = x + layer.to_out(attended.view(2, 8, 3, 2))
    torch.testing.assert_close(out, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_a_new_layer_is_the_identity_to_the_bit(kind: Literal["linear", "full"]) -> None:
    """The output projection starts at zero, so nothing is added, and it learns from the first step on."""
    layer = build_attention(kind, 8, head_channels=4, groups=2)
    x = draw(2, 8, 3, 5)

    out = layer(x)
    torch.autograd.backward(out.square().sum())

    assert torch.equal(out, x)
    assert isinstance(layer, Attention)
    assert layer.to_out.weight.grad is not None
    assert bool(layer.to_out.weight.grad.any())


@pytest.mark.parametrize("kind", KINDS)
def test_attention_sees_every_position(kind: Literal["linear", "full"]) -> None:
    """A change at one corner reaches the opposite one, in this image only."""
    layer = build_attention(kind, 8, head_channels=4, groups=2)
    randomize(layer)
    x = draw(2, 8, 4, 4)
    changed = x.clone()
    changed[0, :, 0, 0] += 3.0

    difference = (layer(changed) - layer(x)).abs()

    assert difference[0, :, 3, 3].max() > 1e-4
    assert torch.equal(difference[1], torch.zeros(8, 4, 4))


def test_no_attention_is_the_identity_without_weights() -> None:
    """Kind none adds nothing to a checkpoint."""
    layer = build_attention("none", 8, head_channels=3, groups=5)

    assert torch.equal(layer(draw(1, 8, 2, 2)), draw(1, 8, 2, 2))
    assert not layer.state_dict()


def test_heads_must_divide_the_channels() -> None:
    """Channels that do not divide into heads are refused with both numbers."""
    assert count_heads(96, 32) == 3
    for kind in KINDS:
        with pytest.raises(ValueError, match="multiple of head_channels: got 10 and 4"):
            Attention(kind, 10, head_channels=4, groups=2)


def test_weights_keep_their_order() -> None:
    """Optimizers save their states by it."""
    linear, full = (
        [name for name, _ in Attention(kind, 8, head_channels=4, groups=2).named_parameters()] for kind in KINDS
    )

    assert linear == ["norm.weight", "norm.bias", "to_qkv.weight", "to_out.weight", "to_out.bias"]
    assert full == [*linear[:3], "query_norm.weight", "key_norm.weight", *linear[3:]]
