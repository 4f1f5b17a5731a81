"""What model.json may say: it may come from a stranger, so every part is looked at before anything is built by it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Self

import torch
from pydantic import AfterValidator, Discriminator, Field, Tag, ValidationError, field_validator, model_validator
from torch import nn
from torch.overrides import TorchFunctionMode

from latentart.builders import AnyAutoencoder, build_autoencoder, build_denoiser, class_of
from latentart.config.denoiser import DenoiserConfig
from latentart.config.ldm import DiffusionConfig
from latentart.config.pretrained import DiffusersConfig
from latentart.config.vae import AutoencoderConfig
from latentart.core.latents import LatentNormalizer
from latentart.core.networks.autoencoder import Autoencoder
from latentart.data.index import MAX_NAME
from latentart.errors import ModelError
from latentart.process.host_memory import total_bytes
from latentart.storage.saved_values import Saved, fault_of

FORMAT = 1
MAX_RESOLUTION = 2**14
HEADER = 64 * 2**20  # what the names and shapes of a weights file may take
LARGEST_GAIN = 4  # bytes of a number here for one in a file of others


def _is_name(name: str) -> str:
    if not 0 < len(name) <= MAX_NAME:  # pydantic cannot count what is no Unicode
        raise ValueError(f"it should be a name of up to {MAX_NAME} letters")
    return name


def _stands_once(names: list[str]) -> list[str]:
    if len(set(names)) != len(names):
        raise ValueError("it has a name twice")
    return names


Name = Annotated[str, AfterValidator(_is_name)]
Names = Annotated[list[Name], Field(min_length=1), AfterValidator(_stands_once)]
Float32 = Annotated[float, Field(gt=-3e38, lt=3e38)]


def _whose(config: object) -> str:
    """Tell the autoencoders that diffusers builds from our own."""
    return "diffusers" if isinstance(config, dict) and config.get("kind") == "diffusers" else "own"


SavedAutoencoder = Annotated[
    Annotated[AutoencoderConfig, Tag("own")] | Annotated[DiffusersConfig, Tag("diffusers")], Discriminator(_whose)
]


class Latents(Saved):
    """The measured statistics of each latent channel."""

    mean: list[Float32]
    std: list[Annotated[Float32, Field(gt=0)]]


class LabelColumn(Saved):
    """A column of labels and its values, in the order of their ids."""

    name: Name
    values: Names


class Trained(Saved):
    """How far a network was trained."""

    step: Annotated[int, Field(ge=0)] = 0


class Description(Saved):
    """What a model.json says as far as anything is built by it."""

    format: Annotated[int, Field(ge=1, le=FORMAT)]
    autoencoder: SavedAutoencoder
    denoiser: DenoiserConfig | None
    diffusion: DiffusionConfig | None = None
    resolution: Annotated[int, Field(ge=1, le=MAX_RESOLUTION)]
    uses_tanh: bool
    latents: Latents
    style_names: Names
    labels: list[LabelColumn] = Field(default_factory=list)
    training: dict[str, Trained] = Field(default_factory=dict)

    @field_validator("diffusion", mode="before")
    @classmethod
    def _mean_what_it_meant(cls, diffusion: object) -> object:
        """Before there was a floor there was none."""
        return {"min_snr_floor": 0.0, **diffusion} if isinstance(diffusion, dict) else diffusion

    @model_validator(mode="after")
    def _parts_fit(self) -> Self:
        channels = self.autoencoder.latent_channels
        if not len(self.latents.mean) == len(self.latents.std) == channels:
            raise ValueError(f"latents has not {channels} numbers of each kind")
        if self.denoiser is not None and self.diffusion is None:
            raise ValueError("diffusion is missing")
        unit = self.autoencoder.factor * (self.denoiser.factor if self.denoiser is not None else 1)
        if self.resolution % unit:
            raise ValueError(f"resolution is no multiple of {unit}")
        return self

    @property
    def label_counts(self) -> list[int]:
        """How many styles there are, and how many values of each column of labels."""
        return [len(self.style_names), *(len(column.values) for column in self.labels)]


def describe_autoencoder(
    config: AnyAutoencoder,
    names: Sequence[str],
    normalizer: LatentNormalizer,
    *,
    resolution: int,
    uses_tanh: bool,
) -> dict[str, Any]:
    """Return what a model.json says of an autoencoder alone, but for its training."""
    return {
        "autoencoder": config.model_dump(mode="json"),
        "uses_tanh": uses_tanh,
        "resolution": resolution,
        "latents": {"mean": list(normalizer.mean), "std": list(normalizer.std)},
        "style_names": list(names),
        "denoiser": None,
        "diffusion": None,
    }


def read_description(about: object, path: Path) -> Description:
    """Return what a model.json says after a look at everything in it.

    Raises:
        ModelError: a part is missing, of the wrong kind or out of range, or the format is newer than ours.
    """
    version = about.get("format") if isinstance(about, dict) else None
    if isinstance(about, dict) and isinstance(version, int) and version > FORMAT:
        msg = f"{path.parent} was made by a newer latentart ({str(about.get('latentart'))[:20]})."
        raise ModelError(msg, "Upgrade latentart.")
    try:
        return Description.model_validate(about)
    except ValidationError as error:
        raise unknown_model(path, fault_of(error)) from None


def read_pretrained(network: object, path: Path, weights: Path) -> DiffusersConfig:
    """Return what the config.json of a folder in diffusers' format describes; nothing is allocated for that.

    Raises:
        ModelError: no autoencoder that can be taken, one that needs more memory than this machine has or the file of
            weights accounts for, or diffusers is not installed.
    """
    try:
        config = DiffusersConfig.model_validate({"network": network})
        needed = bytes_needed(config, None, ())["autoencoder"]
    except (ValidationError, ValueError) as error:
        reason = fault_of(error).removeprefix("network: ") if isinstance(error, ValidationError) else str(error)
        raise ModelError(f"{path} describes no autoencoder that can be taken: {reason[:200]}.") from None
    if needed > (most := weights.stat().st_size * LARGEST_GAIN):
        msg = f"{weights} has {most // LARGEST_GAIN} bytes, which is too little for what {path} describes."
        raise ModelError(msg, "Take the folder from where it was whole.")
    _require_memory(needed, path.parent)
    return config


def require_fitting_files(folder: Path, description: Description) -> None:
    """Refuse networks that need more memory than their files hold, or files that hold more than the networks.

    Nothing is allocated or read for that.

    Raises:
        ModelError: so it is, or a network that cannot be built.
    """
    try:
        needed = bytes_needed(description.autoencoder, description.denoiser, tuple(description.label_counts))
    except (RuntimeError, ValueError, TypeError, OverflowError, MemoryError) as error:
        raise unknown_model(folder / "model.json", error) from None
    for name, size in needed.items():
        path = folder / f"{name}.safetensors"
        if not path.is_file():
            raise ModelError(f"{path} is missing.")
        found = path.stat().st_size
        if not size <= found <= size + HEADER:
            msg = f"{path} has {found} bytes, which is no {name} of {size} bytes as {folder / 'model.json'} describes."
            raise ModelError(msg, "Take the folder from where it was whole.")
    _require_memory(sum(needed.values()), folder)


def _require_memory(needed: int, folder: Path) -> None:
    if (memory := total_bytes()) and needed > memory:
        sizes = f"{needed / 1e9:.0f} GB, this machine has {memory / 1e9:.0f} GB"
        raise ModelError(f"the networks in {folder} take {sizes}.")


# by torch's initializers from without, and by those from within that are not to be met
_DRAWS = (nn.init.normal_, nn.init.uniform_, nn.init.kaiming_uniform_, torch.Tensor.normal_, torch.Tensor.uniform_)


class _Unfilled(TorchFunctionMode):
    """Leaves new layers as they are: on "meta" they have no values, and drawing them would load torch._dynamo."""

    def __torch_function__(
        self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if function in _DRAWS:
            return args[0] if args else kwargs["tensor"]
        return function(*args, **kwargs)


@cache
def bytes_needed(
    autoencoder: AnyAutoencoder, denoiser: DenoiserConfig | None, label_counts: tuple[int, ...]
) -> dict[str, int]:
    """Return the bytes of each network's weights; it is built without any memory.

    Raises:
        ModelError: diffusers has to build it and is not installed.
        ValueError: it cannot be built, or is none that we can use. RuntimeError, TypeError, OverflowError: likewise.
    """
    if isinstance(autoencoder, DiffusersConfig):
        class_of(autoencoder)  # what it imports is for good, and not on "meta"
    with torch.device("meta"), _Unfilled():
        built = build_autoencoder(autoencoder)
        if isinstance(autoencoder, DiffusersConfig):
            _require_contract(built)
        networks: dict[str, nn.Module] = {"autoencoder": built}
        if denoiser is not None:
            networks["denoiser"] = build_denoiser(denoiser, autoencoder.latent_channels, label_counts)
    return {name: sum(t.numel() * t.element_size() for t in n.state_dict().values()) for name, n in networks.items()}


@torch.no_grad()
def _require_contract(autoencoder: Autoencoder) -> None:
    """Refuse an autoencoder of others whose latents or pictures are not of the size that its config says.

    On "meta" that is reckoned alone.

    Raises:
        ValueError: so it is.
    """
    side, channels = 2 * autoencoder.factor, autoencoder.latent_channels
    try:
        moments = autoencoder.encode(torch.empty(1, 3, side, side))
        images = autoencoder.decode(torch.empty(1, channels, 2, 2))
    except Exception as error:  # whatever their layers say of a stranger's sizes
        raise ValueError(f"it does not run: {(str(error).splitlines() or [type(error).__name__])[0]}") from None
    if moments.shape != (1, 2 * channels, 2, 2) or images.shape != (1, 3, side, side):
        msg = f"its latents are {list(moments.shape[1:])}, its pictures {list(images.shape[1:])} for {side} px"
        raise ValueError(msg)


def unknown_model(path: Path, reason: str | Exception) -> ModelError:
    """Return the error of a model.json by which no model can be built."""
    first = (str(reason).splitlines() or [type(reason).__name__])[0]
    return ModelError(f"{path} does not describe a model that this version knows: {first[:200]}.")
