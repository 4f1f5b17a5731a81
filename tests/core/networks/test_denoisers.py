"""What every denoiser promises, whatever its kind: shapes, labels, gradients, independence of the batch, precision."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from latentart.core.networks.blocks import BlockShape, StackShape, set_recompute
from latentart.core.networks.conditioning import Denoiser
from latentart.core.networks.dit import DiT
from latentart.core.networks.unet import UNet
from latentart.kinds import AttentionKind

Build = Callable[..., Denoiser]
LABELS = (5,)


def draw(*shape: int, seed: int = 0) -> Tensor:
    """Return normal float32 numbers."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def randomize(network: Denoiser) -> Denoiser:
    """Fill every weight, those that start at zero too."""
    for number, parameter in enumerate(network.parameters()):
        parameter.data = draw(*parameter.shape, seed=number) / max(parameter[0].numel(), 4) ** 0.5
    return network


def build_unet(
    num_labels: Sequence[int] = LABELS, *, dropout: float = 0.0, attention: Sequence[AttentionKind] = ("linear", "full")
) -> Denoiser:
    """Return a small UNet for 3 latent channels."""
    return UNet(
        3,
        num_labels,
        StackShape(
            widths=(8, 16),
            num_blocks=1,
            attention=attention,
            middle_attention="full",
            blocks=BlockShape(groups=4, head_channels=8, dropout=dropout, conditioning_channels=12),
        ),
    )


def build_dit(num_labels: Sequence[int] = LABELS, *, dropout: float = 0.0) -> Denoiser:
    """Return a small transformer for 3 latent channels."""
    shape = BlockShape(head_channels=8, dropout=dropout, conditioning_channels=12)
    return DiT(3, num_labels, 16, depth=3, patch_size=2, mlp_width=24, shape=shape)


every_kind = pytest.mark.parametrize("build", [build_unet, build_dit])


@every_kind
@pytest.mark.parametrize("size", [(1, 2, 2), (3, 4, 6), (5, 8, 4)])
@torch.no_grad()
def test_the_prediction_has_the_shape_of_its_input(build: Build, size: tuple[int, int, int]) -> None:
    """Odd batches and oblong maps come back as they were, float32."""
    batch, height, width = size
    x_t = draw(batch, 3, height, width)

    prediction = randomize(build())(x_t, torch.arange(batch), torch.arange(batch))

    assert (prediction.shape, prediction.dtype) == (x_t.shape, torch.float32)
    assert prediction.abs().max() > 0


@every_kind
@pytest.mark.parametrize("size", [(3, 4), (4, 5)])
def test_a_map_that_does_not_divide_is_refused(build: Build, size: tuple[int, int]) -> None:
    """The error names the factor and the size."""
    with pytest.raises(ValueError, match=rf"multiples of 2: got \({size[0]}, {size[1]}\)"):
        build()(torch.zeros(1, 3, *size), torch.zeros(1, dtype=torch.long), torch.zeros(1, dtype=torch.long))


@every_kind
@torch.no_grad()
def test_a_new_denoiser_predicts_zero(build: Build) -> None:
    """Its last layer starts at zero."""
    prediction = build()(draw(2, 3, 4, 4), torch.tensor([0, 999]), torch.tensor([0, 5]))

    assert torch.equal(prediction, torch.zeros(2, 3, 4, 4))


@every_kind
@torch.no_grad()
def test_the_null_style_is_one_more_row(build: Build) -> None:
    """Five styles and the null style, index 5, each with its own prediction."""
    network = randomize(build())
    x_t, t = draw(1, 3, 4, 4).expand(6, -1, -1, -1), torch.full((6,), 300)

    predictions = network(x_t, t, torch.arange(6)).flatten(1)

    assert network.null_like(torch.tensor([2, 0])).tolist() == [5, 5]
    assert network.style_embedding.num_embeddings == 6
    assert (torch.cdist(predictions, predictions) + torch.eye(6)).min() > 1e-3


@every_kind
@torch.no_grad()
def test_the_timestep_matters(build: Build) -> None:
    """The same latents at another timestep give another prediction."""
    network, x_t, style_id = randomize(build()), draw(1, 3, 4, 4), torch.tensor([2])

    early, late = network(x_t, torch.tensor([10]), style_id), network(x_t, torch.tensor([900]), style_id)

    assert (early - late).abs().max() > 1e-3


@every_kind
@torch.no_grad()
def test_every_latent_moves_every_prediction(build: Build) -> None:
    """A change at one corner reaches the opposite one of an oblong map, where it differs from the others."""
    network, x_t = randomize(build()), draw(1, 3, 4, 8)
    changed = x_t.clone()
    changed[0, :, 0, 0] += 3.0
    t, style_id = torch.tensor([300]), torch.tensor([1])

    difference = (network(changed, t, style_id) - network(x_t, t, style_id)).abs().amax(1)

    assert difference.min() > 1e-6
    assert difference.max() > 1e-3


@every_kind
@torch.no_grad()
def test_columns_and_blends_reach_the_prediction(build: Build) -> None:
    """Ids of two columns equal their weights; either column matters; a blend is something between."""
    network, t = randomize(build([5, 2])), torch.tensor([300, 300])
    x_t = draw(1, 3, 4, 4).expand(2, -1, -1, -1)
    labels = torch.tensor([[1, 0], [1, 1]])
    weights = network.style_embedding.weights_of(labels)

    by_ids, by_weights = network(x_t, t, labels), network(x_t, t, weights)
    blend = network(x_t, t, weights.mean(0, keepdim=True).expand(2, -1))
    null = network(x_t, t, network.null_like(labels))

    torch.testing.assert_close(by_weights, by_ids, atol=1e-5, rtol=1e-5)
    assert (by_ids[0] - by_ids[1]).abs().max() > 1e-3
    assert all((other[0] - one).abs().max() > 1e-4 for other in (blend, null) for one in by_ids)
    torch.testing.assert_close(network(x_t, t, torch.tensor([1, 1])), network(x_t, t, torch.tensor([[1, 2], [1, 2]])))


@every_kind
@torch.no_grad()
def test_image_i_does_not_depend_on_its_batch(build: Build) -> None:
    """Each row alone gives what it gives among others."""
    network = randomize(build())
    x_t, t, style_id = draw(3, 3, 4, 6), torch.tensor([0, 500, 999]), torch.tensor([1, 5, 0])

    together = network(x_t, t, style_id)

    for i in range(3):
        row = slice(i, i + 1)
        torch.testing.assert_close(network(x_t[row], t[row], style_id[row]), together[row], atol=1e-5, rtol=1e-5)


@every_kind
def test_every_parameter_gets_a_gradient_once_the_silent_layers_have_woken(build: Build) -> None:
    """Layers that start at zero let gradients through after few steps; only rows of absent styles stay."""
    network = build()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    x_t, t, style_id = draw(2, 3, 4, 4), torch.tensor([100, 700]), torch.tensor([0, 5])

    for _ in range(4):
        optimizer.zero_grad()
        torch.autograd.backward((network(x_t, t, style_id) - draw(2, 3, 4, 4, seed=1)).square().mean())
        optimizer.step()

    assert [name for name, p in network.named_parameters() if p.grad is None or not p.grad.any()] == []
    assert network.style_embedding.weight.grad is not None
    assert network.style_embedding.weight.grad.any(1).tolist() == [True, False, False, False, False, True]


@every_kind
def test_bf16_comes_back_as_float32(build: Build) -> None:
    """Under autocast the prediction is float32, near that of float32, and so are the gradients."""
    network, x_t = randomize(build()), draw(2, 3, 8, 8)
    t, style_id = torch.tensor([3, 700]), torch.tensor([0, 4])

    plain = network(x_t, t, style_id)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        prediction = network(x_t, t, style_id)
    torch.autograd.backward(prediction.square().mean())

    assert prediction.dtype == torch.float32
    assert 0 < (prediction - plain).abs().mean() < 0.05 * plain.abs().mean()
    assert all(p.grad is not None and p.grad.dtype == torch.float32 for p in network.parameters())


@every_kind
def test_dropout_is_drawn_in_training_only(build: Build) -> None:
    """Two passes differ in training mode, and are equal to the bit in evaluation."""
    network = randomize(build(dropout=0.5))
    inputs = draw(2, 3, 4, 4), torch.tensor([3, 700]), torch.tensor([0, 4])

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        in_training = [network(*inputs) for _ in range(2)]
    network.eval()

    assert not torch.equal(*in_training)
    assert torch.equal(network(*inputs), network(*inputs))


class LargestTensor(TorchDispatchMode):
    """Keeps the most numbers in one tensor of all that is computed while it is on, and which operations ran."""

    def __init__(self) -> None:
        super().__init__()
        self.most, self.operations = 0, set[str]()

    def __torch_dispatch__(self, function: object, types: object, args: tuple = (), kwargs: object = None) -> object:
        """Run one operation and look at its results."""
        results = function(*args, **(kwargs or {}))
        self.operations.add(str(function))
        self.most = max(self.most, *(x.numel() for x in tree_leaves(results) if isinstance(x, Tensor)), 0)
        return results


@pytest.mark.parametrize("build", [functools.partial(build_unet, attention=("full", "full")), build_dit])
@pytest.mark.parametrize("recompute", [False, True])
def test_full_attention_over_a_large_map_never_holds_every_pair_of_positions(build: Build, recompute: bool) -> None:
    """It goes through the fused kernel, there and back."""
    network, inputs = randomize(build()), (draw(1, 3, 48, 48), torch.tensor([300]), torch.tensor([1]))
    set_recompute(network, recompute)
    positions = (48 * 48) // network.factor**2 if isinstance(network, DiT) else 48 * 48

    with LargestTensor() as largest:
        torch.autograd.backward(network(*inputs).square().mean())

    assert largest.most < positions**2
    assert any("_scaled_dot_product_flash_attention" in name for name in largest.operations)
