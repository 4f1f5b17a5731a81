"""One update of the autoencoder and, once it has begun, one of the discriminator; neither touches the other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from latentart.core.ema import Ema
from latentart.core.equivariance import Transform
from latentart.core.latents import kl_per_image, sample_posterior, split_moments
from latentart.core.losses import Reconstruction, reconstruction_per_image
from latentart.core.networks.autoencoder import Autoencoder
from latentart.core.networks.perceptual import PerceptualDistance
from latentart.core.networks.quantizer import VectorQuantizer
from latentart.training.adversarial_schedule import ramp_share
from latentart.training.adversary import Adversary
from latentart.training.checkpoint import flatten_optimizer, load_matching, restore_optimizer
from latentart.training.devices import Placement
from latentart.training.optim import clip_finite, set_learning_rate
from latentart.training.randomness import generator_for, seed_dropout


@dataclass(frozen=True)
class VaeTerms:
    """The loss of one stage as numbers; a term of weight 0 is never called.

    Attributes:
        kl: for a Gaussian posterior. commitment: for a quantizer.
        perceptual_ramp: steps over which the perceptual term grows to its weight.
        clip_norm: largest gradient norm of an update; 0 leaves gradients alone.
    """

    reconstruction_kind: Reconstruction = "l1"
    reconstruction: float = 1.0
    kl: float = 1e-6
    commitment: float = 0.25
    adversarial: float = 0.0
    perceptual: float = 0.0
    equivariance: float = 0.0
    perceptual_ramp: int = 0
    clip_norm: float = 1.0


@dataclass(frozen=True)
class VaeBatch:
    """Images ``[B, 3, H, W]`` in -1…1, posterior noise ``[B, Z, h, w]``, both on the device; the step's transform."""

    images: Tensor
    noise: Tensor
    transform: Transform | None = None


class VaeStep:
    """Owns the autoencoder, its average and optimizer, and the adversary if there is one.

    ``seed`` is what dropped features and revived codes follow from, with the step. ``notes`` collects sentences for the
    log; whoever reads them empties the list.
    """

    def __init__(
        self,
        autoencoder: Autoencoder,
        ema: Ema,
        optimizer: torch.optim.Optimizer,
        terms: VaeTerms,
        placement: Placement,
        *,
        adversary: Adversary | None = None,
        perceptual: PerceptualDistance | None = None,
        seed: int = 0,
    ) -> None:
        self.seed = seed
        self.autoencoder, self.ema, self.optimizer = autoencoder, ema, optimizer
        self.terms, self.placement = terms, placement
        self.adversary, self.perceptual = adversary, perceptual
        self.notes: list[str] = []
        if terms.adversarial > 0 and adversary is None:
            msg = "adversarial weight above 0: got no adversary, expected one"
            raise ValueError(msg)
        if terms.perceptual > 0 and perceptual is None:
            msg = "perceptual weight above 0: got no perceptual network, expected one"
            raise ValueError(msg)

    def __call__(self, batch: VaeBatch, step: int, lr: float) -> dict[str, Tensor]:
        """Update the autoencoder, then the discriminator on the same pictures; return the scalars."""
        set_learning_rate(self.optimizer, lr)
        seed_dropout(self.autoencoder, self.seed, step)
        images_hat, scalars = self._update_autoencoder(batch, step)
        self.ema.update(self.autoencoder, step + 1)
        if self.terms.adversarial > 0 and self.adversary is not None:
            gap, found = self._update_adversary(self.adversary, batch.images, images_hat.detach(), step)
            self.notes += self.adversary.schedule.observe(step, float(scalars["reconstruction"]), gap, lr)
            scalars |= found
        return scalars

    def _update_autoencoder(self, batch: VaeBatch, step: int) -> tuple[Tensor, dict[str, Tensor]]:
        terms, kind = self.terms, self.terms.reconstruction_kind
        with self.placement.autocast():
            moments = self.autoencoder.encode(batch.images)
            z, penalty, scalars, code_ids = self._bottleneck(moments, batch.noise)
            images_hat = self.autoencoder.render(z)
        scalars["reconstruction"] = reconstruction_per_image(images_hat, batch.images, kind).mean()
        loss = terms.reconstruction * scalars["reconstruction"] + penalty
        if terms.perceptual > 0 and self.perceptual is not None:
            with self.placement.autocast():
                scalars["perceptual"] = self.perceptual(images_hat, batch.images).mean()
            loss = loss + terms.perceptual * ramp_share(step, terms.perceptual_ramp) * scalars["perceptual"]
        if terms.equivariance > 0 and batch.transform is not None:
            latents = z if self.autoencoder.quantizer is None else split_moments(moments)[0]
            scalars["equivariance"] = self._equivariance(batch.images, latents, batch.transform)
            loss = loss + terms.equivariance * scalars["equivariance"]
        if terms.adversarial > 0 and self.adversary is not None and (share := self.adversary.schedule.share(step)) > 0:
            last_layer = self.autoencoder.decoder.conv_out.weight
            adversarial, found = self.adversary.term(images_hat, loss, last_layer)
            loss = loss + terms.adversarial * share * adversarial
            scalars |= found
        self.optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        scalars["gradient_norm"] = clip_finite(self.autoencoder, loss, terms.clip_norm, "autoencoder", step)
        self.optimizer.step()
        if self.autoencoder.quantizer is not None and code_ids is not None:
            scalars |= self._move_codes(self.autoencoder.quantizer, split_moments(moments)[0], code_ids, step)
        return images_hat, {"loss": loss.detach()} | {name: value.detach() for name, value in scalars.items()}

    def _bottleneck(
        self, moments: Tensor, noise: Tensor
    ) -> tuple[Tensor, Tensor | float, dict[str, Tensor], Tensor | None]:
        """Return what the decoder gets of the moments, the weighted penalty on them, its scalar, and chosen codes."""
        if self.autoencoder.quantizer is not None:
            quantized = self.autoencoder.quantizer(split_moments(moments)[0])
            commitment = quantized.commitment.mean()
            penalty = self.terms.commitment * commitment
            return quantized.z, penalty, {"commitment": commitment}, quantized.code_ids
        z = sample_posterior(moments, noise)
        if self.terms.kl == 0:
            return z, 0.0, {}, None
        kl = kl_per_image(moments).mean()
        return z, self.terms.kl * kl, {"kl": kl}, None

    def _move_codes(self, quantizer: VectorQuantizer, z: Tensor, code_ids: Tensor, step: int) -> dict[str, Tensor]:
        """Let the codes follow the latents that chose them; return how much of the book is in use."""
        quantizer.update(z, code_ids, generator_for(self.seed, "dead codes", step))
        return {"codebook_usage": quantizer.usage(), "perplexity": quantizer.perplexity()}

    def _equivariance(self, images: Tensor, z: Tensor, transform: Transform) -> Tensor:
        """Return how far the transformed latents are from decoding to the transformed images.

        Differs from EQ-VAE's code (Kouzelis et al. 2502.09509), where it takes the place of the other terms in half of
        the steps: here it is one more term, of the reconstruction alone, so that the others keep their weights.
        """
        with self.placement.autocast():
            images_hat = self.autoencoder.decode(transform.latents(z))
        wanted = transform.images(images, self.autoencoder.factor)
        return reconstruction_per_image(images_hat, wanted, self.terms.reconstruction_kind).mean()

    def _update_adversary(
        self, adversary: Adversary, images: Tensor, images_hat: Tensor, step: int
    ) -> tuple[float | None, dict[str, Tensor]]:
        """Update the discriminator where it has begun; return real minus fake logits, and scalars."""
        scalars = {"adversarial_share": torch.tensor(adversary.schedule.share(step))}
        if not adversary.schedule.has_begun(step):
            return None, scalars
        scalars |= adversary.update(images, images_hat, step, self.terms.clip_norm)
        return float(scalars["real_logits"] - scalars["fake_logits"]), scalars

    def state(self) -> tuple[dict[str, dict[str, Tensor]], dict[str, Any]]:
        """Return everything a checkpoint needs: tensors by file, and JSON."""
        tensors: dict[str, dict[str, Tensor]] = {
            "autoencoder": dict(self.autoencoder.state_dict()),
            "ema": dict(self.ema.network.state_dict()),
        }
        values: dict[str, Any] = {}
        tensors["optimizer"], values["optimizer"] = flatten_optimizer(self.optimizer)
        if self.adversary is not None:
            more_tensors, more_values = self.adversary.state()
            tensors |= more_tensors
            values |= more_values
        return tensors, values

    def restore(self, tensors: Mapping[str, Mapping[str, Tensor]], values: Mapping[str, Any]) -> None:
        """Take everything back, to go on inside a stage."""
        load_matching(self.autoencoder, tensors["autoencoder"], "autoencoder")
        load_matching(self.ema.network, tensors["ema"], "autoencoder average")
        restore_optimizer(self.optimizer, tensors["optimizer"], values["optimizer"])
        if self.adversary is not None:
            self.adversary.restore(tensors, values)

    def start_from(
        self,
        tensors: Mapping[str, Mapping[str, Tensor]],
        values: Mapping[str, Any],
        *,
        from_average: bool = True,
        keep_optimizer: bool = False,
        keep_discriminator: bool = True,
    ) -> None:
        """Begin a stage where the former ended; what is not kept begins anew."""
        weights = tensors["ema" if from_average else "autoencoder"]
        load_matching(self.autoencoder, weights, "autoencoder")
        load_matching(self.ema.network, weights, "autoencoder average")
        if keep_optimizer:
            restore_optimizer(self.optimizer, tensors["optimizer"], values["optimizer"])
        if keep_discriminator and self.adversary is not None:
            self.adversary.restore_networks(tensors, values)
