"""One update of the denoiser: noise the latents, predict the target, weigh, step, average."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from latentart.core.diffusion.objective import DiffusionTask
from latentart.core.diffusion.uncertainty import LearnedUncertainty
from latentart.core.ema import Ema
from latentart.core.networks.conditioning import Denoiser
from latentart.errors import ModelError
from latentart.training.checkpoint import flatten_optimizer, load_matching, restore_optimizer
from latentart.training.devices import Placement
from latentart.training.optim import clip_finite, set_learning_rate
from latentart.training.randomness import seed_dropout

NUM_PARTS = 8


@dataclass(frozen=True)
class LdmBatch:
    """Latents ``x0`` and noise ``eps`` ``[B, Z, h, w]``, timesteps ``t`` [B], and labels with drops done.

    ``style_id`` is int64 [B], or [B, columns] where other labels stand beside the style.
    """

    x0: Tensor
    eps: Tensor
    t: Tensor
    style_id: Tensor


class LossByNoise:
    """Means of a loss over equal parts of the timesteps, the cleanest first, summed on the device without waiting."""

    def __init__(self, num_timesteps: int, device: torch.device) -> None:
        self.num_timesteps = num_timesteps
        self._sums = torch.zeros(2, NUM_PARTS, device=device)

    def add(self, t: Tensor, losses: Tensor) -> None:
        """Count the losses [B] of images at timesteps ``t`` [B]."""
        part = t * NUM_PARTS // self.num_timesteps
        self._sums.index_add_(1, part, torch.stack([losses.detach().float(), torch.ones_like(t, dtype=torch.float32)]))

    def take(self, name: str = "loss") -> dict[str, float | None]:
        """Return the means since the last time as ``<name>_t0`` …, None where there was no image, and begin anew."""
        totals, counts = self._sums.tolist()
        self._sums.zero_()
        parts = enumerate(zip(totals, counts, strict=True))
        return {f"{name}_t{i}": total / count if count else None for i, (total, count) in parts}


class LdmStep:
    """Owns the denoiser, its averages and its optimizer; dropped features follow from ``seed`` and the step.

    Args:
        ema: the average that results are made with. tracks: others, each of its own width, for snapshots.
        uncertainty: what learned weights need; it is trained without decay.
    """

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
        tracks: Sequence[Ema] = (),
        uncertainty: LearnedUncertainty | None = None,
    ) -> None:
        self.seed = seed
        self.denoiser, self.ema, self.optimizer = denoiser, ema, optimizer
        self.task, self.placement, self.clip_norm = task, placement, clip_norm
        self.tracks = {_track_name(track): track for track in tracks}
        self.uncertainty = uncertainty
        self.by_noise = LossByNoise(task.schedule.num_steps, placement.device)
        if uncertainty is not None:
            optimizer.add_param_group({"params": list(uncertainty.parameters()), "weight_decay": 0.0})

    def __call__(self, batch: LdmBatch, step: int, lr: float) -> dict[str, Tensor]:
        """Make one update and return its scalars."""
        set_learning_rate(self.optimizer, lr)
        seed_dropout(self.denoiser, self.seed, step)
        losses, plain = self._losses(batch)
        loss = losses.mean()
        self.optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        norm = clip_finite(self.denoiser, loss, self.clip_norm, "denoiser", step)
        self.optimizer.step()
        for average in (self.ema, *self.tracks.values()):
            average.update(self.denoiser, step + 1)
        self.by_noise.add(batch.t, plain)
        return {"loss": loss.detach(), "gradient_norm": norm.detach()}

    def loss_per_image(self, batch: LdmBatch) -> Tensor:
        """Return the weighted loss of every image, ``[B]``."""
        return self._losses(batch)[0]

    def _losses(self, batch: LdmBatch) -> tuple[Tensor, Tensor]:
        return self.task.losses(
            lambda x_t: self._predict(x_t, batch.t, batch.style_id), batch.x0, batch.eps, batch.t, self.uncertainty
        )

    def _predict(self, x_t: Tensor, t: Tensor, style_id: Tensor) -> Tensor:
        with self.placement.autocast():
            return self.denoiser(x_t, t, style_id)

    def state(self) -> tuple[dict[str, dict[str, Tensor]], dict[str, Any]]:
        """Return everything a checkpoint needs: tensors by file, and JSON."""
        tensors = {"denoiser": dict(self.denoiser.state_dict()), "ema": dict(self.ema.network.state_dict())}
        tensors |= {name: dict(track.network.state_dict()) for name, track in self.tracks.items()}
        if self.uncertainty is not None:
            tensors["uncertainty"] = dict(self.uncertainty.state_dict())
        tensors["optimizer"], optimizer = flatten_optimizer(self.optimizer)
        return tensors, {"optimizer": optimizer}

    def restore(self, tensors: Mapping[str, Mapping[str, Tensor]], values: Mapping[str, Any]) -> None:
        """Take everything back.

        Raises:
            ModelError: it is another network's, or other averages or weights were kept beside it.
        """
        own = {"denoiser", "ema", "optimizer", *self.tracks} | ({"uncertainty"} if self.uncertainty else set())
        if tensors.keys() != own:
            gone, new = sorted(own - tensors.keys()), sorted(tensors.keys() - own)
            says = [f"it has no {', '.join(gone)}"] * bool(gone) + [f"it has {', '.join(new)} too"] * bool(new)
            raise ModelError(f"The saved step does not fit: {'; '.join(says)}.")
        load_matching(self.denoiser, tensors["denoiser"], "denoiser")
        load_matching(self.ema.network, tensors["ema"], "denoiser average")
        for name, track in self.tracks.items():
            load_matching(track.network, tensors[name], "denoiser average")
        if self.uncertainty is not None:
            load_matching(self.uncertainty, tensors["uncertainty"], "uncertainty")
        restore_optimizer(self.optimizer, tensors["optimizer"], values["optimizer"])


def _track_name(track: Ema) -> str:
    """Return how a checkpoint calls an average: its width in ten-thousandths."""
    return f"average_{round(1e4 * track.relative_std):04d}"
