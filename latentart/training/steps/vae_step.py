"""One update of the autoencoder and, once it has begun, one of the discriminator; neither touches the other."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from latentart.core.equivariance import Transform
from latentart.core.latents import kl_per_image, sample_posterior, split_moments
from latentart.core.losses import reconstruction_per_image
from latentart.core.networks.autoencoder import Autoencoder
from latentart.core.networks.perceptual import PerceptualDistance
from latentart.core.networks.quantizer import VectorQuantizer
from latentart.core.randomness import generator_for, seed_dropout
from latentart.kinds import Reconstruction
from latentart.process.devices import Placement
from latentart.process.lanes import Lanes, Mean, weighted_means
from latentart.process.reductions import average_gradients, means_of_all, own_part, whole_batch
from latentart.storage.tensors import load_matching
from latentart.training.steps.adversarial_schedule import ramp_share
from latentart.training.steps.adversary import Adversary
from latentart.training.steps.numbers import Numbers, norms_by_module, read_numbers
from latentart.training.steps.optim import (
    Learner,
    clip_gradients,
    flatten_optimizer,
    gradient_norm,
    restore_optimizer,
    set_first_beta,
    set_learning_rate,
)


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
    """Images ``[B, 3, H, W]`` in -1…1, posterior noise ``[B, Z, h, w]``, both on the device; the step's transform.

    ``pictures`` says which ones they are, for a report.
    """

    images: Tensor
    noise: Tensor
    transform: Transform | None = None
    pictures: tuple[int, ...] = ()

    def split(self, sizes: list[int]) -> list[VaeBatch]:
        """Return the batch in parts of those sizes."""
        parts = zip(torch.split(self.images, sizes), torch.split(self.noise, sizes), strict=True)
        return [VaeBatch(images, noise, self.transform) for images, noise in parts]


@dataclass(frozen=True)
class Reconstructed:
    """What one pass through the autoencoder leaves: reconstructions, scalars, and with a quantizer chosen codes."""

    images_hat: Tensor
    scalars: dict[str, Tensor]
    z: Tensor
    code_ids: Tensor | None


class VaeStep:
    """Owns the autoencoder, its average and optimizer, and the adversary if there is one.

    ``seed`` is what dropped features and revived codes follow from, with the step. ``numbers`` says which updates may
    be made: both networks' or neither's. ``notes`` collects sentences for the log; whoever reads them empties the list.

    All images of a batch go through at once: the factor between the gradients of reconstruction and adversary, and the
    codes of a quantizer, are those of a whole batch, so parts of one would be another training. Of several processes
    each passes its part through; gradients, scalars and codes are then made of all parts, so that all decide alike.
    On a CPU so do the lanes of one process.
    """

    def __init__(
        self,
        learner: Learner[Autoencoder],
        terms: VaeTerms,
        placement: Placement,
        *,
        adversary: Adversary | None = None,
        perceptual: PerceptualDistance | None = None,
        seed: int = 0,
        numbers: Numbers | None = None,
    ) -> None:
        self.seed = seed
        self.numbers = numbers or Numbers("autoencoder")
        self.autoencoder, self.ema, self.optimizer = learner.network, learner.ema, learner.optimizer
        self.first_beta = learner.first_beta
        self.terms, self.placement = terms, placement
        self.adversary, self.perceptual = adversary, perceptual
        self.last_weight = self.autoencoder.last_weight
        self.lanes = Lanes.beside(placement.device, self.autoencoder)
        self.notes: list[str] = []
        if terms.adversarial > 0 and adversary is None:
            msg = "adversarial weight above 0: got no adversary, expected one"
            raise ValueError(msg)
        if terms.perceptual > 0 and perceptual is None:
            msg = "perceptual weight above 0: got no perceptual network, expected one"
            raise ValueError(msg)

    def __call__(self, batch: VaeBatch, step: int, lr: float) -> dict[str, Tensor]:
        """Update the autoencoder and the discriminator on the same pictures, unless numbers are not finite.

        Returns the scalars.

        Raises:
            LostNumbersError: too many updates in a row were left out.
        """
        set_learning_rate(self.optimizer, lr)
        set_first_beta(self.optimizer, self.first_beta(step))
        seed_dropout(self.autoencoder, self.seed, step, own_part())
        made = self._reconstruct(batch, step)
        scalars, adversary = made.scalars, self.adversary if self.terms.adversarial > 0 else None
        read = {name: scalars[name] for name in ("loss", "gradient_norm", "reconstruction")}
        if adversary is not None:
            scalars["adversarial_share"] = torch.tensor(adversary.schedule.share(step))
        if adversary is not None and adversary.schedule.has_begun(step):
            judged = adversary.judge(batch.images, made.images_hat, step)
            scalars |= judged
            read["gap"] = judged["real_logits"] - judged["fake_logits"]
            read |= {name: judged[name] for name in ("discriminator", "discriminator_norm") if name in judged}
        values = read_numbers(read)
        if self.numbers.allow(step, values, "reconstruction", lambda: self._evidence(batch, lr, scalars)):
            scalars |= self._move(made, step)
            if adversary is not None and "discriminator_norm" in read:
                adversary.learn(read["discriminator_norm"], self.terms.clip_norm, self.numbers.rate_factor)
            if adversary is not None:
                self.notes += adversary.schedule.observe(step, values["reconstruction"], values.get("gap"), lr)
        scalars["skipped_steps"] = torch.tensor(float(self.numbers.skipped))
        return scalars

    def _evidence(self, batch: VaeBatch, lr: float, scalars: Mapping[str, Tensor]) -> dict[str, Any]:
        """Return what may say why an update went wrong."""
        norms = norms_by_module(self.autoencoder)
        if self.adversary is not None:
            norms |= {
                f"discriminator.{name}": norm for name, norm in norms_by_module(self.adversary.discriminator).items()
            }
        losses = {name: float(value) for name, value in scalars.items()}
        return {
            "lr": lr,
            "seed": self.seed,
            "pictures": list(batch.pictures),
            "losses": losses,
            "gradient_norms": norms,
        }

    def _reconstruct(self, batch: VaeBatch, step: int) -> Reconstructed:
        """Pass a batch through the autoencoder and give every weight of it its gradient."""
        sizes = self.lanes.sizes(len(batch.images))
        self.optimizer.zero_grad(set_to_none=True)
        with self.adversary.frozen() if self.adversary is not None else contextlib.nullcontext():
            parts = self.lanes.backward(
                lambda part, mean: self._pass(part, step, mean),
                batch.split(sizes),
                sizes,
                self.autoencoder.parameters(),
            )
        average_gradients(self.autoencoder.parameters())
        scalars = weighted_means([part.scalars for part in parts], sizes)
        scalars["gradient_norm"] = gradient_norm(self.autoencoder)
        ids = [part.code_ids for part in parts if part.code_ids is not None]
        return Reconstructed(
            torch.cat([part.images_hat for part in parts]),
            means_of_all(scalars),
            torch.cat([part.z for part in parts]),
            torch.cat(ids) if ids else None,
        )

    def _pass(self, batch: VaeBatch, step: int, mean: Mean) -> tuple[Tensor, Reconstructed]:
        """Return the loss of a part of a batch, and what else its pass leaves."""
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
            adversarial, found = self.adversary.term(images_hat, loss, self.last_weight, mean)
            loss = loss + terms.adversarial * share * adversarial
            scalars |= found
        scalars = {name: value.detach() for name, value in {"loss": loss, **scalars}.items()}
        return loss, Reconstructed(images_hat.detach(), scalars, split_moments(moments)[0].detach(), code_ids)

    def _move(self, made: Reconstructed, step: int) -> dict[str, Tensor]:
        """Update the autoencoder and its average; return what there is to say of a quantizer's codes."""
        clip_gradients(self.autoencoder, made.scalars["gradient_norm"], self.terms.clip_norm)
        self.optimizer.step()
        quantizer, scalars = self.autoencoder.quantizer, {}
        if quantizer is not None and made.code_ids is not None:
            scalars = self._move_codes(quantizer, made.z, made.code_ids, step)
        self.ema.update(self.autoencoder, step + 1)
        return scalars

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
        quantizer.update(whole_batch(z), whole_batch(code_ids), generator_for(self.seed, "dead codes", step))
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

    def means(self) -> dict[str, float | None]:
        """Return what is followed over several updates: nothing."""
        return {}

    def state(self) -> tuple[dict[str, dict[str, Tensor]], dict[str, Any]]:
        """Return everything a checkpoint needs: tensors by file, and JSON."""
        tensors: dict[str, dict[str, Tensor]] = {
            "autoencoder": dict(self.autoencoder.state_dict()),
            "ema": dict(self.ema.network.state_dict()),
        }
        values: dict[str, Any] = {"numbers": self.numbers.state()}
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
        self.numbers.restore(values.get("numbers", {}))  # older checkpoints have none
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
