"""Tiles: exact where layers see no farther than the blend allows, no seams where they do, memory of one tile."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

from latentart.core.networks.autoencoder import Autoencoder, Decoder, Encoder
from latentart.core.networks.blocks import BlockShape, StackShape
from latentart.core.networks.normalization import GroupNorm
from latentart.core.networks.tiling import blend_weights, decode_tiled, encode_tiled, place_tiles
from latentart.kinds import AttentionKind

CPU = torch.device("cpu")


def draw(*shape: int, seed: int = 0) -> Tensor:
    """Return normal float32 numbers."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def paint(count: int, height: int, width: int, seed: int = 0) -> Tensor:
    """Return images ``[count, 3, H, W]`` in -1…1 with large soft shapes and small ones upon them."""
    layers = [
        functional.interpolate(draw(count, 3, cells, cells, seed=seed + cells), (height, width), mode="bicubic") / share
        for cells, share in ((2, 1.5), (5, 2.0), (11, 4.0))
    ]
    return torch.stack(layers).sum(0).clamp(-1, 1)


def build(attention: AttentionKind) -> Autoencoder:
    """Return a small autoencoder of factor 2 with weights everywhere, always the same."""
    widths, shape = (8, 16), BlockShape(groups=4, head_channels=8)
    stack = StackShape(
        widths=widths, num_blocks=1, attention=("none", attention), middle_attention=attention, blocks=shape
    )
    encoder = Encoder(3, stack)
    decoder = Decoder(3, stack)
    network = Autoencoder(encoder, decoder, latent_channels=3, factor=2)
    for number, parameter in enumerate(network.parameters()):
        parameter.data = draw(*parameter.shape, seed=number) / max(parameter[0].numel(), 4) ** 0.5
    return network


def build_local() -> Autoencoder:
    """Return one of convolutions alone, which sees 17 pixels far: 1 + 2 · 1 + 2 · 2 + 4 · 2 + 2, either way."""
    network = build("none")
    for module in list(network.modules()):
        for name, child in module.named_children():
            if isinstance(child, GroupNorm):
                setattr(module, name, nn.Identity())
    return network


def record_tiles(network: nn.Module) -> list[tuple[int, ...]]:
    """Return a list that will hold the size of everything that goes into a network."""
    sizes: list[tuple[int, ...]] = []
    network.register_forward_pre_hook(lambda _module, inputs: sizes.append(tuple(inputs[0].shape[-2:])))
    return sizes


@pytest.mark.parametrize("size", [(64, 64), (64, 30), (2, 48)])
@torch.no_grad()
def test_what_fits_into_a_tile_goes_through_at_once(size: tuple[int, int]) -> None:
    """Up to a tile's size the result is the plain one to the bit, from one call."""
    network, images = build("linear"), draw(2, 3, *size)
    moments = network.encode(images)
    expected = network.decode(moments[:, :3])
    encoded, decoded = record_tiles(network.encoder), record_tiles(network.decoder)

    assert torch.equal(encode_tiled(network, images, tile=64, overlap=16), moments)
    assert torch.equal(decode_tiled(network, moments[:, :3], tile=64, overlap=16), expected)
    assert (encoded, decoded) == ([size], [(size[0] // 2, size[1] // 2)])


@pytest.mark.parametrize("size", [(160, 400), (402, 160), (250, 330), (162, 164), (80, 242)])
@torch.no_grad()
def test_local_layers_give_the_whole_picture(size: tuple[int, int]) -> None:
    """Layers that see no farther than a quarter of the overlap: tiled equals whole at every pixel, any shape."""
    network, images = build_local(), paint(2, *size)
    moments = network.encode(images)
    whole = network.decode(moments[:, :3])

    encoded = encode_tiled(network, images, tile=160, overlap=80)
    decoded = decode_tiled(network, moments[:, :3], tile=160, overlap=80)
    cut = decode_tiled(network, moments[:, :3], tile=160, overlap=0)

    torch.testing.assert_close(encoded, moments, atol=1e-5 * float(moments.abs().max()), rtol=0)
    torch.testing.assert_close(decoded, whole, atol=1e-5 * float(whole.abs().max()), rtol=0)
    assert (cut - whole).abs().max() > 0.1 * whole.std(), "else the network sees nothing beyond a tile's edge"


@pytest.mark.parametrize("size", [(200, 34), (66, 64), (130, 190)])
@torch.no_grad()
def test_every_tile_has_full_size(size: tuple[int, int]) -> None:
    """None is smaller than the others, none larger than asked for: that is what bounds the memory."""
    network, images = build("linear"), draw(1, 3, *size)
    encoded, decoded = record_tiles(network.encoder), record_tiles(network.decoder)

    moments = encode_tiled(network, images, tile=64, overlap=16)
    decode_tiled(network, moments[:, :3], tile=64, overlap=16)

    height, width = (min(64, side) for side in size)
    assert set(encoded) == {(height, width)}
    assert set(decoded) == {(height // 2, width // 2)}
    assert len(encoded) == len(decoded) > 1


@given(
    tile=st.integers(1, 40),
    share=st.floats(0, 0.5),
    size=st.integers(1, 300),
    scale=st.sampled_from([1, 2, 8]),
)
@example(tile=8, share=0.5, size=4, scale=2)
@example(tile=8, share=0.5, size=9, scale=1)
def test_weights_share_every_position(tile: int, share: float, size: int, scale: int) -> None:
    """Tiles lie on the axis and cover it; the weights add up to 1, and a tile's inner edge counts nothing."""
    overlap = int(tile * share)
    spans = place_tiles(size, tile, overlap)
    weights = blend_weights(spans, overlap, scale, CPU)

    assert {span.stop - span.start for span in spans} == {min(tile, size)}
    assert (spans[0].start, spans[-1].stop) == (0, size)
    total = torch.zeros(size * scale)
    for span, weight in zip(spans, weights, strict=True):
        total[span.start * scale : span.stop * scale] += weight
        assert 0 <= weight.min() <= weight.max() <= 1
    torch.testing.assert_close(total, torch.ones(size * scale))
    edge = overlap * scale // 4
    assert not any(weight[:edge].any() for weight in weights[1:])
    assert not any(weight[len(weight) - edge :].any() for weight in weights[:-1])


@pytest.mark.parametrize(
    ("tile", "overlap"), [(64, 34), (64, -2), (63, 16), (64, 15), (0, 0)], ids=lambda value: str(value)
)
def test_impossible_tiles_are_refused(tile: int, overlap: int) -> None:
    """The error names the factor and both sizes, whichever way."""
    network = build("none")
    for function, x in ((encode_tiled, torch.zeros(1, 3, 8, 8)), (decode_tiled, torch.zeros(1, 3, 4, 4))):
        with pytest.raises(ValueError, match=f"multiples of 2, overlap at most half a tile: got {tile} and {overlap}$"):
            function(network, x, tile=tile, overlap=overlap)


@pytest.mark.parametrize("size", [(201, 64), (64, 201), (9, 8)])
def test_a_size_that_does_not_divide_is_refused(size: tuple[int, int]) -> None:
    """As by the autoencoder itself, larger than a tile or not; nothing goes through the network first."""
    network = build("none")
    sizes = record_tiles(network.encoder)

    with pytest.raises(ValueError, match=f"multiples of 2: got {size[0]}x{size[1]}"):
        encode_tiled(network, torch.zeros(1, 3, *size), tile=64, overlap=16)
    assert sizes == []


def largest_steps(error: Tensor, dim: int) -> tuple[float, float]:
    """Return the largest step of an error ``[B, 3, H, W]`` along an axis: near tile borders, and elsewhere.

    A step is the mean change from one column (or row) to the next. Borders of tiles lie at multiples of 64; where a
    tile ends or begins within 4 pixels is near. The picture's frame is left out: padding makes it special to any tile.
    """
    steps = error.diff(dim=dim).abs().mean([i for i in range(4) if i != dim])[8:-8]
    places = torch.arange(len(steps)) + 8 + 1
    is_near = (places + 4) % 64 <= 8
    return float(steps[is_near].max()), float(steps[~is_near].max())


@pytest.mark.parametrize("seed", [0, 1])
@torch.no_grad()
def test_tiles_leave_no_seams(seed: int) -> None:
    """With normalization and attention the error stays small and changes no faster at borders than elsewhere.

    Measured in standard deviations of the picture. Hard cuts, by the same measure, stand out a hundredfold.
    """
    network, images = build("linear"), paint(1, 192, 256, seed=seed)
    z = network.encode(images)[:, :3]
    whole = network.decode(z)

    error = (decode_tiled(network, z, tile=128, overlap=64) - whole) / whole.std()
    cut_error = (decode_tiled(network, z, tile=128, overlap=0) - whole) / whole.std()

    assert error.square().mean().sqrt() < 0.05
    for dim in (2, 3):
        at_borders, elsewhere = largest_steps(error, dim)
        assert at_borders < 2 * elsewhere
        assert max(at_borders, elsewhere) < 0.01
        assert largest_steps(cut_error, dim)[0] > 0.5


@pytest.mark.parametrize("seed", [0, 1])
@torch.no_grad()
def test_moments_of_tiles_are_near_those_of_the_whole(seed: int) -> None:
    """Encoding by tiles moves the mean by a small part of its spread, and hard cuts by far more."""
    network, images = build("linear"), paint(1, 192, 256, seed=seed)
    mean = network.encode(images)[:, :3]

    errors = [
        float((encode_tiled(network, images, tile=128, overlap=overlap)[:, :3] - mean).std() / mean.std())
        for overlap in (64, 0)
    ]

    assert errors[0] < 0.1
    assert errors[1] > 2 * errors[0]


PEAK = """
import re, sys
from pathlib import Path
import torch
from latentart.builders import build_autoencoder
from latentart.config.vae import AutoencoderConfig
from latentart.core.networks.tiling import decode_tiled

attention = ("none", "none", "linear")
network = build_autoencoder(AutoencoderConfig(widths=(16, 32, 64), attention=attention, head_channels=16))
side = int(sys.argv[1])
images = decode_tiled(network, torch.randn(1, 4, side // 4, side // 4))
assert images.shape == (1, 3, side, side)
print(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1])
"""


def peak_bytes(side: int) -> int:
    """Return the most memory that a process ever held which decodes one square picture by tiles of 1,024 pixels.

    From the kernel's own mark, as ``ru_maxrss`` starts at what the parent holds.
    """
    done = subprocess.run([sys.executable, "-c", PEAK, str(side)], capture_output=True, text=True, check=True)
    return 1024 * int(done.stdout)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's account of memory")
def test_a_large_picture_takes_the_memory_of_a_small_one() -> None:
    """Decoding 2,048 px takes what 1,024 px take, and the picture itself: two copies at most."""
    picture = 3 * 2048 * 2048 * 4

    assert peak_bytes(2048) - peak_bytes(1024) < 2 * picture
