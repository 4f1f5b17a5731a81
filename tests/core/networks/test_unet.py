"""The denoiser: its embedding, the null style, gradients, independence of the batch, names that must stay."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from latentart.core.networks.attention import AttentionKind
from latentart.core.networks.blocks import BlockShape
from latentart.core.networks.conditioning import embed_timesteps
from latentart.core.networks.unet import UNet


def draw(*shape: int, seed: int = 0) -> Tensor:
    """Return normal float32 numbers."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def build(*, attention: Sequence[AttentionKind] = ("linear", "full"), randomized: bool = True) -> UNet:
    """Return a small denoiser for 3 latent channels and 5 styles."""
    network = UNet(
        3,
        [5],
        (8, 16),
        num_blocks=1,
        attention=attention,
        middle_attention="full",
        downsampling="average",
        upsampling="nearest",
        shape=BlockShape(groups=4, head_channels=8, conditioning_channels=12),
    )
    if randomized:
        for number, parameter in enumerate(network.parameters()):
            parameter.data = draw(*parameter.shape, seed=number) / max(parameter[0].numel(), 4) ** 0.5
    return network


def test_timesteps_are_embedded_as_cosines_and_sines() -> None:
    """For t = 0, 1 and 500 at frequencies 1 and 1/100 the numbers of the formula."""
    embedded = embed_timesteps(torch.tensor([0, 1, 500]), 4)

    expected = torch.tensor(
        [
            [1.0, 1.0, 0.0, 0.0],
            [math.cos(1), math.cos(0.01), math.sin(1), math.sin(0.01)],
            [math.cos(500), math.cos(5), math.sin(500), math.sin(5)],
        ]
    )
    torch.testing.assert_close(embedded, expected, atol=1e-5, rtol=0)


def test_every_timestep_has_its_own_embedding() -> None:
    """No two of a thousand timesteps come near each other."""
    embedded = embed_timesteps(torch.arange(1000), 32)

    distances = torch.cdist(embedded, embedded) + 10 * torch.eye(1000)

    assert distances.min() > 0.1


@pytest.mark.parametrize("size", [(1, 2, 2), (3, 4, 6), (5, 8, 4)])
@torch.no_grad()
def test_the_prediction_has_the_shape_of_its_input(size: tuple[int, int, int]) -> None:
    """Odd batches and oblong maps come back as they were, float32."""
    batch, height, width = size
    x_t = draw(batch, 3, height, width)

    prediction = build()(x_t, torch.arange(batch), torch.arange(batch))

    assert (prediction.shape, prediction.dtype) == (x_t.shape, torch.float32)


@pytest.mark.parametrize("size", [(3, 4), (4, 5)])
def test_a_map_that_cannot_be_halved_is_refused(size: tuple[int, int]) -> None:
    """The error names the factor and the size."""
    with pytest.raises(ValueError, match=rf"multiples of 2: got \({size[0]}, {size[1]}\)"):
        build()(torch.zeros(1, 3, *size), torch.zeros(1, dtype=torch.long), torch.zeros(1, dtype=torch.long))


@torch.no_grad()
def test_a_new_denoiser_predicts_zero() -> None:
    """Its output convolution starts at zero."""
    prediction = build(randomized=False)(draw(2, 3, 4, 4), torch.tensor([0, 999]), torch.tensor([0, 5]))

    assert torch.equal(prediction, torch.zeros(2, 3, 4, 4))


@torch.no_grad()
def test_the_null_style_is_one_more_row() -> None:
    """Five styles and the null style, index 5, each with its own prediction."""
    network = build()
    x_t, t = draw(1, 3, 4, 4).expand(6, -1, -1, -1), torch.full((6,), 300)

    predictions = network(x_t, t, torch.arange(6)).flatten(1)

    assert network.null_like(torch.tensor([2, 0])).tolist() == [5, 5]
    assert network.style_embedding.num_embeddings == 6
    assert (torch.cdist(predictions, predictions) + torch.eye(6)).min() > 1e-3


@torch.no_grad()
def test_the_timestep_matters() -> None:
    """The same latents at another timestep give another prediction."""
    network, x_t, style_id = build(), draw(1, 3, 4, 4), torch.tensor([2])

    early, late = network(x_t, torch.tensor([10]), style_id), network(x_t, torch.tensor([900]), style_id)

    assert (early - late).abs().max() > 1e-3


@torch.no_grad()
def test_image_i_does_not_depend_on_its_batch() -> None:
    """Each row alone gives what it gives among others."""
    network = build()
    x_t, t, style_id = draw(3, 3, 4, 6), torch.tensor([0, 500, 999]), torch.tensor([1, 5, 0])

    together = network(x_t, t, style_id)

    for i in range(3):
        row = slice(i, i + 1)
        torch.testing.assert_close(network(x_t[row], t[row], style_id[row]), together[row], atol=1e-5, rtol=1e-5)


def test_every_parameter_gets_a_gradient_once_the_silent_layers_have_woken() -> None:
    """Layers that start at zero let gradients through after few steps; only rows of absent styles stay."""
    network = build(randomized=False)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    x_t, t, style_id = draw(2, 3, 4, 4), torch.tensor([100, 700]), torch.tensor([0, 5])

    for _ in range(4):
        optimizer.zero_grad()
        torch.autograd.backward((network(x_t, t, style_id) - draw(2, 3, 4, 4, seed=1)).square().mean())
        optimizer.step()

    assert [name for name, p in network.named_parameters() if p.grad is None or not p.grad.any()] == []
    assert network.style_embedding.weight.grad is not None
    assert network.style_embedding.weight.grad.any(1).tolist() == [True, False, False, False, False, True]


def test_names_of_the_state_stay_as_they_are() -> None:
    """Model folders and checkpoints written before must load: names and number of tensors are a promise."""
    network = build()

    names = {re.sub("weight$|bias$", "*", re.sub(r"\.\d+(?=\.)", ".#", name)) for name in network.state_dict()}

    block = {"norm1.*", "conv1.*", "norm2.*", "conv2.*", "to_scale_shift.*"}
    attention = {"norm.*", "to_qkv.*", "to_out.*", "query_norm.*", "key_norm.*"}
    expected = {"time_mlp.#.*", "style_embedding.*", "conv_in.*", "conv_out.*"}
    expected |= {f"{side}.#.blocks.#.{name}" for side in ("down", "up") for name in block | {"shortcut.*"}}
    expected |= {f"{side}.#.attention.{name}" for side in ("down", "up") for name in attention}
    expected |= {f"middle.{part}.{name}" for part in ("block1", "block2") for name in block}
    expected |= {f"middle.attention.{name}" for name in attention}
    assert names == expected
    assert len(network.state_dict()) == 106
    assert sum(p.numel() for p in network.parameters()) == 31171
    assert not list(network.buffers())
