"""Ways to sample, timed: ours, and what a pipeline of diffusers does."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn

from latentart.core.diffusion.objective import DiffusionTask
from latentart.core.networks.autoencoder import Autoencoder
from latentart.core.pixels import to_pixels
from latentart.model.generate import Generator, SamplerSettings
from latentart.planning.rates import seconds_of, wait_for

# what diffusers calls what a network predicts
PREDICTIONS = {"eps": "epsilon", "x0": "sample", "v": "v_prediction"}


class Stopwatch:
    """Adds up the seconds of pieces of work on a device: on CUDA by its own events, so that nothing waits for it."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._spans: list[tuple[Any, Any]] = []

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Time what is done inside."""
        began = self._mark()
        yield
        self._spans.append((began, self._mark()))

    def take(self) -> float:
        """Return the seconds so far, and begin anew."""
        wait_for(self.device)
        on_gpu = self.device.type == "cuda"
        seconds = sum(began.elapsed_time(ended) / 1e3 if on_gpu else ended - began for began, ended in self._spans)
        self._spans.clear()
        return float(seconds)

    def _mark(self) -> Any:
        if self.device.type == "cuda":
            event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
            event.record()
            return event
        wait_for(self.device)
        return time.perf_counter()


class TimedDenoiser(nn.Module):
    """A denoiser whose calls are timed and counted, as are their images."""

    def __init__(self, network: nn.Module, watch: Stopwatch) -> None:
        super().__init__()
        self.network, self.watch = network, watch
        self.calls, self.images = 0, 0

    def forward(self, x_t: Tensor, t: Tensor, style_id: Tensor) -> Tensor:
        """Return the network's prediction."""
        self.calls, self.images = self.calls + 1, self.images + len(x_t)
        with self.watch.running():
            prediction: Tensor = self.network(x_t, t, style_id)
        return prediction

    def null_like(self, style_id: Tensor) -> Tensor:
        """Return labels that say nothing."""
        return self.network.null_like(style_id)  # type: ignore[operator]


class InTwoCalls(nn.Module):
    """A denoiser that takes each half of its batch in a call of its own, as guidance without batching does."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x_t: Tensor, t: Tensor, style_id: Tensor) -> Tensor:
        """Return the same predictions."""
        halves = zip(x_t.chunk(2), t.chunk(2), style_id.chunk(2), strict=True)
        return torch.cat([self.network(*half) for half in halves])

    def null_like(self, style_id: Tensor) -> Tensor:
        """Return labels that say nothing."""
        return self.network.null_like(style_id)  # type: ignore[operator]


class TimedDecoder(nn.Module):
    """The half of an autoencoder that sampling needs, timed."""

    def __init__(self, autoencoder: Autoencoder, watch: Stopwatch) -> None:
        super().__init__()
        self.autoencoder, self.watch = autoencoder, watch
        self.latent_channels, self.factor = autoencoder.latent_channels, autoencoder.factor

    def decode(self, z: Tensor) -> Tensor:
        """Return images ``[B, 3, H, W]`` of latents."""
        with self.watch.running():
            return self.autoencoder.decode(z)


@dataclass(frozen=True)
class Timing:
    """What drawing so many pictures took, in seconds: all of it, the denoiser's calls in it, and the decoder's.

    Attributes:
        calls, denoised: how often the denoiser was called, and of how many images in all.
    """

    images: int
    total: float
    denoiser: float
    decoder: float
    calls: int
    denoised: int

    @property
    def rate(self) -> float:
        """Pictures a second."""
        return self.images / self.total

    @property
    def overhead(self) -> float:
        """What is neither network, noise and steps and guidance and pixels, as a share of the denoiser's own calls."""
        return (self.total - self.denoiser - self.decoder) / self.denoiser

    @property
    def decode_share(self) -> float:
        """The decoder's part of all."""
        return self.decoder / self.total


def middle(timings: Sequence[Timing], key: Callable[[Timing], float]) -> float:
    """Return the median of one number of several draws."""
    return median(map(key, timings))


def middle_ratio(ones: Sequence[Timing], others: Sequence[Timing]) -> float:
    """Return the median, over rounds, of one's rate over another's in the same round."""
    return median(one.rate / other.rate for one, other in zip(ones, others, strict=True))


Draw = Callable[[Generator, Tensor, SamplerSettings], Tensor]


class Drawing:
    """A way to draw with a generator's networks, or with another denoiser in the place of its own."""

    def __init__(self, generator: Generator, settings: SamplerSettings, count: int, draw: Draw | None = None) -> None:
        device = generator.placement.device
        self.settings, self.count, self.draw = replace(settings, batch_size=count), count, draw or draw_ours
        self.denoising, self.decoding = Stopwatch(device), Stopwatch(device)
        self.denoiser = TimedDenoiser(generator.denoiser, self.denoising)
        self.generator = replace(
            generator,
            denoiser=self.denoiser,  # type: ignore[arg-type]  # it keeps the contract without being a Denoiser
            autoencoder=TimedDecoder(generator.autoencoder, self.decoding),  # type: ignore[arg-type]  # likewise
        )

    def __call__(self, steps: int | None = None) -> Timing:
        """Draw one batch of pictures of the first style, in so many steps; return what it took."""
        style_id, device = torch.zeros(self.count, dtype=torch.int64), self.generator.placement.device
        settings = self.settings if steps is None else replace(self.settings, steps=steps)
        self.denoiser.calls, self.denoiser.images = 0, 0
        wait_for(device)
        began = time.perf_counter()
        self.draw(self.generator, style_id, settings)
        wait_for(device)
        total = time.perf_counter() - began
        seconds = self.denoising.take(), self.decoding.take()
        return Timing(self.count, total, *seconds, self.denoiser.calls, self.denoiser.images)


def draw_in_turns(
    contenders: Mapping[str, Drawing], rounds: int, other: Callable[[], object] = lambda: None
) -> tuple[dict[str, list[Timing]], list[float]]:
    """Return each contender's timings, and the seconds of ``other`` work, which has its turn in every round as well."""
    for contender in contenders.values():
        contender(steps=2)  # what is done the first time only does not count
    found: dict[str, list[Timing]] = {name: [] for name in contenders}
    seconds = []
    for _ in range(rounds):
        for name, contender in contenders.items():
            found[name].append(contender())
        seconds.append(seconds_of(other))
    return found, seconds


def draw_ours(generator: Generator, style_id: Tensor, settings: SamplerSettings) -> Tensor:
    """Return pixels as `latentart sample` makes them."""
    return generator(style_id, range(len(style_id)), settings)


def build_scheduler(diffusers: Any, task: DiffusionTask, settings: SamplerSettings) -> Any:
    """Return diffusers' DDIM with the same noise, prediction, clamping and spacing of steps as ours.

    What it has no name for it takes for velocity: wrong for pictures, and as good for timing.
    """
    return diffusers.DDIMScheduler(
        num_train_timesteps=task.schedule.num_steps,
        trained_betas=task.schedule.betas.cpu().numpy(),
        prediction_type=PREDICTIONS.get(task.target, "v_prediction"),
        timestep_spacing="trailing",
        clip_sample=settings.x0_limit is not None,
        clip_sample_range=settings.x0_limit or 1.0,
    )


@torch.no_grad()
def walk_like_a_pipeline(
    scheduler: Any, generator: Generator, x_T: Tensor, style_id: Tensor, settings: SamplerSettings
) -> Tensor:
    """Return latents by the loop that diffusers' pipelines have, both branches of guidance in one call of each step."""
    scheduler.set_timesteps(settings.steps)
    style_ids = torch.cat([style_id, generator.denoiser.null_like(style_id)])
    x_t = x_T * scheduler.init_noise_sigma
    for t in scheduler.timesteps:
        both = scheduler.scale_model_input(torch.cat([x_t, x_t]), t)
        with generator.placement.autocast():
            prediction = generator.denoiser(both, t.to(x_t.device).expand(len(both)), style_ids)
        styled, base = prediction.chunk(2)
        x_t = scheduler.step(base + settings.guidance * (styled - base), t, x_t, eta=settings.eta).prev_sample
    return x_t


def draw_like_a_pipeline(diffusers: Any) -> Draw:
    """Return a way to draw by diffusers' scheduler and loop, from torch's noise to pixels."""

    @torch.no_grad()
    def draw(generator: Generator, style_id: Tensor, settings: SamplerSettings) -> Tensor:
        device, autoencoder = generator.placement.device, generator.autoencoder
        side = generator.resolution // autoencoder.factor
        noise = torch.Generator(device).manual_seed(0)
        shape = (len(style_id), autoencoder.latent_channels, side, side)
        x_T = torch.randn(shape, generator=noise, device=device)
        scheduler = build_scheduler(diffusers, generator.task, settings)
        latents = walk_like_a_pipeline(scheduler, generator, x_T, style_id.to(device), settings)
        with generator.placement.autocast():
            return to_pixels(autoencoder.decode(generator.normalizer.denormalize(latents))).cpu()

    return draw
