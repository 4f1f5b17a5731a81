"""The transformer: its formula written out, patches and positions in order, the start, names that must stay."""

from __future__ import annotations

import re

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from latentart.core.networks.blocks import BlockShape
from latentart.core.networks.conditioning import embed_timesteps
from latentart.core.networks.dit import DiT, TransformerBlock, embed_positions, modulate


def draw(*shape: int, seed: int = 0) -> Tensor:
    """Return normal float32 numbers."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def randomize(network: torch.nn.Module) -> None:
    """Fill every weight, those that start at zero too."""
    for number, parameter in enumerate(network.parameters()):
        parameter.data = draw(*parameter.shape, seed=number) * 0.5


SHAPE = BlockShape(head_channels=4, conditioning_channels=6)


def build(patch_size: int = 2, depth: int = 2) -> DiT:
    """Return a small transformer for 3 latent channels and 5 styles."""
    return DiT(3, [5], 8, depth=depth, patch_size=patch_size, mlp_width=12, shape=SHAPE)


@torch.no_grad()
def test_a_block_is_its_formula() -> None:
    """Two branches, shifted, scaled and gated in the order of the projection's six parts, heads one after another."""
    block = TransformerBlock(8, 12, SHAPE)
    randomize(block)
    x, conditioning = draw(2, 5, 8), draw(2, 6, seed=1)

    out = block(x, conditioning)

    parts = (conditioning @ block.to_modulation.weight.T + block.to_modulation.bias).view(2, 6, 1, 8)
    h = functional.layer_norm(x, (8,), eps=1e-6) * (1 + parts[:, 1]) + parts[:, 0]
    query, key, value = (h @ block.to_qkv.weight.T).chunk(3, -1)
    heads = []
    for head in (slice(0, 4), slice(4, 8)):
        q, k = (y[..., head] / y[..., head].square().mean(-1, keepdim=True).sqrt() for y in (query, key))
        scores = (q * block.query_norm.weight) @ (k * block.key_norm.weight).mT / 2.0
        heads.append(scores.softmax(-1) @ value[..., head])
    x = x + parts[:, 2] * block.to_out(torch.cat(heads, -1))
    h = functional.layer_norm(x, (8,), eps=1e-6) * (1 + parts[:, 4]) + parts[:, 3]
    a, b = block.mlp_in(h).chunk(2, -1)
    expected = x + parts[:, 5] * block.mlp_out(a * a.sigmoid() * b)
    torch.testing.assert_close(out, expected, atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_a_new_block_is_the_identity_to_the_bit() -> None:
    """Its gates start at zero."""
    x = draw(2, 5, 8)

    assert torch.equal(TransformerBlock(8, 12, SHAPE)(x, draw(2, 6)), x)


@torch.no_grad()
def test_dropout_reaches_both_branches() -> None:
    """With every feature dropped nothing is left but the trunk; in evaluation both branches are back."""
    block = TransformerBlock(8, 12, BlockShape(head_channels=4, dropout=1.0, conditioning_channels=6))
    randomize(block)
    x, conditioning = draw(2, 5, 8), draw(2, 6, seed=1)

    assert torch.equal(block(x, conditioning), x)
    assert not torch.equal(block.eval()(x, conditioning), x)


@torch.no_grad()
def test_patches_go_back_where_they_came_from() -> None:
    """With both projections the identity and no blocks, each token's latents come back at their own places."""
    network = DiT(2, [5], 8, depth=0, patch_size=2, mlp_width=4, shape=SHAPE)
    network.patch_in.weight.copy_(torch.eye(8))
    network.patch_out.weight.copy_(torch.eye(8))
    x_t = draw(2, 2, 4, 6)

    out = network(x_t, torch.tensor([0, 1]), torch.tensor([0, 1]))

    for row in range(2):
        for column in range(3):
            place = (slice(None), slice(None), slice(2 * row, 2 * row + 2), slice(2 * column, 2 * column + 2))
            position = torch.cat([embed_timesteps(torch.tensor([n]), 4) for n in (row, column)], dim=1)
            token = x_t[place].reshape(2, 8) + position
            expected = functional.layer_norm(token, (8,), eps=1e-6).view(2, 2, 2, 2)
            torch.testing.assert_close(out[place], expected, atol=1e-5, rtol=1e-5)


def test_positions_are_those_of_row_and_column() -> None:
    """Row by row; no two of an oblong map are alike, and a larger map goes on where a smaller one ended."""
    positions = embed_positions(3, 5, 16, torch.device("cpu")).view(3, 5, 16)

    assert torch.equal(positions[2, 4], torch.cat([embed_timesteps(torch.tensor([n]), 8)[0] for n in (2, 4)]))
    assert torch.equal(embed_positions(6, 7, 16, torch.device("cpu")).view(6, 7, 16)[:3, :5], positions)
    assert torch.pdist(embed_positions(40, 30, 64, torch.device("cpu"))).min() > 0.1


def test_tokens_are_normalized_in_float32() -> None:
    """Large bfloat16 tokens lose nothing in their mean; scale 1 doubles, shift adds."""
    x = (draw(1, 3, 8) + 100).bfloat16()

    out = modulate(x, torch.full((1, 1, 8), 3.0).bfloat16(), torch.ones(1, 1, 8).bfloat16())

    assert out.dtype == torch.float32
    torch.testing.assert_close(out, 2 * functional.layer_norm(x.float(), (8,), eps=1e-6) + 3)


@pytest.mark.parametrize("patch_size", [1, 2, 3])
@torch.no_grad()
def test_a_patch_may_have_any_side(patch_size: int) -> None:
    """The factor is the patch's side."""
    network = build(patch_size)
    randomize(network)
    x_t = draw(1, 3, 2 * patch_size, 5 * patch_size)

    assert network.factor == patch_size
    assert network(x_t, torch.tensor([3]), torch.tensor([1])).shape == x_t.shape


@pytest.mark.parametrize(
    ("width", "head_channels", "message"),
    [(12, 8, "multiple of head_channels: got 12 and 8"), (6, 2, "multiple of 4, for sines.*got 6")],
)
def test_a_width_that_does_not_divide_is_refused(width: int, head_channels: int, message: str) -> None:
    """Heads and the sines and cosines of two axes must fit."""
    shape = BlockShape(head_channels=head_channels, conditioning_channels=6)

    with pytest.raises(ValueError, match=message):
        DiT(3, [5], width, depth=1, patch_size=2, mlp_width=4, shape=shape)


def test_names_of_the_state_stay_as_they_are() -> None:
    """Model folders and checkpoints written before must load: names and number of tensors are a promise."""
    network = build()

    names = {re.sub("weight$|bias$", "*", re.sub(r"\.\d+(?=\.)", ".#", name)) for name in network.state_dict()}

    block = {"to_modulation.*", "to_qkv.*", "query_norm.*", "key_norm.*", "to_out.*", "mlp_in.*", "mlp_out.*"}
    expected = {"time_mlp.#.*", "style_embedding.*", "patch_in.*", "to_modulation.*", "patch_out.*"}
    assert names == expected | {f"blocks.#.{name}" for name in block}
    assert len(network.state_dict()) == 33
    assert sum(p.numel() for p in network.parameters()) == 2300
    assert not list(network.buffers())
