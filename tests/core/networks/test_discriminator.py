"""The discriminator: patch logits that depend on their own picture only."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from latentart.core.networks.discriminator import PatchDiscriminator


def draw(*shape: int, seed: int = 0) -> Tensor:
    """Return normal float32 numbers."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def build(num_layers: int = 3) -> PatchDiscriminator:
    """Return a small discriminator, always the same."""
    network = PatchDiscriminator(base_channels=8, num_layers=num_layers, groups=4)
    for number, parameter in enumerate(network.parameters()):
        parameter.data = draw(*parameter.shape, seed=number) / max(parameter[0].numel(), 4) ** 0.5
    return network


@pytest.mark.parametrize(("num_layers", "side"), [(1, 30), (2, 14), (3, 6)])
@torch.no_grad()
def test_each_layer_halves_the_map_and_two_more_trim_it(num_layers: int, side: int) -> None:
    """64 px give 64 / 2^n - 2 logits a side, as pix2pix's PatchGAN."""
    logits = build(num_layers)(draw(3, 3, 64, 64))

    assert (logits.shape, logits.dtype) == ((3, 1, side, side), torch.float32)


def test_widths_double_up_to_eight_times() -> None:
    """The width of each convolution, from the first to the logit."""
    network = PatchDiscriminator(base_channels=8, num_layers=5, groups=4)

    widths = [layer.out_channels for layer in network.layers if isinstance(layer, nn.Conv2d)]

    assert widths == [8, 16, 32, 64, 64, 64, 1]


@torch.no_grad()
def test_logits_of_image_i_do_not_depend_on_its_batch() -> None:
    """In training mode too, a row alone gives what it gives among very different others."""
    network = build().train()
    images = torch.cat([draw(1, 3, 32, 48), 100 * draw(2, 3, 32, 48, seed=1)])

    together = network(images)

    torch.testing.assert_close(network(images[:1]), together[:1], atol=1e-5, rtol=1e-5)


def test_every_parameter_and_the_images_get_a_gradient() -> None:
    """The generator learns through it, and all of it learns."""
    network = build()
    images = draw(2, 3, 32, 32).requires_grad_()

    torch.autograd.backward(network(images).square().mean())

    assert images.grad is not None
    assert bool(images.grad.any())
    assert [name for name, p in network.named_parameters() if p.grad is None or not p.grad.any()] == []
