"""From seeds and styles to pixels: the sampling path, used by previews, `sample` and the demo."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from latentart.core.diffusion.guidance import guided, timesteps_within
from latentart.core.diffusion.objective import DiffusionTask
from latentart.core.diffusion.samplers import Sampler, make_denoise, sample
from latentart.core.diffusion.schedules import Spacing, timestep_pairs
from latentart.core.latents import LatentNormalizer
from latentart.core.networks.autoencoder import Autoencoder
from latentart.core.networks.conditioning import Denoiser
from latentart.core.pixels import to_pixels
from latentart.training.devices import Placement
from latentart.training.randomness import normal_for


@dataclass(frozen=True)
class SamplerSettings:
    """How latents are drawn; everything but ``batch_size`` changes the picture."""

    sampler: Sampler = "ddim"
    steps: int = 50
    spacing: Spacing = "trailing"
    eta: float = 0.0
    guidance: float = 1.5
    guidance_interval: tuple[float, float] = (0.0, 1.0)
    guidance_rescale: float = 0.0
    x0_limit: float | None = 5.0
    batch_size: int = 16


@dataclass(frozen=True)
class Generator:
    """A model's networks, ready to draw."""

    autoencoder: Autoencoder
    denoiser: Denoiser
    normalizer: LatentNormalizer
    task: DiffusionTask
    placement: Placement
    resolution: int

    def __call__(
        self,
        style_ids: Sequence[int],
        seeds: Sequence[int],
        settings: SamplerSettings,
        on_images: Callable[[int], None] | None = None,
    ) -> Tensor:
        """Return pixels uint8 ``[n, 3, H, W]``; picture i follows from ``style_ids[i]`` and ``seeds[i]`` alone."""
        made = []
        for start in range(0, len(seeds), settings.batch_size):
            end = min(start + settings.batch_size, len(seeds))
            made.append(self._draw(style_ids[start:end], seeds[start:end], settings))
            if on_images is not None:
                on_images(end)
        return torch.cat(made)

    @torch.no_grad()
    def _draw(self, style_ids: Sequence[int], seeds: Sequence[int], settings: SamplerSettings) -> Tensor:
        device = self.placement.device
        side = self.resolution // self.autoencoder.factor
        shape = (self.autoencoder.latent_channels, side, side)
        schedule = self.task.schedule.to(device)
        style_id = torch.tensor(style_ids, device=device)
        predict = guided(
            self._predict,
            self.denoiser.null_like,
            settings.guidance,
            within=timesteps_within(settings.guidance_interval, schedule.num_steps),
            rescale=settings.guidance_rescale,
        )
        latents = sample(
            make_denoise(lambda x_t, t: predict(x_t, t, style_id), schedule, self.task.target, settings.x0_limit),
            normal_for(0, "x_T", seeds, shape).to(device),
            timestep_pairs(schedule, settings.steps, settings.spacing),
            schedule,
            eta=settings.eta,
            noise=lambda i: normal_for(0, "step noise", seeds, shape, i).to(device),
            sampler=settings.sampler,
        )
        with self.placement.autocast():
            images = self.autoencoder.decode(self.normalizer.denormalize(latents))
        return to_pixels(images).cpu()

    def _predict(self, x_t: Tensor, t: Tensor, style_id: Tensor) -> Tensor:
        with self.placement.autocast():
            return self.denoiser(x_t, t, style_id)
