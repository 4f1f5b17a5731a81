"""Part 2: how fast updates are, beside the chip's own matrix rate and beside diffusers' networks of equal size."""

from __future__ import annotations

import gc
import time
from dataclasses import dataclass, replace
from functools import partial
from statistics import median
from typing import Any

import torch
import torch._dynamo
import torch._functorch.config
from peers.contenders import build_peer
from peers.denoisers import build_diffusers_unet, build_ours
from peers.limits import count_flops
from peers.setting import Setting, count_parameters
from peers.training import NUM_STYLES, build_step, noise_batch, update_often
from torch import Tensor, nn
from torchvision.models import vgg16

from hours import Counted, describe_hours
from latentart.builders import build_ema
from latentart.config.ldm import DiffusionConfig
from latentart.config.optim import OptimizerConfig
from latentart.config.workspace import resolve
from latentart.core.networks.perceptual import PerceptualDistance
from latentart.core.randomness import normal_for
from latentart.planning.rates import matrix_rate, products_of, seconds_of, wait_for
from latentart.process.devices import Placement
from latentart.training.build import build_optimizer, build_terms, build_vae_step
from latentart.training.steps.ldm_step import LdmStep
from latentart.training.steps.optim import Learner
from latentart.training.steps.vae_step import VaeBatch, VaeStep
from part import Part

LPIPS_CUTS = (4, 9, 16, 23, 30)  # of VGG16's layers, after its five blocks
LPIPS_WIDTHS = (64, 128, 256, 512, 512)
COMPILING = 45.0  # seconds that a further compilation may take
ROUNDS = 3


@dataclass(frozen=True)
class Sizes:
    """What is measured: the presets' own sizes, or tiny ones for a rehearsal."""

    batch: int = 128
    batches: tuple[int, ...] = (64, 256, 512)
    steps: int = 10
    side: int = 32
    pixels: int = 256
    pictures: int = 16
    settings: tuple[str, ...] = ()


TINY = Sizes(
    batch=2,
    batches=(4,),
    steps=1,
    side=8,
    pixels=32,
    pictures=2,
    settings=(
        "ldm.model.widths=[32,64]",
        'ldm.model.attention=["linear","linear"]',
        "vae.model.widths=[16,32]",
        'vae.model.attention=["none","linear"]',
        "vae.model.head_channels=8",
        "vae.discriminator.num_layers=1",
        "vae.discriminator.base_channels=8",
    ),
)


def main() -> None:
    """Measure denoisers, then autoencoders, then what is left of the batch sizes."""
    part = Part()
    # a size of its own is compiled for each batch: one for all is slower, and nobody changes the batch on the way
    torch._dynamo.config.automatic_dynamic_shapes = False
    sizes = TINY if part.rehearses else Sizes()
    limit = matrix_rate(products_of(part.placement))
    part.figure("matrix rate", f"{limit / 1e12:.3g} TFLOP/s, {part.placement.precision}", numbers={"FLOP/s": limit})
    denoisers, autoencoders = Denoisers(part, sizes, limit), Autoencoders(part, sizes)
    with part.trying("denoiser"):
        denoisers.compare()
    with part.trying("autoencoder"):
        autoencoders.compare()
    with part.trying("hours"):
        counted = Counted.of_preset()
        rates = {"denoiser": denoisers.best, "autoencoder": autoencoders.best}
        part.figure("wikiart-256 on this card", describe_hours(counted, rates))
    with part.trying("batch sizes"):
        denoisers.try_batches()


class Denoisers:
    """Our denoiser of wikiart-256 and diffusers' UNet2DModel, as many parameters, the same update around them."""

    def __init__(self, part: Part, sizes: Sizes, limit: float) -> None:
        self.part, self.sizes, self.limit = part, sizes, limit
        model = resolve({"preset": "wikiart-256"}, list(sizes.settings)).ldm.model
        self.setting = Setting("wikiart-256", model, sizes.side, sizes.batch)
        self.ours = self._step(build_ours(model, 4, NUM_STYLES))
        few = noise_batch(replace(self.setting, batch_size=2), part.placement)
        self.flops = count_flops(partial(update_often, self.ours, few, 1)) / 2
        self.best = 0.0

    def _step(self, network: nn.Module) -> LdmStep:
        self.part.placement.place(network)
        return build_step(network, DiffusionConfig(), OptimizerConfig(), self.part.placement)

    def _peer(self) -> LdmStep:
        import diffusers

        wanted, stages = count_parameters(self.ours.denoiser), len(self.setting.model.widths)
        return self._step(build_diffusers_unet(diffusers, wanted, 4, self.setting.side, NUM_STYLES, stages))

    def _rate(self, step_fn: LdmStep, batch_size: int) -> float:
        """Return images a second after a warm-up, the median of a few rounds."""
        batch = noise_batch(replace(self.setting, batch_size=batch_size), self.part.placement)
        update_often(step_fn, batch, 2)
        work = partial(update_often, step_fn, batch, self.sizes.steps)
        return self.sizes.steps * batch_size / median(seconds_of(work) for _ in range(ROUNDS))

    def compare(self) -> None:
        """Measure both at the preset's batch, eager and compiled."""
        sizes, peer = self.sizes, self._peer()
        rates: dict[str, float] = {}
        for mode in ("eager", "compiled"):
            for name, step_fn in (("ours", self.ours), ("UNet2DModel", peer)):
                if mode == "compiled":
                    compile_network(step_fn.denoiser, self.part)
                rates[f"{name}, {mode}"] = self._say(name, mode, step_fn, sizes.batch)
        del peer
        fastest = [max(rates[f"{name}, {mode}"] for mode in ("eager", "compiled")) for name in ("ours", "UNet2DModel")]
        ratio = fastest[0] / fastest[1]
        value, bar = f"{ratio:.2f} times, the faster way of each", "at least 1.5"
        self.part.figure("denoiser, ours over UNet2DModel", value, bar, is_met=ratio >= 1.5, numbers=rates)

    def try_batches(self) -> None:
        """Measure ours at the other batch sizes, compiled as long as there is time for that."""
        for batch_size in self.sizes.batches:
            if not self.part.rehearses and self.part.left() < COMPILING:
                self.part.figure(f"denoiser, batch {batch_size}", "no time was left")
                continue
            with self.part.trying(f"denoiser, batch {batch_size}"):
                self._say("ours", "compiled", self.ours, batch_size)

    def _say(self, name: str, mode: str, step_fn: LdmStep, batch_size: int) -> float:
        self.part.peak()
        began = time.monotonic()
        rate = self._rate(step_fn, batch_size)
        took, memory = time.monotonic() - began, self.part.peak()
        own, is_preset = name == "ours", batch_size == self.sizes.batch and mode == "compiled"
        share = rate * self.flops / self.limit
        value = f"{rate:.0f} images/s, {memory:.1f} GB, {took:.0f} s with the start"
        value += f", {share:.0%} of the matrix rate" if own else ""
        bar, is_met = ("at least 35 %", share >= 0.35) if own and is_preset else ("", None)
        numbers = {"images/s": rate, "GB": memory, **({"share": share} if own else {})}
        self.part.figure(f"denoiser, batch {batch_size}, {name}, {mode}", value, bar, is_met=is_met, numbers=numbers)
        self.best = max(self.best, rate) if own else self.best
        return rate


class PeerAutoencoder(nn.Module):
    """diffusers' AutoencoderKL in the shape that our update of an autoencoder expects."""

    quantizer = None

    def __init__(self, network: nn.Module, factor: int) -> None:
        super().__init__()
        self.network, self.factor, self.uses_tanh = network, factor, True

    @property
    def encoder(self) -> Any:
        """Return what is compiled of it."""
        return self.network.encoder

    @property
    def decoder(self) -> Any:
        """Return what has the last layer."""
        return self.network.decoder

    def encode(self, images: Tensor) -> Tensor:
        """Return the moments."""
        return self.network.encode(images).latent_dist.parameters.float()

    def render(self, z: Tensor) -> Tensor:
        """Return images."""
        return torch.tanh(self.network.decode(z).sample.float())


class Autoencoders:
    """Our autoencoder and AutoencoderKL of the same channels, each in our whole update: discriminator and LPIPS."""

    def __init__(self, part: Part, sizes: Sizes) -> None:
        self.part, self.sizes, self.best = part, sizes, 0.0
        settings = ["vae.perceptual.backbone=random", "vae.discriminator.guard.enabled=false", *sizes.settings]
        self.config = resolve({"preset": "wikiart-256"}, settings).vae
        stage = next(one for one in self.config.stages if one.weights.perceptual > 0)
        self.stage = stage.model_copy(update={"discriminator_start": 0, "discriminator_warmup": 0, "ramp": 0})
        numbers, side = range(sizes.pictures), sizes.pixels // self.config.model.factor
        images = normal_for(0, "images", numbers, (3, sizes.pixels, sizes.pixels)).clamp(-1, 1)
        noise = normal_for(0, "noise", numbers, (self.config.model.latent_channels, side, side))
        self.batch = VaeBatch(part.placement.send(images), part.placement.send(noise))

    def compare(self) -> None:
        """Measure one after the other, so that each has the memory for itself."""
        rates, memories = {}, {}
        for mode in ("eager", "compiled"):
            for name, build in (("ours", self._ours), ("AutoencoderKL", self._peer)):
                if mode == "compiled" and not self.part.rehearses and self.part.left() < 15:
                    self.part.figure(f"autoencoder, {name}, {mode}", "no time was left")
                    continue
                gc.collect()
                before = torch.cuda.memory_allocated() if self.part.device.type == "cuda" else 0
                step_fn = build()
                if mode == "compiled":
                    compile_halves(step_fn, self.part)
                key = f"{name}, {mode}"
                rates[key], memories[key] = self._say(key, step_fn, before / 1e9)
                del step_fn
        own_keys = [key for key in rates if key.startswith("ours")]
        fastest = [max(keys, key=rates.__getitem__) for keys in (own_keys, rates.keys() - set(own_keys))]
        self.best = rates[fastest[0]]
        ratio = self.best / rates[fastest[1]]
        value, bar = f"{ratio:.2f} times, the faster way of each", "at least 1.5"
        self.part.figure("autoencoder, ours over AutoencoderKL", value, bar, is_met=ratio >= 1.5, numbers=rates)
        own, other = (memories[key] for key in fastest)
        value, numbers = f"{own:.2f} GB beside {other:.2f} GB", {"GB": own, "peer's GB": other}
        self.part.figure("autoencoder, memory", value, "ours no more", is_met=own <= other, numbers=numbers)

    def _ours(self) -> VaeStep:
        step_fn = build_vae_step(self.config, self.stage, 1000, self.part.placement, 0)
        step_fn.perceptual = random_lpips(self.part.placement)
        return step_fn

    def _peer(self) -> VaeStep:
        config, placement = self.config.model, self.part.placement
        size = Setting("peer", config, self.sizes.pixels, self.sizes.pictures)
        network = PeerAutoencoder(build_peer(size, placement).network, config.factor)
        ours = build_vae_step(self.config, self.stage, 1000, placement, 0)
        return VaeStep(
            Learner(network, build_ema(network, self.config.run.ema), build_optimizer(network, self.config.optimizer)),  # type: ignore[arg-type]
            build_terms(self.stage, self.config.optimizer.clip_norm, self.stage),
            placement,
            adversary=ours.adversary,
            perceptual=random_lpips(placement),
        )

    def _say(self, key: str, step_fn: VaeStep, others: float) -> tuple[float, float]:
        sizes, device = self.sizes, self.part.device

        def update(first: int, count: int) -> None:
            for step in range(first, first + count):
                step_fn(self.batch, step, 1e-5)
            wait_for(device)

        began = time.monotonic()
        update(0, 3)
        warm = time.monotonic() - began
        self.part.peak()
        seconds = median(seconds_of(partial(update, 10, sizes.steps)) for _ in range(ROUNDS))
        rate, memory = sizes.steps * sizes.pictures / seconds, self.part.peak() - others
        value = f"{rate:.1f} images/s, {memory:.2f} GB, {warm:.0f} s to start"
        self.part.figure(f"autoencoder, {key}", value, numbers={"images/s": rate, "GB": memory})
        return rate, memory


def compile_network(network: nn.Module, part: Part) -> None:
    """Send a network through torch.compile; a rehearsal leaves it as it is, as a CPU takes minutes."""
    if not part.rehearses:
        network.compile()


def compile_halves(step_fn: VaeStep, part: Part) -> None:
    """Compile encoder and decoder, as `vae.run.compile` does."""
    torch._functorch.config.donated_buffer = False  # the adaptive weight goes backward twice
    for half in (step_fn.autoencoder.encoder, step_fn.autoencoder.decoder):
        compile_network(half, part)


def random_lpips(placement: Placement) -> PerceptualDistance:
    """Return LPIPS over VGG16 with random weights: as much work as with trained ones."""
    features = vgg16(weights=None).features
    for layer in features.modules():
        if isinstance(layer, nn.ReLU):
            layer.inplace = False
    slices = [features[start:end] for start, end in zip((0, *LPIPS_CUTS), LPIPS_CUTS, strict=False)]
    network = PerceptualDistance(slices, [torch.ones(width) / width for width in LPIPS_WIDTHS])
    placement.place(network)
    return network


if __name__ == "__main__":
    main()
