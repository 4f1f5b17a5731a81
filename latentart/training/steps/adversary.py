"""The discriminator's side of the autoencoder's training: its term, its update, and when either takes place."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from latentart.core.losses import adaptive_weight, discriminator_loss_per_image, generator_loss_per_image, r1_per_image
from latentart.core.networks.discriminator import PatchDiscriminator
from latentart.kinds import Adversarial
from latentart.process.devices import Placement
from latentart.process.lanes import Lanes, Mean, weighted_means
from latentart.process.reductions import average_gradients, means_of_all
from latentart.storage.tensors import load_matching
from latentart.training.steps.adversarial_schedule import AdversarialSchedule
from latentart.training.steps.optim import (
    clip_gradients,
    flatten_optimizer,
    gradient_norm,
    restore_optimizer,
    set_learning_rate,
)


@dataclass(frozen=True, kw_only=True)
class Game:
    """How the discriminator plays.

    Attributes:
        lr: its learning rate, constant. loss: what both sides play for.
        adaptive_limit: bound of the factor between both gradients; None leaves the term as it is.
        r1: γ of the R1 penalty, every ``r1_every`` steps; 0 leaves it out.
    """

    lr: float = 1e-4
    loss: Adversarial = "hinge"
    adaptive_limit: float | None = 10.0
    r1: float = 0.0
    r1_every: int = 16


class Adversary:
    """Owns the discriminator, its optimizer and its schedule.

    Of several processes each looks at its part of a batch; gradients, and the scalars that decide, are the whole's.
    """

    def __init__(
        self,
        discriminator: PatchDiscriminator,
        optimizer: torch.optim.Optimizer,
        schedule: AdversarialSchedule,
        placement: Placement,
        game: Game,
    ) -> None:
        self.discriminator, self.optimizer = discriminator, optimizer
        self.schedule, self.placement, self.game = schedule, placement, game
        self.lanes = Lanes.beside(placement.device, discriminator)
        self._penalty: Tensor | None = None  # the last one, for the log

    @contextlib.contextmanager
    def frozen(self) -> Iterator[None]:
        """Let no gradient reach the discriminator in here."""
        self.discriminator.requires_grad_(requires_grad=False)
        try:
            yield
        finally:
            self.discriminator.requires_grad_(requires_grad=True)

    def term(
        self, images_hat: Tensor, other_terms: Tensor, last_layer: Tensor, mean: Mean
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the generator's term for reconstructions, and its scalars; to be called while it is ``frozen``."""
        with self.placement.autocast():
            fake_logits = self.discriminator(images_hat)
        adversarial = generator_loss_per_image(fake_logits, self.game.loss).mean()
        scalars = {"adversarial": adversarial}
        if self.game.adaptive_limit is None:
            return adversarial, scalars
        factor = adaptive_weight(other_terms, adversarial, last_layer, self.game.adaptive_limit, mean)
        return factor * adversarial, scalars | {"adversarial_factor": factor}

    def judge(self, images: Tensor, images_hat: Tensor, step: int) -> dict[str, Tensor]:
        """Look at pictures and detached reconstructions and, unless the guard holds it back, take gradients from them.

        No weight is touched; the scalars have a ``discriminator_norm`` where ``learn`` is to follow.
        """
        is_training = self.schedule.trains(step)
        if is_training:
            self.optimizer.zero_grad(set_to_none=True)
        has_penalty = is_training and self.game.r1 > 0 and step % self.game.r1_every == 0
        sizes = self.lanes.sizes(len(images))
        found = self.lanes.backward(
            lambda pair, _: self._look(*pair, is_training=is_training, has_penalty=has_penalty),
            list(zip(torch.split(images, sizes), torch.split(images_hat, sizes), strict=True)),
            sizes,
            self.discriminator.parameters(),
        )
        scalars = weighted_means(found, sizes)
        if has_penalty:
            self._penalty = scalars["r1"]
        if is_training:
            average_gradients(self.discriminator.parameters())
            scalars["discriminator_norm"] = gradient_norm(self.discriminator)
        if self._penalty is not None:
            scalars["r1"] = self._penalty
        return means_of_all(scalars)

    def _look(
        self, images: Tensor, images_hat: Tensor, *, is_training: bool, has_penalty: bool
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss on a part of a batch, with a graph while it is training, and the scalars."""
        with self.placement.autocast(), torch.set_grad_enabled(is_training):
            real_logits, fake_logits = self.discriminator(torch.cat([images, images_hat])).chunk(2)
        loss = discriminator_loss_per_image(real_logits, fake_logits, self.game.loss).mean()
        scalars = {"discriminator": loss, "real_logits": real_logits.mean(), "fake_logits": fake_logits.mean()}
        if has_penalty:
            scalars["r1"] = self._r1(images)
            loss = loss + 0.5 * self.game.r1 * self.game.r1_every * scalars["r1"]
        return loss, {name: value.detach() for name, value in scalars.items()}

    def learn(self, norm: Tensor, clip_norm: float, rate_factor: float = 1.0) -> None:
        """Update the discriminator by the gradients of that norm."""
        clip_gradients(self.discriminator, norm, clip_norm)
        set_learning_rate(self.optimizer, rate_factor * self.game.lr)
        self.optimizer.step()

    def _r1(self, images: Tensor) -> Tensor:
        """Return the mean penalty; in float32, as a slope of slopes needs it."""
        images = images.detach().requires_grad_()
        return r1_per_image(self.discriminator(images), images).mean()

    def state(self) -> tuple[dict[str, dict[str, Tensor]], dict[str, Any]]:
        """Return everything a checkpoint needs: tensors by file, and JSON."""
        optimizer, values = flatten_optimizer(self.optimizer)
        tensors = {"discriminator": dict(self.discriminator.state_dict()), "discriminator_optimizer": optimizer}
        return tensors, {"discriminator_optimizer": values, "adversarial_schedule": self.schedule.state()}

    def restore(self, tensors: Mapping[str, Mapping[str, Tensor]], values: Mapping[str, Any]) -> None:
        """Take everything back, to go on inside a stage."""
        self.restore_networks(tensors, values)
        if "adversarial_schedule" in values:  # older checkpoints have none
            self.schedule.restore(values["adversarial_schedule"])

    def restore_networks(self, tensors: Mapping[str, Mapping[str, Tensor]], values: Mapping[str, Any]) -> None:
        """Take discriminator and optimizer back, where the checkpoint has them; the schedule begins with its stage."""
        if "discriminator" not in tensors:
            return
        load_matching(self.discriminator, tensors["discriminator"], "discriminator")
        name = "discriminator_optimizer"
        restore_optimizer(self.optimizer, tensors[name], values[name])
