"""From seeds and styles to pixels: the sampling path, used by previews, `sample` and the demo."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from latentart.core.diffusion.editing import feather, invert, keep_known, mask_latents, slerp
from latentart.core.diffusion.guidance import guided, timesteps_within
from latentart.core.diffusion.objective import DiffusionTask
from latentart.core.diffusion.process import add_noise
from latentart.core.diffusion.samplers import is_noise_limited, make_denoise, sample
from latentart.core.diffusion.schedules import NoiseSchedule, timestep_pairs
from latentart.core.diffusion.solvers import Denoise
from latentart.core.latents import LatentNormalizer
from latentart.core.networks.autoencoder import Autoencoder
from latentart.core.networks.conditioning import Denoiser
from latentart.core.randomness import normal_for
from latentart.core.seeds import Between, Seed
from latentart.errors import ResourceError
from latentart.kinds import Engine, Sampler, Spacing, Target
from latentart.model.codec import decode_latents, encode_pixels
from latentart.process.devices import Placement
from latentart.process.lanes import Lanes

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class SamplerSettings:
    """How latents are drawn; ``batch_size``, ``compile``, ``mark`` and ``engine`` do not change the picture.

    ``autoguidance`` takes the place of ``guidance`` where the generator has a weak network.
    """

    sampler: Sampler = "ddim"
    steps: int = 50
    spacing: Spacing = "trailing"
    eta: float = 0.0
    guidance: float = 1.5
    guidance_interval: tuple[float, float] = (0.0, 1.0)
    guidance_rescale: float = 0.0
    x0_limit: float | None = 5.0
    batch_size: int = 16
    autoguidance: float | None = None
    compile: bool = False
    noise_limit: float | None = 164.0
    mark: bool = True
    engine: Engine = "torch"

    @property
    def passes(self) -> int:
        """How often a picture passes the network until it is drawn, twice for each call where it is guided."""
        return self.steps * (2 if self.sampler == "heun" else 1) * (1 + (self.guidance != 1))

    def noise_limit_for(self, target: Target) -> float | None:
        """Return the largest √((1-ᾱ)/ᾱ) of the timesteps that are visited, None where each may be."""
        return self.noise_limit if is_noise_limited(target, self.spacing) else None


@dataclass(frozen=True)
class Origin:
    """The picture that drawing begins from, in place of noise alone.

    Attributes:
        pixels: uint8 ``[3, H, W]``.
        strength: share of the steps that are taken, 0…1.
        mask: float ``[1, H, W]``, 1 where it is painted anew and 0 where it stays; None is anew everywhere.
        inverted_as: int64 ``[1]`` or ``[1, columns]``, the labels it is inverted with; None: it is noised instead.
    """

    pixels: Tensor
    strength: float = 1.0
    mask: Tensor | None = None
    inverted_as: Tensor | None = None


@dataclass(frozen=True)
class Watch:
    """Who looks on: ``see(first, frame, pixels)`` gets x0_hat decoded, of the batch that begins with picture ``first``.

    Of a walk of N steps at most ``frames`` are seen, evenly spread, the last never: it is the result. ``heed`` is
    called after each step, up or down; what it raises ends the drawing.
    """

    frames: int
    see: Callable[[int, int, Tensor], None]
    heed: Callable[[], None] = lambda: None

    def steps(self, num_steps: int) -> dict[int, int]:
        """Return the frame's number of each step that is seen."""
        count = min(self.frames, num_steps - 1)
        return {i * (num_steps - 1) // count: i for i in range(count)}


@dataclass(frozen=True)
class _Route:
    """What all batches of one call share; ``known`` and ``start`` are ``[1, Z, h, w]``."""

    schedule: NoiseSchedule
    pairs: list[tuple[int, int]]
    shape: tuple[int, int, int]
    known: Tensor | None = None
    start: Tensor | None = None
    mask: Tensor | None = None


@dataclass(frozen=True)
class Generator:
    """A model's networks, ready to draw; ``weak`` is the worse network of autoguidance."""

    autoencoder: Autoencoder
    denoiser: Denoiser
    normalizer: LatentNormalizer
    task: DiffusionTask
    placement: Placement
    resolution: int
    weak: Denoiser | None = None

    def __call__(
        self,
        style_ids: Sequence[int] | Tensor,
        seeds: Sequence[Seed],
        settings: SamplerSettings,
        on_images: Callable[[int], None] | None = None,
        *,
        size: tuple[int, int] | None = None,
        origin: Origin | None = None,
        watch: Watch | None = None,
    ) -> Tensor:
        """Return pixels uint8 ``[n, 3, H, W]``; picture i follows from ``style_ids[i]`` and ``seeds[i]`` alone.

        ``style_ids`` are labels in any form that ``LabelEmbedding`` takes. Seed 3.25 lies a quarter of the way from
        that of seed 3 to that of seed 4, a ``Between`` between its own two. ``size`` is (height, width) in pixels.

        Raises:
            ResourceError: the memory does not suffice for one picture.
            ValueError: the size is no multiple of what the networks halve.
        """
        made = [torch.zeros(0, 3, *(size or (self.resolution,) * 2), dtype=torch.uint8)]
        for pixels in self.batches(style_ids, seeds, settings, size=size, origin=origin, watch=watch):
            made.append(pixels)
            if on_images is not None:
                on_images(sum(map(len, made)))
        return torch.cat(made)

    @torch.no_grad()
    def batches(
        self,
        style_ids: Sequence[int] | Tensor,
        seeds: Sequence[Seed],
        settings: SamplerSettings,
        *,
        size: tuple[int, int] | None = None,
        origin: Origin | None = None,
        watch: Watch | None = None,
    ) -> Iterator[Tensor]:
        """Yield the pixels of a call a batch ``[B, 3, H, W]`` at a time, as it is drawn.

        Where the memory of a GPU does not suffice, batches are halved.

        Raises:
            ResourceError: the memory does not suffice for one picture.
            ValueError: the size is no multiple of what the networks halve.
        """
        style_id = torch.as_tensor(style_ids).to(self.placement.device)
        try:
            route = self._plan(settings, size, origin, watch)
        except torch.OutOfMemoryError:
            raise _too_large() from None
        start, batch_size = 0, settings.batch_size
        while start < len(seeds):
            rows = slice(start, min(start + batch_size, len(seeds)))
            try:
                pixels = self._draw(style_id[rows], seeds[rows], settings, route, origin, watch, start)
            except torch.OutOfMemoryError:
                batch_size = _halve(rows.stop - rows.start)
            else:
                start = rows.stop
                yield pixels

    def _plan(
        self, settings: SamplerSettings, size: tuple[int, int] | None, origin: Origin | None, watch: Watch | None
    ) -> _Route:
        schedule = self.task.schedule.to("cpu")  # its numbers reach any device's kernels without waiting
        noise_limit = settings.noise_limit_for(self.task.target)
        pairs = timestep_pairs(schedule, settings.steps, settings.spacing, noise_limit)
        height, width = size or (self.resolution, self.resolution)
        factor = self.autoencoder.factor
        shape = (self.autoencoder.latent_channels, height // factor, width // factor)
        if origin is None:
            return _Route(schedule, pairs, shape)
        pairs = pairs[len(pairs) - round(origin.strength * len(pairs)) :]
        known, mask, start = self._encode(origin.pixels), None, None
        if origin.mask is not None:
            mask = mask_latents(origin.mask[None], factor).to(known)
        if origin.inverted_as is not None:
            style_id = origin.inverted_as.to(known.device)

            def predict(x_t: Tensor, t: Tensor) -> Tensor:
                if watch is not None:
                    watch.heed()
                return self._predict(x_t, t, style_id)

            denoise = make_denoise(predict, schedule, self.task.target, settings.x0_limit)
            start = invert(denoise, known, pairs, schedule)
        return _Route(schedule, pairs, shape, known, start, mask)

    def _draw(
        self,
        style_id: Tensor,
        seeds: Sequence[Seed],
        settings: SamplerSettings,
        route: _Route,
        origin: Origin | None,
        watch: Watch | None,
        first: int,
    ) -> Tensor:
        frames = watch.steps(len(route.pairs)) if watch is not None and len(route.pairs) > 1 else {}

        def look(i: int, _x_prev: Tensor, x0_hat: Tensor) -> None:
            if watch is None:
                return
            watch.heed()
            if i in frames:
                watch.see(first, frames[i], self._decode(x0_hat, origin))

        latents = sample(
            self._denoise(style_id, settings, route),
            self._start(seeds, route),
            route.pairs,
            route.schedule,
            eta=settings.eta,
            noise=lambda i: self._noise("step noise", seeds, route.shape, i),
            sampler=settings.sampler,
            on_step=look,
        )
        return self._decode(latents, origin)

    def _denoise(self, style_id: Tensor, settings: SamplerSettings, route: _Route) -> Denoise:
        scale, weak = settings.guidance, None
        if self.weak is not None and settings.autoguidance is not None:
            scale, weak = settings.autoguidance, self._predict_weak
        predict = guided(
            self._predict,
            self.denoiser.null_like,
            scale,
            weak=weak,
            within=timesteps_within(settings.guidance_interval, route.schedule.num_steps),
            rescale=settings.guidance_rescale,
        )
        denoise = make_denoise(
            lambda x_t, t: predict(x_t, t, style_id), route.schedule, self.task.target, settings.x0_limit
        )
        if route.mask is None or route.known is None:
            return denoise
        return keep_known(denoise, route.known, route.mask, route.schedule)

    def _start(self, seeds: Sequence[Seed], route: _Route) -> Tensor:
        if route.start is not None:
            return route.start.repeat(len(seeds), 1, 1, 1)
        x_T = self._noise("x_T", seeds, route.shape)
        if route.known is None:
            return x_T
        first = route.pairs[0][0] if route.pairs else -1
        return add_noise(route.known.expand_as(x_T), x_T, route.schedule.alpha_bar_at(first))

    def _noise(self, purpose: str, seeds: Sequence[Seed], shape: tuple[int, ...], *counters: int) -> Tensor:
        noise = torch.cat([_noise_of(seed, purpose, shape, counters) for seed in seeds])
        return noise.to(self.placement.device, memory_format=self.placement.layout)

    def _encode(self, pixels: Tensor) -> Tensor:
        return encode_pixels(pixels[None], self.autoencoder, self.normalizer, self.placement)

    def _decode(self, latents: Tensor, origin: Origin | None) -> Tensor:
        """Return pixels on the CPU; what is known stays."""
        pixels = decode_latents(latents, self.autoencoder, self.normalizer, self.placement)
        if origin is None or origin.mask is None:
            return pixels
        new = feather(origin.mask[None], self.autoencoder.factor)
        return (origin.pixels + new * (pixels.float() - origin.pixels)).round().to(torch.uint8)

    def _predict(self, x_t: Tensor, t: Tensor, style_id: Tensor) -> Tensor:
        return self._pass(self.denoiser, x_t, t, style_id)

    def _predict_weak(self, x_t: Tensor, t: Tensor, style_id: Tensor) -> Tensor:
        assert self.weak is not None
        return self._pass(self.weak, x_t, t, style_id)

    def _pass(self, denoiser: Denoiser, x_t: Tensor, t: Tensor, style_id: Tensor) -> Tensor:
        lanes = Lanes.beside(self.placement.device, denoiser)
        return lanes.map(self.placement.running(denoiser), x_t, t.to(x_t.device, non_blocking=True), style_id)


def _noise_of(seed: Seed, purpose: str, shape: tuple[int, ...], counters: tuple[int, ...]) -> Tensor:
    """Return the noise ``[1, *shape]`` of one picture, float32 on the CPU."""
    if not isinstance(seed, Between):
        base = int(seed)
        if seed == base:
            return normal_for(0, purpose, [base], shape, *counters)
        seed = Between(base, base + 1, seed - base)
    start, end = (_noise_of(one, purpose, shape, counters) for one in (seed.start, seed.end))
    return slerp(start, end, torch.tensor([seed.share], dtype=torch.float64))


def _halve(count: int) -> int:
    """Return the size of smaller batches where one of ``count`` did not fit.

    Raises:
        ResourceError: there is nothing to halve.
    """
    if count == 1:
        raise _too_large()
    logger.info("out of memory with %d pictures at once: going on with %d", count, count // 2)
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return count // 2


def _too_large() -> ResourceError:
    msg = "the device's memory does not suffice for one picture."
    return ResourceError(msg, "Draw smaller pictures, or take --device cpu.")
