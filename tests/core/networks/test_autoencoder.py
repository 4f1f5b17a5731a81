"""The autoencoder: shapes, the tanh switch, independence of the batch, gradients, flat colors without a grid."""

from __future__ import annotations

import re
from typing import get_args

import pytest
import torch
from torch import Tensor, nn

from latentart.core.latents import sample_posterior, split_moments
from latentart.core.networks.autoencoder import Autoencoder, Decoder, Encoder
from latentart.core.networks.blocks import BlockShape, StackShape
from latentart.core.networks.quantizer import VectorQuantizer
from latentart.kinds import Downsampling, Upsampling

SHAPE = BlockShape(groups=4, head_channels=8)


def draw(*shape: int, seed: int = 0) -> Tensor:
    """Return normal float32 numbers."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def build(
    *,
    downsampling: Downsampling = "average",
    upsampling: Upsampling = "nearest",
    quantizer: VectorQuantizer | None = None,
) -> Autoencoder:
    """Return a small autoencoder of factor 4 with weights everywhere, always the same."""
    widths = (8, 16, 16)
    stack = StackShape(
        widths=widths,
        num_blocks=1,
        attention=("none", "linear", "full"),
        middle_attention="linear",
        downsampling=downsampling,
        upsampling=upsampling,
        blocks=SHAPE,
    )
    encoder = Encoder(3, stack, has_spread=quantizer is None)
    decoder = Decoder(3, stack)
    network = Autoencoder(encoder, decoder, latent_channels=3, factor=4, quantizer=quantizer)
    for number, parameter in enumerate(network.parameters()):
        parameter.data = draw(*parameter.shape, seed=number) / max(parameter[0].numel(), 4) ** 0.5
    return network


@pytest.mark.parametrize("size", [(1, 4, 4), (3, 16, 8), (5, 12, 20)])
@torch.no_grad()
def test_shapes_for_odd_batches_and_oblong_pictures(size: tuple[int, int, int]) -> None:
    """[B,3,H,W] becomes [B,2Z,H/f,W/f], and [B,Z,h,w] becomes [B,3,H,W], both float32."""
    batch, height, width = size
    network = build()

    moments = network.encode(draw(batch, 3, height, width))
    images = network.decode(moments[:, :3])

    assert (moments.shape, moments.dtype) == ((batch, 6, height // 4, width // 4), torch.float32)
    assert (images.shape, images.dtype) == ((batch, 3, height, width), torch.float32)


@torch.no_grad()
def test_patches_take_the_place_of_the_finest_stages() -> None:
    """With patches of 2 px two stages make f = 4, and at the start a flat latent decodes to a flat color."""
    stack = StackShape(
        widths=(8, 16), num_blocks=1, attention=("none", "linear"), middle_attention="none", blocks=SHAPE
    )
    encoder, decoder = Encoder(3, stack, patch_size=2), Decoder(3, stack, patch_size=2)

    moments = encoder(draw(2, 3, 16, 8))
    images = decoder(torch.full((2, 3, 12, 12), 0.4))
    middle = images[:, :, 22:26, 22:26]

    assert (tuple(moments.shape), tuple(images.shape)) == ((2, 6, 4, 2), (2, 3, 48, 48))
    assert (middle.amax((2, 3)) - middle.amin((2, 3))).max() < 1e-5


@pytest.mark.parametrize("kind", get_args(Downsampling))
@torch.no_grad()
def test_every_downsampling_gives_the_same_shapes(kind: Downsampling) -> None:
    """Average, max and strided are exchangeable."""
    assert build(downsampling=kind).encode(draw(2, 3, 8, 12)).shape == (2, 6, 2, 3)


@pytest.mark.parametrize("kind", get_args(Upsampling))
@torch.no_grad()
def test_every_upsampling_gives_the_same_shapes(kind: Upsampling) -> None:
    """Nearest, bilinear, bicubic and transposed are exchangeable."""
    assert build(upsampling=kind).decode(draw(2, 3, 2, 3)).shape == (2, 3, 8, 12)


@pytest.mark.parametrize("size", [(6, 8), (8, 6), (2, 2)])
def test_a_size_that_does_not_divide_is_refused(size: tuple[int, int]) -> None:
    """Height or width that is no multiple of the factor names factor and size."""
    with pytest.raises(ValueError, match=f"multiples of 4: got {size[0]}x{size[1]}"):
        build().encode(torch.zeros(1, 3, *size))


@torch.no_grad()
def test_tanh_bounds_the_output_when_switched_on() -> None:
    """Off, images are unbounded; on, they are the tanh of the same."""
    network = build()
    network.decoder.conv_out.weight.mul_(50)
    z = draw(2, 3, 4, 4)

    unbounded = network.decode(z)
    network.uses_tanh = True
    bounded = network.decode(z)

    assert unbounded.abs().max() > 1
    assert bounded.abs().max() <= 1
    assert torch.equal(bounded, unbounded.tanh())


@torch.no_grad()
def test_image_i_does_not_depend_on_its_batch() -> None:
    """Each row alone gives what it gives among others."""
    network = build()
    images = draw(3, 3, 16, 8)
    moments = network.encode(images)
    decoded = network.decode(moments[:, :3])

    for i in range(3):
        alone = network.encode(images[i : i + 1])
        torch.testing.assert_close(alone, moments[i : i + 1], atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(network.decode(alone[:, :3]), decoded[i : i + 1], atol=1e-5, rtol=1e-5)


def test_every_parameter_gets_a_gradient() -> None:
    """Nothing is built that the loss cannot move."""
    network = build()

    moments = network.encode(draw(2, 3, 16, 16))
    torch.autograd.backward(network.decode(moments[:, :3]).square().mean() + moments.square().mean())

    without = [name for name, p in network.named_parameters() if p.grad is None or not p.grad.abs().max() > 0]
    assert without == []


def test_there_are_no_buffers() -> None:
    """All state is in parameters, so that averaging those averages everything."""
    assert not list(build().buffers())


def flat_spread(upsampling: Upsampling) -> float:
    """Return how much the middle of a decoded flat map varies, as a share of its size."""
    shape = BlockShape(groups=4, head_channels=8)
    torch_decoder = Decoder(
        3,
        StackShape(
            widths=(8, 8),
            num_blocks=1,
            attention=("none", "none"),
            middle_attention="linear",
            upsampling=upsampling,
            blocks=shape,
        ),
    )
    for number, parameter in enumerate(torch_decoder.parameters()):
        parameter.data = draw(*parameter.shape, seed=number) / max(parameter[0].numel(), 4) ** 0.5
    with torch.no_grad():
        images = torch_decoder(torch.tensor([0.3, -0.8, 1.1]).view(1, 3, 1, 1).expand(1, 3, 24, 24))
    middle = images[:, :, 20:28, 20:28]  # what lies farther from the edge than the decoder can see
    return float((middle.amax((2, 3)) - middle.amin((2, 3))).max() / middle.abs().max())


@pytest.mark.parametrize("kind", ["nearest", "bilinear", "bicubic"])
def test_a_flat_color_decodes_without_a_grid(kind: Upsampling) -> None:
    """Away from the edges a constant latent gives a constant color, whatever the weights."""
    assert flat_spread(kind) < 1e-4


def test_transposed_convolution_draws_a_grid() -> None:
    """The legacy option does not: this is what its warning is about."""
    assert flat_spread("transposed") > 1e-2


def layer_names(network: nn.Module) -> set[str]:
    """Return the names of the state, numbers left out."""
    return {re.sub(r"\.\d+(?=\.)", ".#", name) for name in network.state_dict()}


def test_names_of_the_state_stay_as_they_are() -> None:
    """Model folders written before must load: names and number of tensors are a promise."""
    block = {f"{part}.{kind}" for part in ("norm1", "conv1", "norm2", "conv2") for kind in ("weight", "bias")}
    linear = {"norm.weight", "norm.bias", "to_qkv.weight", "to_out.weight", "to_out.bias"}
    full = linear | {"query_norm.weight", "key_norm.weight"}
    own = {f"{part}.{kind}" for part in ("conv_in", "conv_out") for kind in ("weight", "bias")}
    own |= {f"middle.{part}.{name}" for part in ("block1", "block2") for name in block}
    own |= {f"middle.attention.{name}" for name in linear} | {f"stages.#.attention.{name}" for name in full}
    own |= {f"stages.#.blocks.#.{name}" for name in block | {"shortcut.weight", "shortcut.bias"}}
    expected = {f"{side}.{name}" for side in ("encoder", "decoder") for name in own}

    network = build()

    assert layer_names(network) == expected
    assert len(network.state_dict()) == 126
    assert sum(p.numel() for p in network.parameters()) == 47961


@torch.no_grad()
def test_a_quantized_autoencoder_speaks_the_same_language() -> None:
    """Its moments are a point: their draw is their mean, and decoding quantizes first, however often."""
    network = build(quantizer=VectorQuantizer(32, 3))
    assert network.quantizer is not None
    images = draw(2, 3, 16, 16)

    moments = network.encode(images)
    mean, _ = split_moments(moments)
    quantized = network.quantizer(mean)

    assert moments.shape == (2, 6, 4, 4)
    torch.testing.assert_close(sample_posterior(moments, draw(2, 3, 4, 4)), mean, atol=1e-5, rtol=0)
    assert len(quantized.code_ids.unique()) > 1
    assert torch.equal(network.decode(mean), network.render(quantized.z))
    torch.testing.assert_close(network.decode(quantized.z), network.decode(mean))
    assert not torch.equal(network.decode(mean), network.render(mean))


@torch.no_grad()
def test_half_precision_keeps_the_point() -> None:
    """A cache in fp16 holds the moments of a quantized autoencoder without harm."""
    network = build(quantizer=VectorQuantizer(32, 3))
    moments = network.encode(draw(1, 3, 16, 16)).half()

    draw_of_it = sample_posterior(moments, draw(1, 3, 4, 4))

    torch.testing.assert_close(draw_of_it, moments[:, :3].float(), atol=1e-5, rtol=0)
