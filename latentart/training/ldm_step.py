"""One update of the denoiser: noise the latents, predict the target, weigh, step, average."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from latentart.core.diffusion.objective import DiffusionTask
from latentart.core.ema import Ema
from latentart.core.networks.conditioning import Denoiser
from latentart.training.checkpoint import flatten_optimizer, load_matching, restore_optimizer
from latentart.training.devices import Placement
from latentart.training.optim import clip_finite, set_learning_rate
from latentart.training.randomness import seed_dropout


@dataclass(frozen=True)
class LdmBatch:
    """Latents ``x0`` and noise ``eps`` ``[B, Z, h, w]``, timesteps ``t`` [B], ``style_id`` [B] with drops done."""

    x0: Tensor
    eps: Tensor
    t: Tensor
    style_id: Tensor


class LdmStep:
    """Owns the denoiser, its average and its optimizer; dropped features follow from ``seed`` and the step."""

    def __init__(
        self,
        denoiser: Denoiser,
        ema: Ema,
        optimizer: torch.optim.Optimizer,
        task: DiffusionTask,
        placement: Placement,
        *,
        clip_norm: float = 1.0,
        seed: int = 0,
    ) -> None:
        self.seed = seed
        self.denoiser, self.ema, self.optimizer = denoiser, ema, optimizer
        self.task, self.placement, self.clip_norm = task, placement, clip_norm

    def __call__(self, batch: LdmBatch, step: int, lr: float) -> dict[str, Tensor]:
        """Make one update and return its scalars."""
        set_learning_rate(self.optimizer, lr)
        seed_dropout(self.denoiser, self.seed, step)
        loss = self.loss_per_image(batch).mean()
        self.optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        norm = clip_finite(self.denoiser, loss, self.clip_norm, "denoiser", step)
        self.optimizer.step()
        self.ema.update(self.denoiser, step + 1)
        return {"loss": loss.detach(), "gradient_norm": norm.detach()}

    def loss_per_image(self, batch: LdmBatch) -> Tensor:
        """Return the weighted loss of every image, ``[B]``."""
        return self.task.loss_per_image(
            lambda x_t: self._predict(x_t, batch.t, batch.style_id), batch.x0, batch.eps, batch.t
        )

    def _predict(self, x_t: Tensor, t: Tensor, style_id: Tensor) -> Tensor:
        with self.placement.autocast():
            return self.denoiser(x_t, t, style_id)

    def state(self) -> tuple[dict[str, dict[str, Tensor]], dict[str, Any]]:
        """Return everything a checkpoint needs: tensors by file, and JSON."""
        tensors = {"denoiser": dict(self.denoiser.state_dict()), "ema": dict(self.ema.network.state_dict())}
        tensors["optimizer"], optimizer = flatten_optimizer(self.optimizer)
        return tensors, {"optimizer": optimizer}

    def restore(self, tensors: Mapping[str, Mapping[str, Tensor]], values: Mapping[str, Any]) -> None:
        """Take everything back."""
        load_matching(self.denoiser, tensors["denoiser"], "denoiser")
        load_matching(self.ema.network, tensors["ema"], "denoiser average")
        restore_optimizer(self.optimizer, tensors["optimizer"], values["optimizer"])
