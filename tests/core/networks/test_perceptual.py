"""LPIPS as a formula: a distance per image, whose gradient reaches the images and nothing else."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from latentart.core.networks.perceptual import PerceptualDistance, build_random_slices


def draw(*shape: int, seed: int = 0) -> Tensor:
    """Return uniform float32 numbers in -1…1."""
    return 2 * torch.rand(*shape, generator=torch.Generator().manual_seed(seed)) - 1


def build(seed: int = 0) -> PerceptualDistance:
    """Return the distance over the small random backbone, each channel weighted differently."""
    slices = build_random_slices(torch.Generator().manual_seed(seed), (4, 6))
    return PerceptualDistance(slices, [torch.linspace(0.1, 1, 4), torch.linspace(1, 2, 6)])


@torch.no_grad()
def test_distance_is_its_formula() -> None:
    """Σ_l mean_hw Σ_c w (f̂(a) - f̂(b))² with features at unit length, written out."""
    distance = build()
    a, b = draw(2, 3, 8, 6), draw(2, 3, 8, 6, seed=1)

    result = distance(a, b)

    shift, scale = torch.tensor([-0.030, -0.088, -0.188]), torch.tensor([0.458, 0.448, 0.450])
    x, y = ((images - shift.view(1, 3, 1, 1)) / scale.view(1, 3, 1, 1) for images in (a, b))
    expected = torch.zeros(2)
    for part, weights in zip(distance.slices, (torch.linspace(0.1, 1, 4), torch.linspace(1, 2, 6)), strict=True):
        x, y = part(x), part(y)
        for i in range(2):
            for row in range(x.shape[2]):
                for column in range(x.shape[3]):
                    f, g = x[i, :, row, column], y[i, :, row, column]
                    gap = f / f.norm().clamp_min(1e-10) - g / g.norm().clamp_min(1e-10)
                    expected[i] += (weights * gap.square()).sum() / (x.shape[2] * x.shape[3])
    torch.testing.assert_close(result, expected, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_it_is_a_distance_for_each_image() -> None:
    """Zero between equal images, the same both ways, positive between others, one number a row."""
    distance = build()
    a, b = draw(3, 3, 16, 16), draw(3, 3, 16, 16, seed=1)
    b[1] = a[1]

    there, back = distance(a, b), distance(b, a)

    assert (there.shape, there.dtype) == ((3,), torch.float32)
    assert there[1] == 0
    assert (there[[0, 2]] > 0).all()
    assert torch.equal(there, back)
    torch.testing.assert_close(distance(a[2:], b[2:]), there[2:], atol=1e-6, rtol=1e-5)


def test_the_gradient_reaches_images_and_no_weight() -> None:
    """The backbone is frozen; what it compares is not."""
    distance = build()
    images = draw(2, 3, 8, 8).requires_grad_()

    torch.autograd.backward(distance(images, draw(2, 3, 8, 8, seed=1)).sum())

    assert images.grad is not None
    assert bool(images.grad.any())
    assert [name for name, p in distance.named_parameters() if p.requires_grad or p.grad is not None] == []


def test_the_gradient_is_finite_where_no_feature_fires() -> None:
    """At a place where every feature is zero the length has no slope; the gradient is zero there, not NaN."""
    silent = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU())
    nn.init.constant_(silent[0].bias, -100.0)  # type: ignore[arg-type]
    distance = PerceptualDistance([silent], [torch.ones(4)])
    images = draw(1, 3, 4, 4).requires_grad_()

    torch.autograd.backward(distance(images, draw(1, 3, 4, 4, seed=1)).sum())

    assert images.grad is not None
    assert torch.equal(images.grad, torch.zeros_like(images))


def test_random_slices_follow_from_their_generator() -> None:
    """The same seed gives the same backbone, another seed another."""
    first, again, other = (build(seed).state_dict() for seed in (0, 0, 1))

    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["slices.0.0.weight"], other["slices.0.0.weight"])


def test_random_slices_halve_the_map_from_the_second_on() -> None:
    """Coarser structure is compared at coarser sizes."""
    features = build().features(draw(1, 3, 16, 12))

    assert [tuple(f.shape) for f in features] == [(1, 4, 16, 12), (1, 6, 8, 6)]
