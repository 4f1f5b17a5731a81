"""What a browser may ask for, as values of known kinds; and the same as a command line."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, Field, ValidationError, field_validator

from latentart.core.seeds import LARGEST_WALKED, Seed, seed_from_json, seed_text
from latentart.data.index import MAX_NAME
from latentart.errors import UsageError
from latentart.kinds import Sampler
from latentart.storage.json_files import parse_json
from latentart.storage.saved_values import Saved, fault_of

MOST_SEEDS = 16  # at once


def _is_short(name: str) -> str:
    if len(name) > MAX_NAME:  # pydantic cannot count what is no Unicode
        raise ValueError("it should be a name")
    return name


Weight = Annotated[float, Field(gt=0, le=1000)]
Name = Annotated[str, AfterValidator(_is_short)]
Side = Annotated[int, Field(ge=1, le=8192)]
Id = Annotated[str, Field(pattern=r"^[0-9a-f]{16}$")]
Share = Annotated[float, Field(ge=0, le=1)]


class Asked(Saved):
    """Pictures of one blend and one way of drawing, one for each seed.

    Attributes:
        window: tells one browser window's wishes from another's; a new one replaces the last of the same lane.
        frames: of the denoising, that are shown on the way.
        picture, mask: uploads that drawing begins from; ``restyle`` inverts the picture, as ``from_style``.
    """

    window: Annotated[str, Field(pattern=r"^[0-9a-z-]{1,40}$")]
    styles: Annotated[dict[Name, Weight], Field(min_length=1, max_length=1000)]
    seeds: Annotated[list[Any], Field(min_length=1, max_length=MOST_SEEDS)]
    steps: Annotated[int, Field(ge=1, le=4000)]
    sampler: Sampler
    guidance: Annotated[float, Field(ge=0, le=100)]
    eta: Share = 0.0
    width: Side | None = None
    height: Side | None = None
    labels: Annotated[dict[Name, Name], Field(max_length=100)] = Field(default_factory=dict)
    frames: Annotated[int, Field(ge=0, le=30)] = 0
    picture: Id | None = None
    mask: Id | None = None
    strength: Share = 0.6
    restyle: bool = False
    from_style: Name | None = None

    @field_validator("seeds")
    @classmethod
    def _are_seeds(cls, seeds: list[Any]) -> list[Any]:
        for seed in seeds:
            seed_from_json(seed, LARGEST_WALKED)
        return seeds

    @property
    def places(self) -> list[Seed]:
        """The seeds as they are drawn."""
        return [seed_from_json(seed, LARGEST_WALKED) for seed in self.seeds]


class AskedWalk(Saved):
    """A movie of the way from one kept picture to another."""

    window: Annotated[str, Field(pattern=r"^[0-9a-z-]{1,40}$")]
    start: Id
    end: Id
    frames: Annotated[int, Field(ge=3, le=96)] = 24


Kind = TypeVar("Kind", bound=Saved)


def read_asked(kind: type[Kind], body: bytes) -> Kind:
    """Return what a request's body asks for.

    Raises:
        UsageError: it is something else.
    """
    try:
        return kind.model_validate(parse_json(body.decode("utf-8")))
    except ValidationError as error:
        raise UsageError(f"The page asked for something that cannot be: {fault_of(error)}.") from None
    except (ValueError, RecursionError):
        raise UsageError("The page asked for something that cannot be read.") from None


def command_of(
    asked: Asked, size: tuple[int, int] | None, model: Path | None, origin: Path | None, mask: Path | None
) -> str:
    """Return the command line that draws the first of the pictures; ``origin`` is the picture that it begins from.

    ``size`` and ``model`` are named where they are not the usual ones.
    """
    parts = asked.styles.items()
    blend = "+".join(name if len(parts) == 1 else f"{name}:{weight:.17g}" for name, weight in parts)
    words = ["latentart", "sample", "--style", blend]
    for column, value in asked.labels.items():
        words += ["--label", f"{column}={value}"]
    if origin is not None and asked.restyle:
        words += ["--invert", str(origin)]
        words += ["--from-style", asked.from_style] if asked.from_style else []
    else:
        words += ["--seed", seed_text(asked.places[0]), "--count", "1"]
        words += ["--init-image", str(origin)] if origin is not None else []
        words += ["--mask", str(mask)] if mask is not None else []
    words += ["--strength", f"{asked.strength:g}"] if origin is not None else []
    words += ["--steps", str(asked.steps), "--sampler", asked.sampler, "--guidance", f"{asked.guidance:g}"]
    words += ["--eta", f"{asked.eta:g}"] if asked.sampler == "ddim" else []
    words += ["--size", f"{size[0]}x{size[1]}"] if size is not None else []
    words += ["--separate"]
    words += ["--model", str(model)] if model is not None else []
    return " ".join(map(shlex.quote, words))
