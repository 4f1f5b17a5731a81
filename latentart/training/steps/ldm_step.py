"""One update of the denoiser: noise the latents, predict the target, weigh, step, average."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from latentart.core.diffusion.objective import DiffusionTask
from latentart.core.diffusion.uncertainty import LearnedUncertainty
from latentart.core.ema import Ema
from latentart.core.networks.conditioning import Denoiser
from latentart.core.randomness import seed_dropout
from latentart.errors import ModelError
from latentart.process.devices import Placement
from latentart.process.lanes import Lanes, Mean
from latentart.process.memory import fit_micro_batch
from latentart.process.reductions import (
    SharedNetwork,
    average_gradients,
    largest_of_all,
    means_of_all,
    own_part,
    whole_batch,
)
from latentart.storage.tensors import load_matching
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

NUM_PARTS = 8


Losses = tuple[Tensor, Tensor]  # weighted and plain, of every image


@dataclass(frozen=True)
class LdmBatch:
    """Latents ``x0`` and noise ``eps`` ``[B, Z, h, w]``, timesteps ``t`` [B], and labels with drops done.

    ``style_id`` is int64 [B], or [B, columns] where other labels stand beside the style. ``pictures`` says which ones
    they are, for a report.
    """

    x0: Tensor
    eps: Tensor
    t: Tensor
    style_id: Tensor
    pictures: tuple[int, ...] = ()

    def split(self, size: int | list[int]) -> list[LdmBatch]:
        """Return the batch in parts of at most ``size`` images, or of those sizes."""
        parts = (torch.split(tensor, size) for tensor in (self.x0, self.eps, self.t, self.style_id))
        return [LdmBatch(*part) for part in zip(*parts, strict=True)]


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
        learner: the denoiser, its averages and its optimizer.
        uncertainty: what learned weights need; it is trained without decay.
        numbers: says which updates may be made.

    ``micro_batch`` is how many images go through the network at once, None all of them: the update is that of the
    whole batch. What is dropped inside the network is then drawn part by part.

    Of several processes each passes its part of a batch through; gradients and scalars are those of the whole batch.
    On a CPU so do the lanes of one process.

    ``averages_from`` is the step at which the averages began: they span their share of the updates since.
    """

    def __init__(
        self,
        learner: Learner[Denoiser],
        task: DiffusionTask,
        placement: Placement,
        *,
        clip_norm: float = 1.0,
        seed: int = 0,
        uncertainty: LearnedUncertainty | None = None,
        numbers: Numbers | None = None,
    ) -> None:
        self.seed = seed
        self.notes: list[str] = []
        self.numbers = numbers or Numbers("denoiser")
        self.micro_batch: int | None = None
        self.averages_from = 0
        self.denoiser, self.ema, self.optimizer = learner.network, learner.ema, learner.optimizer
        self.first_beta = learner.first_beta
        self._shared: SharedNetwork | None = None
        self.task, self.placement, self.clip_norm = task, placement, clip_norm
        self.tracks = {_track_name(track): track for track in learner.tracks}
        self.uncertainty = uncertainty
        self.lanes = Lanes.beside(placement.device, self.denoiser)
        self.by_noise = LossByNoise(task.schedule.num_steps, placement.device)
        if uncertainty is not None:
            self.optimizer.add_param_group({"params": list(uncertainty.parameters()), "weight_decay": 0.0})

    def __call__(self, batch: LdmBatch, step: int, lr: float) -> dict[str, Tensor]:
        """Make one update, unless its numbers are not finite, and return its scalars.

        Raises:
            LostNumbersError: too many updates in a row were left out.
        """
        set_learning_rate(self.optimizer, lr)
        set_first_beta(self.optimizer, self.first_beta(step))
        seed_dropout(self.denoiser, self.seed, step, own_part())
        self._shared = self._shared or SharedNetwork(self.denoiser)
        loss, plain = self._backward(batch, self.micro_batch, self._shared)
        if self.uncertainty is not None:
            average_gradients(self.uncertainty.parameters())
        t, plain = whole_batch(batch.t), whole_batch(plain)
        loss, norm = means_of_all({"loss": loss, "gradient_norm": gradient_norm(self.denoiser)}).values()
        values = read_numbers({"loss": loss, "gradient_norm": norm, "plain_loss": plain.mean()})
        if self.numbers.allow(step, values, "plain_loss", lambda: self._evidence(batch, lr)):
            clip_gradients(self.denoiser, norm, self.clip_norm)
            self.optimizer.step()
            for average in (self.ema, *self.tracks.values()):
                average.update(self.denoiser, step + 1 - self.averages_from)
            self.by_noise.add(t, plain)
        return {"loss": loss, "gradient_norm": norm, "skipped_steps": torch.tensor(float(self.numbers.skipped))}

    def _backward(
        self, batch: LdmBatch, size: int | None, shared: SharedNetwork | None = None
    ) -> tuple[Tensor, Tensor]:
        """Give every weight the gradient of the mean over the batch; return that mean, and the plain losses [B].

        With ``shared`` the gradient is the mean over all processes too; what is returned is this one's.
        """
        self.optimizer.zero_grad(set_to_none=True)
        whole, made, network = len(batch.t), list[Losses](), shared.call if shared else self.denoiser
        parts = [batch] if size is None or size >= whole else batch.split(size)
        weights = [weight for group in self.optimizer.param_groups for weight in group["params"]]
        for number, part in enumerate(parts, start=1):
            with shared.accumulating(is_last=number == len(parts)) if shared else contextlib.nullcontext():
                work, sizes = partial(self._share_of_loss, network, len(part.t) / whole), self.lanes.sizes(len(part.t))
                made += self.lanes.backward(work, part.split(sizes), sizes, weights)
        losses, plains = zip(*made, strict=True)
        return torch.cat(losses).mean(), torch.cat(plains)

    def _share_of_loss(self, network: nn.Module, share: float, batch: LdmBatch, _: Mean) -> tuple[Tensor, Losses]:
        """Return what a part adds to the mean of a whole of which it, or its lanes together, are ``share``."""
        losses, plain = self._losses(batch, network)
        return losses.mean() * share, (losses.detach(), plain.detach())

    def _evidence(self, batch: LdmBatch, lr: float) -> dict[str, Any]:
        """Return what may say why an update went wrong."""
        modules = norms_by_module(self.denoiser)
        return {"lr": lr, "seed": self.seed, "pictures": list(batch.pictures), "gradient_norms": modules}

    def fit_micro_batch(self, batch: LdmBatch) -> int:
        """Set ``micro_batch`` to the largest part of the batch that memory has room for, and return it.

        Each size is tried with updates that are taken back; weights and moments wait on the CPU meanwhile.

        Raises:
            ResourceError: not even one image has room.
        """
        tensors, values = self.state()
        parts = {
            name: {key: value.to("cpu", copy=True) for key, value in part.items()} for name, part in tensors.items()
        }
        values = copy.deepcopy(values)
        del tensors
        try:
            fitting = fit_micro_batch(lambda size: self._rehearse(batch, size), len(batch.t))
            self.micro_batch = -largest_of_all([-fitting])[0]  # of several processes the one with the least room
        finally:
            self.optimizer.zero_grad(set_to_none=True)
            self.optimizer.state.clear()  # or there were two of all moments for a moment
            self.restore(parts, values)
        return self.micro_batch

    def _rehearse(self, batch: LdmBatch, size: int) -> None:
        """Make two updates in parts of ``size``: the second meets the moments of the first."""
        for _ in range(2):
            self._backward(batch, size)
            clip_gradients(self.denoiser, gradient_norm(self.denoiser), self.clip_norm)
            self.optimizer.step()

    def means(self) -> dict[str, float | None]:
        """Return the plain losses since the last time: the mean at each part of the noise levels, and over the parts.

        ``plain_loss`` can be laid beside ``held_out_loss``: neither is weighted, and every noise level counts alike.
        """
        parts = self.by_noise.take()
        known = [value for value in parts.values() if value is not None]
        return {"plain_loss": sum(known) / len(known) if known else None, **parts}

    def loss_per_image(self, batch: LdmBatch) -> Tensor:
        """Return the weighted loss of every image, ``[B]``."""
        return self._losses(batch, self.denoiser)[0]

    def _losses(self, batch: LdmBatch, network: nn.Module) -> tuple[Tensor, Tensor]:
        def predict(x_t: Tensor) -> Tensor:
            with self.placement.autocast():
                return network(x_t, batch.t, batch.style_id)

        return self.task.losses(predict, batch.x0, batch.eps, batch.t, self.uncertainty)

    def state(self) -> tuple[dict[str, dict[str, Tensor]], dict[str, Any]]:
        """Return everything a checkpoint needs: tensors by file, and JSON."""
        tensors = {"denoiser": dict(self.denoiser.state_dict()), "ema": dict(self.ema.network.state_dict())}
        tensors |= {name: dict(track.network.state_dict()) for name, track in self.tracks.items()}
        if self.uncertainty is not None:
            tensors["uncertainty"] = dict(self.uncertainty.state_dict())
        tensors["optimizer"], optimizer = flatten_optimizer(self.optimizer)
        began = {"averages_from": self.averages_from} if self.averages_from else {}
        return tensors, {"optimizer": optimizer, "numbers": self.numbers.state(), **began}

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
        self.numbers.restore(values.get("numbers", {}))  # older checkpoints have none
        self.averages_from = values.get("averages_from", 0)


def _track_name(track: Ema) -> str:
    """Return how a checkpoint calls an average: its width in ten-thousandths."""
    return f"average_{round(1e4 * track.relative_std):04d}"
