"""Settings of the denoiser's network: a UNet or a transformer, their named sizes, and which size for how many pictures.

Parameters at 4 latent channels and 27 styles:

| size | unet | dit |
|---|---|---|
| XS | 5 M | 6 M |
| S | 25 M | 29 M |
| M | 95 M | 115 M |
| L | 259 M | 253 M |
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, model_validator

from latentart.config.base import StrictConfig, require_divisor
from latentart.config.optim import Width
from latentart.config.vae import BlocksConfig
from latentart.kinds import AttentionKind

Size = Literal["XS", "S", "M", "L"]

UNET_SIZES: dict[Size, dict[str, Any]] = {
    "XS": {"widths": (64, 128, 192), "blocks_per_stage": 1, "embedding_channels": 256},
    "S": {"widths": (96, 192, 384), "blocks_per_stage": 2, "embedding_channels": 256},
    "M": {"widths": (224, 448, 704), "blocks_per_stage": 2, "embedding_channels": 512},
    "L": {"widths": (384, 768, 1152), "blocks_per_stage": 2, "embedding_channels": 768},
}
DIT_SIZES: dict[Size, dict[str, Any]] = {
    "XS": {"width": 192, "depth": 8, "embedding_channels": 192},
    "S": {"width": 384, "depth": 12, "embedding_channels": 256},
    "M": {"width": 768, "depth": 12, "embedding_channels": 512},
    "L": {"width": 1024, "depth": 16, "embedding_channels": 512},
}


class UNetConfig(BlocksConfig):
    """The denoiser as a UNet."""

    kind: Literal["unet"] = "unet"
    """Names the network: unet, or dit for a transformer."""

    size: Annotated[Size | None, Field(exclude=True)] = None
    """XS, S, M or L take the place of widths, blocks_per_stage and embedding_channels, whatever those say. The
    resolved config has the numbers in the name's place. Our choice: some 5, 25, 95 and 260 million parameters."""

    widths: Annotated[tuple[Width, ...], Field(min_length=1, max_length=8)] = (96, 192, 768)
    """Channels of each stage, the finest first; every stage after the first halves height and width. Our choice: most
    parameters where there are few places. A step costs two thirds of what 192, 384, 576 would with fewer of them."""

    attention: tuple[AttentionKind, ...] = ("linear", "linear", "full")
    """Attention at the end of each stage, the finest first: none, linear (the seed), or full where there is little."""

    middle_attention: AttentionKind = "full"
    """Attention between the two ResNet blocks of the middle."""

    blocks_per_stage: Annotated[int, Field(ge=1, le=64)] = 2
    """ResNet blocks in each stage; 2 is latent diffusion's choice."""

    embedding_channels: Annotated[int, Field(ge=2, le=2**16, multiple_of=2)] = 512
    """Length of the vector that carries timestep and style into every ResNet block."""

    @model_validator(mode="after")
    def _fits(self) -> UNetConfig:
        take_size(self, UNET_SIZES)
        super()._fits()  # type: ignore[operator]
        return self

    @property
    def factor(self) -> int:
        """What the latent side must be a multiple of."""
        return int(2 ** (len(self.widths) - 1))


class DiTConfig(StrictConfig):
    """The denoiser as a transformer over patches (Peebles & Xie 2212.09748)."""

    kind: Literal["dit"] = "dit"
    """Names the network: dit, or unet."""

    size: Annotated[Size | None, Field(exclude=True)] = None
    """XS, S, M or L take the place of width, depth and embedding_channels, whatever those say. The resolved config has
    the numbers in the name's place. Our choice: some 6, 29, 115 and 250 million parameters."""

    width: Annotated[int, Field(ge=4, le=2**16, multiple_of=4)] = 384
    """Channels of a token; DiT-S has 384, DiT-B 768."""

    depth: Annotated[int, Field(ge=1, le=512)] = 12
    """Number of blocks; 12 is the choice of DiT-S and DiT-B."""

    head_channels: Width = 64
    """Channels of one attention head; must divide the width. DiT-S and DiT-B have 64."""

    patch_size: Annotated[int, Field(ge=1, le=64)] = 2
    """Side of the square of latents that becomes one token; 2 is the paper's best. Half of it costs four times."""

    mlp_ratio: Annotated[float, Field(gt=0, le=64)] = 4.0
    """Size of a block's second branch; it has the parameters of a plain one so many times the width (the paper: 4)."""

    embedding_channels: Annotated[int, Field(ge=2, le=2**16, multiple_of=2)] = 256
    """Length of the vector that carries timestep and style into every block."""

    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of features dropped at the end of both branches of each block."""

    @model_validator(mode="after")
    def _fits(self) -> DiTConfig:
        take_size(self, DIT_SIZES)
        require_divisor("head_channels", self.head_channels, "width", self.width, 128)
        return self

    @property
    def factor(self) -> int:
        """What the latent side must be a multiple of."""
        return self.patch_size

    @property
    def mlp_width(self) -> int:
        """Channels within a block's second branch: three matrices of it weigh as much as two of mlp_ratio widths."""
        return max(1, round(self.mlp_ratio * self.width / 12)) * 8


def take_size(config: UNetConfig | DiTConfig, sizes: dict[Size, dict[str, Any]]) -> None:
    """Put a size's numbers in the place of its name.

    After the validation, as strict JSON must reach the fields untouched: what a validator before them returns is read
    as Python, in which a list is no tuple.
    """
    if config.size is not None:
        config.__dict__.update(sizes[config.size], size=None)


def kind(value: Any) -> Any:
    """Return the kind that a network's settings name; those that name none are a UNet's, as in files of version 0.1."""
    return value.get("kind", "unet") if isinstance(value, dict) else getattr(value, "kind", "unet")


_MAPPING = {"unet": "#/$defs/UNetConfig", "dit": "#/$defs/DiTConfig"}

DenoiserConfig = Annotated[
    Annotated[UNetConfig, Tag("unet")] | Annotated[DiTConfig, Tag("dit")],
    Field(
        discriminator=Discriminator(kind),
        json_schema_extra={"discriminator": {"propertyName": "kind", "mapping": _MAPPING}},
    ),
]


def advise_size(num_pictures: int) -> Size:
    """Return the size that fits so many pictures, by a rule of thumb of our own.

    The seed found that networks too small or too big both fail on WikiArt (some 80,000 pictures), without numbers.
    """
    limits: dict[Size, int] = {"XS": 2_000, "S": 30_000, "M": 300_000}
    return next((size for size, limit in limits.items() if num_pictures < limit), "L")


MILLIONS: dict[Size, float] = {"XS": 5, "S": 25, "M": 100, "L": 250}  # of parameters, about, of either kind


FEWEST = 500  # pictures; of fewer no network learns more than them, by our rule of thumb
MOST_PER_PICTURE = 10_000  # parameters


def expect_of_few(num_pictures: int) -> str:
    """Return what to expect of a set that is too small for any network, or an empty text."""
    if num_pictures >= FEWEST:
        return ""
    return f"fewer than {FEWEST} pictures ({num_pictures}): expect samples that repeat them, whatever the network"


def advise(num_pictures: int, num_parameters: int) -> str:
    """Return a sentence where a network is far from what suits the set, or the set too small for any; else nothing.

    Far is four times larger or smaller than ``advise_size`` has it, or ten thousand parameters a picture.
    """
    if few := expect_of_few(num_pictures):
        return f"{num_parameters / 1e6:.3g} M parameters for {few}"
    size = advise_size(num_pictures)
    ratio = num_parameters / (1e6 * MILLIONS[size])
    if 0.25 <= ratio <= 4 and num_parameters <= MOST_PER_PICTURE * num_pictures:
        return ""
    risk = "it may learn them by heart" if ratio > 1 else "it may not hold them all"
    have = f"{num_parameters / 1e6:.3g} M parameters for {num_pictures} pictures"
    return f"{have}: {risk}. By our rule of thumb ldm.model.size={size} fits, some {MILLIONS[size]:g} M"
