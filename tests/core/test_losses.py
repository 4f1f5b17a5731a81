"""The terms of the autoencoder's loss against sums over single numbers, and the factor between two of them."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from latentart.core.losses import (
    adaptive_weight,
    discriminator_loss_per_image,
    generator_loss_per_image,
    r1_per_image,
    reconstruction_per_image,
)
from latentart.kinds import Reconstruction


def draw(*shape: int, seed: int = 0) -> Tensor:
    """Return normal float32 numbers."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("kind", "power"), [("l1", 1), ("l2", 2)])
def test_reconstruction_is_a_mean_over_each_image(kind: Reconstruction, power: int) -> None:
    """Absolute or squared difference, one number an image."""
    images_hat, images = draw(2, 3, 4, 5), draw(2, 3, 4, 5, seed=1)

    result = reconstruction_per_image(images_hat, images, kind)

    numbers = [zip(images_hat[i].flatten().tolist(), images[i].flatten().tolist(), strict=True) for i in range(2)]
    expected = [sum(abs(a - b) ** power for a, b in pairs) / 60 for pairs in numbers]
    torch.testing.assert_close(result, torch.tensor(expected), atol=1e-6, rtol=1e-5)


def test_reconstruction_is_computed_in_float32() -> None:
    """Half-precision images are compared in float32."""
    assert reconstruction_per_image(draw(1, 3, 2, 2).bfloat16(), draw(1, 3, 2, 2).bfloat16()).dtype == torch.float32


def test_charbonnier_is_l1_with_a_round_bottom() -> None:
    """√(d² + 1e-3²): far away it is |d|, at 0 it is 1e-3 and its slope is 0, not undefined."""
    images_hat = torch.tensor([0.0, 0.5, -2.0]).view(3, 1, 1, 1).requires_grad_()

    result = reconstruction_per_image(images_hat, torch.zeros(3, 1, 1, 1), "charbonnier")
    torch.autograd.backward(result.sum())

    assert result.tolist() == pytest.approx([1e-3, 0.500001, 2.00000025], abs=1e-7)
    assert images_hat.grad is not None
    assert images_hat.grad.flatten().tolist() == pytest.approx([0, 1, -1], abs=1e-5)


def test_non_saturating_losses_are_their_formulas() -> None:
    """½ mean(log(1+e^-real) + log(1+e^fake)) and mean log(1+e^-fake), patch by patch."""
    real, fake = 2 * draw(3, 1, 2, 4), 2 * draw(3, 1, 2, 4, seed=1)

    discriminator = discriminator_loss_per_image(real, fake, "non_saturating")
    generator = generator_loss_per_image(fake, "non_saturating")

    for i in range(3):
        reals, fakes = real[i].flatten().tolist(), fake[i].flatten().tolist()
        both = (
            sum(math.log1p(math.exp(-r)) + math.log1p(math.exp(f)) for r, f in zip(reals, fakes, strict=True)) / 2 / 8
        )
        assert discriminator[i].item() == pytest.approx(both, abs=1e-5)
        assert generator[i].item() == pytest.approx(sum(math.log1p(math.exp(-f)) for f in fakes) / 8, abs=1e-5)


def test_r1_of_a_linear_judge_is_its_squared_weights() -> None:
    """Logits that are w·patch over disjoint patches: the penalty is ‖w‖², whatever the picture's size."""
    judge = nn.Conv2d(3, 1, 4, stride=4, bias=False)
    squared = judge.weight.square().sum()

    for side in (8, 16):
        images = draw(2, 3, side, side).requires_grad_()
        penalty = r1_per_image(judge(images), images)
        torch.testing.assert_close(penalty, squared.expand(2), atol=1e-6, rtol=1e-5)


def test_r1_can_be_derived_again() -> None:
    """Its gradient by the judge's weights is 2w: it trains the judge."""
    judge = nn.Conv2d(3, 1, 4, stride=4, bias=False)
    images = draw(2, 3, 8, 8).requires_grad_()

    torch.autograd.backward(r1_per_image(judge(images), images).mean())

    assert judge.weight.grad is not None
    torch.testing.assert_close(judge.weight.grad, 2 * judge.weight.detach(), atol=1e-6, rtol=1e-5)


def test_hinge_losses_are_their_formulas() -> None:
    """½ mean(relu(1 - real) + relu(1 + fake)) and -mean(fake), patch by patch."""
    real, fake = 2 * draw(3, 1, 2, 4), 2 * draw(3, 1, 2, 4, seed=1)

    discriminator, generator = discriminator_loss_per_image(real, fake), generator_loss_per_image(fake)

    for i in range(3):
        reals, fakes = real[i].flatten().tolist(), fake[i].flatten().tolist()
        hinge = sum(max(0, 1 - r) + max(0, 1 + f) for r, f in zip(reals, fakes, strict=True)) / 2 / 8
        assert discriminator[i].item() == pytest.approx(hinge, abs=1e-6)
        assert generator[i].item() == pytest.approx(-sum(fakes) / 8, abs=1e-6)


def test_a_sure_discriminator_learns_nothing_more() -> None:
    """Beyond the margin of 1 both its loss and its gradient are zero."""
    real, fake = torch.full((1, 1, 2, 2), 1.5, requires_grad=True), torch.full((1, 1, 2, 2), -2.0, requires_grad=True)

    loss = discriminator_loss_per_image(real, fake)
    torch.autograd.backward(loss.sum())

    assert loss.item() == 0
    assert real.grad is not None
    assert fake.grad is not None
    assert not real.grad.any()
    assert not fake.grad.any()


def test_adaptive_weight_is_the_ratio_of_gradient_norms() -> None:
    """‖∇ L_rec‖ / (‖∇ L_adv‖ + 1e-4) at the last layer, by hand: here 6√4 and 2√4."""
    layer = nn.Parameter(torch.ones(4))

    factor = adaptive_weight(6 * layer.sum(), 2 * layer.sum(), layer)

    assert factor.item() == pytest.approx(12 / 4.0001, rel=1e-5)


def test_adaptive_weight_makes_both_gradients_equal() -> None:
    """Through a real layer, the weighted adversarial gradient has the reconstruction's norm."""
    layer = nn.Conv2d(3, 3, 3)
    out = layer(draw(2, 3, 6, 6))
    reconstruction, adversarial = out.square().mean(), 5 * out.mean()

    weighted = adaptive_weight(reconstruction, adversarial, layer.weight) * adversarial

    norms = [
        torch.autograd.grad(loss, layer.weight, retain_graph=True)[0].norm() for loss in (reconstruction, weighted)
    ]
    torch.testing.assert_close(norms[0], norms[1], atol=0, rtol=1e-3)


def test_adaptive_weight_carries_no_gradient_and_leaves_none() -> None:
    """It is a number: nothing flows through it and no parameter's gradient is touched."""
    layer = nn.Parameter(torch.ones(4))

    factor = adaptive_weight(layer.square().sum(), layer.sum(), layer)

    assert not factor.requires_grad
    assert layer.grad is None


def test_adaptive_weight_is_limited() -> None:
    """A vanishing adversarial gradient does not blow the factor up."""
    layer = nn.Parameter(torch.ones(4))

    assert adaptive_weight(layer.sum(), 0 * layer.sum(), layer).item() == 10.0
    assert adaptive_weight(layer.sum(), 0 * layer.sum(), layer, limit=3.0).item() == 3.0
    assert adaptive_weight(0 * layer.sum(), layer.sum(), layer).item() == 0.0
