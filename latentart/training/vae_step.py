"""One update of the autoencoder and, once it has entered, one of the discriminator; neither touches the other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from latentart.core.ema import Ema
from latentart.core.latents import kl_per_image, sample_posterior
from latentart.core.losses import (
    Reconstruction,
    adaptive_weight,
    discriminator_loss_per_image,
    generator_loss_per_image,
    reconstruction_per_image,
)
from latentart.core.networks.autoencoder import Autoencoder
from latentart.core.networks.discriminator import PatchDiscriminator
from latentart.core.networks.perceptual import PerceptualDistance
from latentart.errors import TrainingDivergedError
from latentart.training.checkpoint import flatten_optimizer, load_matching, restore_optimizer
from latentart.training.devices import Placement
from latentart.training.optim import set_learning_rate


@dataclass(frozen=True)
class VaeTerms:
    """The loss of one stage as numbers; a term of weight 0 is never called.

    Attributes:
        discriminator_start: step of the stage at which the discriminator enters.
        clip_norm: largest gradient norm of an update; 0 leaves gradients alone.
    """

    reconstruction_kind: Reconstruction = "l1"
    reconstruction: float = 1.0
    kl: float = 1e-6
    adversarial: float = 0.0
    perceptual: float = 0.0
    discriminator_start: int = 0
    clip_norm: float = 1.0

    def uses_discriminator(self, step: int) -> bool:
        """Tell whether the discriminator takes part in update ``step`` of the stage."""
        return self.adversarial > 0 and step >= self.discriminator_start


@dataclass(frozen=True)
class VaeBatch:
    """Images ``[B, 3, H, W]`` in -1…1 and posterior noise ``[B, Z, h, w]``, both on the device."""

    images: Tensor
    noise: Tensor


class VaeStep:
    """Owns the autoencoder, its average, the discriminator and both optimizers."""

    def __init__(
        self,
        autoencoder: Autoencoder,
        ema: Ema,
        optimizer: torch.optim.Optimizer,
        terms: VaeTerms,
        placement: Placement,
        *,
        discriminator: PatchDiscriminator | None = None,
        discriminator_optimizer: torch.optim.Optimizer | None = None,
        perceptual: PerceptualDistance | None = None,
    ) -> None:
        self.autoencoder, self.ema, self.optimizer = autoencoder, ema, optimizer
        self.terms, self.placement = terms, placement
        self.discriminator, self.discriminator_optimizer = discriminator, discriminator_optimizer
        self.perceptual = perceptual
        if terms.adversarial > 0 and (discriminator is None or discriminator_optimizer is None):
            msg = "adversarial weight above 0: got no discriminator, expected one with its optimizer"
            raise ValueError(msg)
        if terms.perceptual > 0 and perceptual is None:
            msg = "perceptual weight above 0: got no perceptual network, expected one"
            raise ValueError(msg)

    def __call__(self, batch: VaeBatch, step: int, lr: float) -> dict[str, Tensor]:
        """Update the autoencoder, then the discriminator on the same pictures; return the scalars."""
        set_learning_rate(self.optimizer, lr)
        images_hat, scalars = self._update_autoencoder(batch, step)
        self.ema.update(self.autoencoder, step + 1)
        if self.terms.uses_discriminator(step):
            scalars |= self._update_discriminator(batch.images, images_hat.detach(), step)
        return scalars

    def _update_autoencoder(self, batch: VaeBatch, step: int) -> tuple[Tensor, dict[str, Tensor]]:
        terms = self.terms
        with self.placement.autocast():
            moments = self.autoencoder.encode(batch.images)
            images_hat = self.autoencoder.decode(sample_posterior(moments, batch.noise))
        reconstruction = reconstruction_per_image(images_hat, batch.images, terms.reconstruction_kind).mean()
        scalars = {"reconstruction": reconstruction}
        loss = terms.reconstruction * reconstruction
        if terms.kl > 0:
            scalars["kl"] = kl_per_image(moments).mean()
            loss = loss + terms.kl * scalars["kl"]
        if terms.perceptual > 0 and self.perceptual is not None:
            with self.placement.autocast():
                scalars["perceptual"] = self.perceptual(images_hat, batch.images).mean()
            loss = loss + terms.perceptual * scalars["perceptual"]
        if terms.uses_discriminator(step) and self.discriminator is not None:
            loss = loss + self._adversarial_term(images_hat, loss, scalars)
        self.optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        scalars["gradient_norm"] = clip_finite(self.autoencoder, loss, terms.clip_norm, "autoencoder", step)
        self.optimizer.step()
        return images_hat, {"loss": loss.detach()} | {name: value.detach() for name, value in scalars.items()}

    def _adversarial_term(self, images_hat: Tensor, other_terms: Tensor, scalars: dict[str, Tensor]) -> Tensor:
        """Return the weighted generator term; the discriminator's weights are frozen while it is computed."""
        assert self.discriminator is not None
        self.discriminator.requires_grad_(requires_grad=False)
        with self.placement.autocast():
            adversarial = generator_loss_per_image(self.discriminator(images_hat)).mean()
        self.discriminator.requires_grad_(requires_grad=True)
        factor = adaptive_weight(other_terms, adversarial, self.autoencoder.decoder.conv_out.weight)
        scalars |= {"adversarial": adversarial, "adversarial_factor": factor}
        return self.terms.adversarial * factor * adversarial

    def _update_discriminator(self, images: Tensor, images_hat: Tensor, step: int) -> dict[str, Tensor]:
        assert self.discriminator is not None
        assert self.discriminator_optimizer is not None
        with self.placement.autocast():
            real_logits, fake_logits = self.discriminator(torch.cat([images, images_hat])).chunk(2)
        loss = discriminator_loss_per_image(real_logits, fake_logits).mean()
        self.discriminator_optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        clip_finite(self.discriminator, loss, self.terms.clip_norm, "discriminator", step)
        self.discriminator_optimizer.step()
        return {
            "discriminator": loss.detach(),
            "real_logits": real_logits.detach().mean(),
            "fake_logits": fake_logits.detach().mean(),
        }

    def state(self) -> tuple[dict[str, dict[str, Tensor]], dict[str, Any]]:
        """Return everything a checkpoint needs: tensors by file, and JSON."""
        tensors: dict[str, dict[str, Tensor]] = {
            "autoencoder": dict(self.autoencoder.state_dict()),
            "ema": dict(self.ema.network.state_dict()),
        }
        values: dict[str, Any] = {}
        tensors["optimizer"], values["optimizer"] = flatten_optimizer(self.optimizer)
        if self.discriminator is not None and self.discriminator_optimizer is not None:
            tensors["discriminator"] = dict(self.discriminator.state_dict())
            name = "discriminator_optimizer"
            tensors[name], values[name] = flatten_optimizer(self.discriminator_optimizer)
        return tensors, values

    def restore(self, tensors: Mapping[str, Mapping[str, Tensor]], values: Mapping[str, Any]) -> None:
        """Take everything back, to go on inside a stage."""
        load_matching(self.autoencoder, tensors["autoencoder"], "autoencoder")
        load_matching(self.ema.network, tensors["ema"], "autoencoder average")
        restore_optimizer(self.optimizer, tensors["optimizer"], values["optimizer"])
        self.restore_discriminator(tensors, values)

    def start_from(self, tensors: Mapping[str, Mapping[str, Tensor]], values: Mapping[str, Any]) -> None:
        """Begin a stage where the former ended: from its average, with its discriminator and a fresh optimizer."""
        load_matching(self.autoencoder, tensors["ema"], "autoencoder")
        load_matching(self.ema.network, tensors["ema"], "autoencoder average")
        self.restore_discriminator(tensors, values)

    def restore_discriminator(self, tensors: Mapping[str, Mapping[str, Tensor]], values: Mapping[str, Any]) -> None:
        """Take the discriminator and its optimizer back, where both sides have one."""
        if self.discriminator is None or self.discriminator_optimizer is None or "discriminator" not in tensors:
            return
        load_matching(self.discriminator, tensors["discriminator"], "discriminator")
        name = "discriminator_optimizer"
        restore_optimizer(self.discriminator_optimizer, tensors[name], values[name])


def clip_finite(network: nn.Module, loss: Tensor, clip_norm: float, what: str, step: int) -> Tensor:
    """Scale a network's gradients down to ``clip_norm`` (0: leave them) and return their norm before that.

    Raises:
        TrainingDivergedError: the loss or the norm is not finite; no weight was touched.
    """
    norm = nn.utils.clip_grad_norm_(network.parameters(), clip_norm if clip_norm > 0 else float("inf"))
    if not bool(torch.isfinite(loss) & torch.isfinite(norm)):
        numbers = f"loss {float(loss.detach()):.4g}, gradient norm {float(norm):.4g}"
        msg = f"the {what} diverged at step {step + 1}: {numbers}."
        raise TrainingDivergedError(msg, "Its last checkpoint is sound; go on from it with a lower learning rate.")
    return norm
