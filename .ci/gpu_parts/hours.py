"""Hours and energy of the preset wikiart-256 from rates: measured ones, or those that counted operations would allow.

``python .ci/gpu_parts/hours.py`` prints the two tables of the guide on hardware, with PYTHONPATH at the root.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from latentart.builders import build_autoencoder, build_denoiser, build_discriminator
from latentart.config.workspace import resolve
from latentart.core.networks.autoencoder import Autoencoder

PICTURES = 80_000  # WikiArt's, about
STYLES = 27
CUTS = (4, 9, 16, 23, 30)
SHARES = (0.15, 0.35)  # of a card's matrix rate: the second is the bar of `.ci/gpu`
BYTES = 4  # of a gradient on its way
BACKWARD = 2 / 3  # of a step, beside which gradients travel


@dataclass(frozen=True)
class Card:
    """A GPU by its data sheet: bf16 products summed in float32, not sparse, in FLOP/s; power of the board in W."""

    name: str
    rate: float
    watts: float


CARDS = (Card("RTX 3090", 71e12, 350), Card("RTX 4090", 165e12, 450), Card("H100 SXM", 989e12, 700))


@dataclass(frozen=True)
class Group:
    """GPUs that train together, each with a batch of its own: ``link`` is what one of them sends, in bytes a second."""

    name: str
    card: Card
    count: int
    link: float


GROUPS = (
    Group("one RTX 4090", CARDS[1], 1, 1.0),
    Group("8 RTX 4090, PCIe 4 x16", CARDS[1], 8, 25e9),
    Group("one H100", CARDS[2], 1, 1.0),
    Group("8 H100, NVLink", CARDS[2], 8, 450e9),
    Group("4 nodes of 8 H100, 400 Gb/s for each GPU", CARDS[2], 32, 50e9),
    Group("4 nodes of 8 H100, 100 Gb/s for each GPU", CARDS[2], 32, 12.5e9),
)


@dataclass(frozen=True)
class Counted:
    """What the preset's training is made of: floating-point operations, of products, convolutions and attention.

    Attributes:
        forward, update: of the denoiser, for one image. images: that its training sees. batch, weights: its own.
        whole: of an update of the autoencoder with discriminator and LPIPS, for one picture of 256 px.
        autoencoder: of its whole training.
    """

    forward: float
    update: float
    images: int
    batch: int
    weights: int
    whole: float
    autoencoder: float

    @classmethod
    def of_preset(cls) -> Counted:
        """Count by passes of empty tensors, which take neither memory nor time."""
        config = resolve({"preset": "wikiart-256"})
        training = config.ldm.training
        assert training.steps is not None
        with torch.device("meta"):
            denoiser = build_denoiser(config.ldm.model, config.vae.model.latent_channels, [STYLES])
            side = training.resolution // config.vae.model.factor
            x_t = torch.zeros(2, config.vae.model.latent_channels, side, side)
            ids = torch.zeros(2, dtype=torch.int64)
            forward, update = count(denoiser, lambda: denoiser(x_t, ids, ids))
        parts = count_autoencoder()
        whole = sum(parts.values())
        weights = sum(parameter.numel() for parameter in denoiser.parameters())
        images = training.steps * training.batch_size
        return cls(forward / 2, update / 2, images, training.batch_size, weights, whole, whole_training(parts))


def count(network: nn.Module, call: object) -> tuple[int, int]:
    """Return the operations of a forward pass, and of it with its backward pass."""
    with FlopCounterMode(display=False) as counter:
        out: Tensor = call()  # type: ignore[operator]
        forward = counter.get_total_flops()
        torch.autograd.backward(out.mean())
    network.zero_grad()
    return forward, counter.get_total_flops()


def count_autoencoder() -> dict[str, float]:
    """Return the operations of each part of an update for one picture of 256 px: those of the four stages' terms."""
    from torchvision.models import vgg16

    config = resolve({"preset": "wikiart-256"}).vae
    with torch.device("meta"):
        autoencoder, discriminator = build_autoencoder(config.model), build_discriminator(config.discriminator)
        features = vgg16(weights=None).features[: CUTS[-1]].requires_grad_(requires_grad=False)
        images = torch.zeros(1, 3, 256, 256)
        fake = torch.zeros(1, 3, 256, 256, requires_grad=True)
        _, own = count(autoencoder, lambda: pass_through(autoencoder, images))
        _, learning = count(discriminator, lambda: discriminator(torch.cat([images, images])))
        discriminator.requires_grad_(requires_grad=False)
        _, term = count(discriminator, lambda: discriminator(fake))
        forward, both = count(features, lambda: features(fake))
    return {"own": own, "learning": learning, "term": term, "perceptual": both + forward}


def pass_through(autoencoder: Autoencoder, images: Tensor) -> Tensor:
    """Return reconstructions by the posterior's mean."""
    return autoencoder.render(autoencoder.encode(images).chunk(2, dim=1)[0])


def whole_training(parts: Mapping[str, float]) -> float:
    """Return the operations of the autoencoder's four stages; a picture of 512 px counts as four of 256."""
    total, is_first = 0.0, True
    for stage in resolve({"preset": "wikiart-256"}).vae.stages:
        seen = (stage.steps or 0) * stage.batch_size + int(stage.epochs or 0) * PICTURES
        area = (stage.resolution / 256) ** 2
        late = 1.0
        if is_first and stage.steps:  # the discriminator enters within it
            assert isinstance(stage.discriminator_start, int)
            late = 1 - stage.discriminator_start / stage.steps
        adversarial = (parts["learning"] + parts["term"]) * late * (stage.weights.adversarial > 0)
        perceptual = parts["perceptual"] * (stage.weights.perceptual > 0)
        total += seen * area * (parts["own"] + adversarial + perceptual)
        is_first = False
    return total


def rates_of(counted: Counted, card: Card, share: float) -> dict[str, float]:
    """Return images a second of both trainings on a card that reaches a share of its matrix rate."""
    return {"denoiser": share * card.rate / counted.update, "autoencoder": share * card.rate / counted.whole}


def hours_of(counted: Counted, rates: Mapping[str, float]) -> float:
    """Return the hours of both trainings by images a second, of the denoiser and of the autoencoder's whole update."""
    pictures = counted.autoencoder / counted.whole
    return (counted.images / rates["denoiser"] + pictures / rates["autoencoder"]) / 3600


def describe_hours(counted: Counted, rates: Mapping[str, float]) -> str:
    """Return hours, and the energy on the card at hand where its power is known."""
    if min(rates.values()) <= 0:
        return "not known: one of its rates was not measured"
    hours, name = hours_of(counted, rates), torch.cuda.get_device_name() if torch.cuda.is_available() else "a CPU"
    watts = [card.watts for card in CARDS if card.name.removeprefix("RTX ").split()[0] in name]
    energy = f", {hours * watts[0] / 1000:.1f} kWh at {watts[0]:g} W" if watts else ""
    return f"{hours:.1f} hours on {name}{energy}"


def hours_table(counted: Counted) -> list[str]:
    """Return that guide's table of cards."""
    low, high = (f"{share:.0%}".replace("%", " %") for share in SHARES)
    lines = [
        f"| card | matrix rate, bf16 | hours at {low} of it | at {high} | energy at full power |",
        "|---|---|---|---|---|",
    ]
    for card in CARDS:
        slow, fast = (hours_of(counted, rates_of(counted, card, share)) for share in SHARES)
        energy = [hours * card.watts / 1000 for hours in (slow, fast)]
        rate = f"{card.rate / 1e12:.0f} TFLOP/s"
        lines.append(f"| {card.name} | {rate} | {slow:.3g} | {fast:.2g} | {energy[0]:.2g} to {energy[1]:.2g} kWh |")
    return lines


def groups_table(counted: Counted) -> list[str]:
    """Return that guide's table of GPUs that train the denoiser together, each with the preset's batch."""
    lines = [
        "| GPUs | step | of it exchange that shows | images per hour | of so many alone |",
        "|---|---|---|---|---|",
    ]
    for group in GROUPS:
        alone = counted.batch / rates_of(counted, group.card, SHARES[1])["denoiser"]
        sent = 2 * (group.count - 1) / group.count * counted.weights * BYTES / group.link
        shows = max(0.0, sent - BACKWARD * alone)
        per_hour = group.count * counted.batch / (alone + shows) * 3600
        step = f"{1e3 * (alone + shows):.0f} ms | {1e3 * shows:.0f} ms"
        lines.append(f"| {group.name} | {step} | {per_hour / 1e6:.3g} million | {alone / (alone + shows):.0%} |")
    return [line.replace("%", " %") if line.endswith("% |") else line for line in lines]


def main() -> None:
    """Print what was counted, then both tables."""
    counted = Counted.of_preset()
    print(f"denoiser: {counted.weights / 1e6:.1f} M, {counted.forward / 1e9:.1f} GFLOP forward, ", end="")
    print(
        f"{counted.update / 1e9:.1f} GFLOP an update's image, {counted.update * counted.images / 1e18:.2f} EFLOP in all"
    )
    print(f"autoencoder: {counted.whole / 1e9:.0f} GFLOP a picture, {counted.autoencoder / 1e18:.2f} EFLOP in all")
    print("", *hours_table(counted), "", *groups_table(counted), sep="\n")


if __name__ == "__main__":
    main()
