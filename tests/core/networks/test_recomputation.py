"""Recomputation of activations: the same gradients to the bit from far fewer kept bytes."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from latentart.core.networks.autoencoder import Autoencoder, Decoder, Encoder
from latentart.core.networks.blocks import BlockShape, MiddleBlock, StackShape, set_recompute
from latentart.core.networks.dit import DiT
from latentart.core.networks.unet import UNet

WIDTHS = (8, 16)


def draw(*shape: int, seed: int = 0) -> Tensor:
    """Return normal float32 numbers."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def randomize(network: nn.Module) -> None:
    """Fill every weight, those that start at zero too."""
    for number, parameter in enumerate(network.parameters()):
        parameter.data = draw(*parameter.shape, seed=number) / max(parameter[0].numel(), 4) ** 0.5


def build_autoencoder(dropout: float = 0.0) -> tuple[nn.Module, Callable[[], Tensor]]:
    """Return a small autoencoder, and its loss for two pictures."""
    shape = BlockShape(groups=4, head_channels=8, dropout=dropout)
    stack = StackShape(widths=WIDTHS, num_blocks=2, attention=("none", "linear"), middle_attention="full", blocks=shape)
    encoder = Encoder(3, stack)
    decoder = Decoder(3, stack)
    network = Autoencoder(encoder, decoder, latent_channels=3, factor=2)
    randomize(network)
    images = draw(2, 3, 16, 24)
    return network, lambda: network.decode(network.encode(images)[:, :3]).square().mean()


def build_unet(dropout: float = 0.0) -> tuple[nn.Module, Callable[[], Tensor]]:
    """Return a small denoiser, and its loss for two noised latents."""
    network = UNet(
        3,
        [5],
        StackShape(
            widths=WIDTHS,
            num_blocks=2,
            attention=("linear", "full"),
            middle_attention="full",
            blocks=BlockShape(groups=4, head_channels=8, dropout=dropout, conditioning_channels=12),
        ),
    )
    randomize(network)
    x_t, t, style_id = draw(2, 3, 16, 24), torch.tensor([3, 700]), torch.tensor([0, 4])
    return network, lambda: network(x_t, t, style_id).square().mean()


def build_dit(dropout: float = 0.0) -> tuple[nn.Module, Callable[[], Tensor]]:
    """Return a small transformer, and its loss for two noised latents."""
    shape = BlockShape(head_channels=8, dropout=dropout, conditioning_channels=12)
    network = DiT(3, [5], 16, depth=4, patch_size=2, mlp_width=40, shape=shape)
    randomize(network)
    x_t, t, style_id = draw(2, 3, 16, 24), torch.tensor([3, 700]), torch.tensor([0, 4])
    return network, lambda: network(x_t, t, style_id).square().mean()


Build = Callable[..., tuple[nn.Module, Callable[[], Tensor]]]
BUILDS: list[Build] = [build_autoencoder, build_unet, build_dit]


def gradients(network: nn.Module, loss: Callable[[], Tensor], *, passes: int = 1) -> list[Tensor]:
    """Return the loss and the gradient of every parameter, with dropout drawn from one seed."""
    network.zero_grad()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        value = loss()
        torch.manual_seed(1)  # what is drawn in the backward pass must not depend on what went on in between
        for number in range(passes):
            torch.autograd.backward(value, retain_graph=number + 1 < passes)
    return [value.detach(), *(p.grad for p in network.parameters() if p.grad is not None)]


def kept_bytes(network: nn.Module, loss: Callable[[], Tensor]) -> int:
    """Return how many bytes of activations the graph of the loss keeps, each storage once."""
    weights = {p.untyped_storage().data_ptr() for p in network.parameters()}
    kept: dict[int, int] = {}
    alive = []  # so that no address is used twice

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
            alive.append(storage)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        value = loss()
    assert value.requires_grad
    return sum(kept.values())


@pytest.mark.parametrize("build", BUILDS)
@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_gradients_are_the_same_to_the_bit(build: Build, dropout: float) -> None:
    """Loss and every gradient are equal with and without, dropout included, and once it is off again."""
    network, loss = build(dropout)
    plain = gradients(network, loss)

    set_recompute(network, True)
    recomputed = gradients(network, loss)
    set_recompute(network, False)
    again = gradients(network, loss)

    assert len(plain) == 1 + len(list(network.parameters()))
    assert all(torch.equal(a, b) for a, b in zip(plain, recomputed, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(plain, again, strict=True))


@pytest.mark.parametrize("build", BUILDS)
def test_a_graph_may_be_walked_twice(build: Build) -> None:
    """The weight of the adversarial term takes a gradient before the step does: two passes give twice the gradient."""
    network, loss = build()
    plain = gradients(network, loss, passes=2)

    set_recompute(network, True)

    assert all(torch.equal(a, b) for a, b in zip(plain, gradients(network, loss, passes=2), strict=True))


@pytest.mark.parametrize("build", BUILDS)
def test_the_graph_keeps_less_than_half(build: Build) -> None:
    """What is kept from the forward to the backward pass falls by far more than half."""
    network, loss = build()
    plain = kept_bytes(network, loss)

    set_recompute(network, True)

    assert 0 < kept_bytes(network, loss) < 0.4 * plain


def test_the_switch_reaches_every_stage() -> None:
    """One loss recomputes each block and attention of down, middle and up once; without gradients none is."""
    network, loss = build_unet()
    calls: dict[nn.Module, int] = {}

    def count(module: nn.Module, _inputs: tuple[Tensor, ...]) -> None:
        calls[module] = calls.get(module, 0) + 1

    stages = [*network.get_submodule("down").children(), *network.get_submodule("up").children()]
    layers = [layer for stage in stages for layer in [*stage.get_submodule("blocks").children(), stage.attention]]
    middle = network.get_submodule("middle")
    assert isinstance(middle, MiddleBlock)
    for layer in (layers := [*layers, middle.block1, middle.attention, middle.block2]):
        layer.register_forward_pre_hook(count)
    set_recompute(network, True)

    with torch.no_grad():
        loss()
    once = [calls.pop(layer) for layer in layers]
    torch.autograd.backward(loss())

    assert once == [1] * len(layers)
    assert [calls[layer] for layer in layers] == [2] * len(layers)


def test_the_switch_is_no_weight() -> None:
    """A checkpoint and a model folder are the same with and without."""
    network, _ = build_unet()
    before = set(network.state_dict())

    set_recompute(network, True)

    assert set(network.state_dict()) == before
