"""The terms of the autoencoder's loss; every one is a per-image mean ``[B]``, so weights survive 256 → 512 px."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

Reconstruction = Literal["l1", "l2"]


def reconstruction_per_image(images_hat: Tensor, images: Tensor, kind: Reconstruction = "l1") -> Tensor:
    """Return the mean absolute (``l1``) or squared (``l2``) difference per image, ``[B]``."""
    difference = images_hat.float() - images.float()
    return (difference.abs() if kind == "l1" else difference.square()).flatten(1).mean(1)


def generator_loss_per_image(fake_logits: Tensor) -> Tensor:
    """Return ``-mean logits`` per image, ``[B]``: the hinge game's generator term (Lim & Ye 1705.02894, eq. 7)."""
    return -fake_logits.flatten(1).mean(1)


def discriminator_loss_per_image(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """Return the hinge loss per image, ``[B]``: ``½ mean(relu(1 - real) + relu(1 + fake))`` (Lim & Ye, eq. 6)."""
    real = functional.relu(1.0 - real_logits).flatten(1).mean(1)
    fake = functional.relu(1.0 + fake_logits).flatten(1).mean(1)
    return 0.5 * (real + fake)


def adaptive_weight(reconstruction: Tensor, adversarial: Tensor, last_layer: Tensor, limit: float = 10.0) -> Tensor:
    """Return the factor that gives both terms equal gradient norm at the decoder's last layer, at most ``limit``.

    ``λ = ‖∇ L_rec‖ / (‖∇ L_adv‖ + 1e-4)`` (Esser et al. 2012.09841, eq. 7). No gradient flows through it.
    """
    (by_reconstruction,) = torch.autograd.grad(reconstruction, last_layer, retain_graph=True)
    (by_adversarial,) = torch.autograd.grad(adversarial, last_layer, retain_graph=True)
    ratio = by_reconstruction.norm() / (by_adversarial.norm() + 1e-4)
    return ratio.clamp(0.0, limit).detach()
