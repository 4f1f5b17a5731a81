"""The terms of the autoencoder's loss; every one is a per-image mean ``[B]``, so weights survive 256 → 512 px."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from latentart.kinds import Adversarial, Reconstruction

CHARBONNIER_WIDTH = 1e-3  # Lai et al. 1710.01992, section 3.2


def reconstruction_per_image(images_hat: Tensor, images: Tensor, kind: Reconstruction = "l1") -> Tensor:
    """Return the mean difference per image, ``[B]``: absolute, squared, or ``√(d² + 1e-3²)`` (``charbonnier``).

    Charbonnier is L1 with a round bottom (Charbonnier et al. 1994; Lai et al. 1710.01992, equation 4).
    """
    difference = images_hat.float() - images.float()
    if kind == "l1":
        distance = difference.abs()
    elif kind == "l2":
        distance = difference.square()
    else:
        distance = (difference.square() + CHARBONNIER_WIDTH**2).sqrt()
    return distance.flatten(1).mean(1)


def generator_loss_per_image(fake_logits: Tensor, kind: Adversarial = "hinge") -> Tensor:
    """Return the generator's term per image, ``[B]``.

    ``hinge``: ``-mean fake`` (Lim & Ye 1705.02894, eq. 7). ``non_saturating``: ``mean softplus(-fake)``, that is
    ``-log D`` (Goodfellow et al. 1406.2661, section 3).
    """
    loss = -fake_logits if kind == "hinge" else functional.softplus(-fake_logits)
    return loss.flatten(1).mean(1)


def discriminator_loss_per_image(real_logits: Tensor, fake_logits: Tensor, kind: Adversarial = "hinge") -> Tensor:
    """Return the discriminator's loss per image, ``[B]``, half of the sum of both sides.

    ``hinge``: ``½ mean(relu(1 - real) + relu(1 + fake))`` (Lim & Ye, eq. 6). ``non_saturating``:
    ``½ mean(softplus(-real) + softplus(fake))`` (Goodfellow et al., eq. 1).
    """
    if kind == "hinge":
        real, fake = functional.relu(1.0 - real_logits), functional.relu(1.0 + fake_logits)
    else:
        real, fake = functional.softplus(-real_logits), functional.softplus(fake_logits)
    return 0.5 * (real.flatten(1).mean(1) + fake.flatten(1).mean(1))


def r1_per_image(real_logits: Tensor, images: Tensor) -> Tensor:
    """Return the discriminator's squared slope at real images, ``[B]``: ``‖∇_x Σ logits‖² / number of logits``.

    R1 of Mescheder et al. 1801.04406, eq. 9, without its γ/2. Differs from the paper: a mean over patches, so that
    its weight survives a change of resolution. ``images`` must ask for a gradient; the result can be derived again.
    """
    (slope,) = torch.autograd.grad(real_logits.sum(), images, create_graph=True)
    return slope.float().square().flatten(1).sum(1) / real_logits[0].numel()


def adaptive_weight(
    reconstruction: Tensor,
    adversarial: Tensor,
    last_layer: Tensor,
    limit: float = 10.0,
    average: Callable[[Tensor], Tensor] | None = None,
) -> Tensor:
    """Return the factor that gives both terms equal gradient norm at the decoder's last layer, at most ``limit``.

    ``λ = ‖∇ L_rec‖ / (‖∇ L_adv‖ + 1e-4)`` (Esser et al. 2012.09841, eq. 7). No gradient flows through it. Where the
    losses are those of a part of a batch, ``average`` makes of a part's gradient the whole's.
    """
    (by_reconstruction,) = torch.autograd.grad(reconstruction, last_layer, retain_graph=True)
    (by_adversarial,) = torch.autograd.grad(adversarial, last_layer, retain_graph=True)
    if average is not None:
        by_reconstruction, by_adversarial = average(by_reconstruction), average(by_adversarial)
    ratio = by_reconstruction.norm() / (by_adversarial.norm() + 1e-4)
    return ratio.clamp(0.0, limit).detach()


def psnr_per_image(images_hat: Tensor, images: Tensor) -> Tensor:
    """Return ``10 log10(2² / mean squared difference)`` in dB per image, ``[B]``, for images in -1…1."""
    difference = images_hat.float().clamp(-1, 1) - images.float()
    return 10.0 * torch.log10(4.0 / difference.square().flatten(1).mean(1).clamp_min(1e-10))
