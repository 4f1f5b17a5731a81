"""The settings inside a picture: all that is needed to draw it again, written and read side by side."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from PIL import Image, UnidentifiedImageError
from pydantic import Field

from latentart import __version__
from latentart.core.seeds import seed_from_json, seed_to_json
from latentart.data.pictures.decode import strict_pillow
from latentart.data.pictures.movies import SUFFIXES, read_movie_text
from latentart.errors import DataError, ModelError, UsageError
from latentart.model.folder import Model, weights_hash
from latentart.model.generate import SamplerSettings
from latentart.sampling.blends import Blend
from latentart.sampling.request import (
    LARGEST_SEED,
    MAX_PICTURES,
    Cell,
    Kind,
    OriginRequest,
    SamplePlan,
)
from latentart.storage.checksums import sha256_of
from latentart.storage.json_files import parse_json
from latentart.storage.saved_values import Saved
from latentart.storage.whole import require_file

SETTINGS_KEY = "latentart"
NOT_DESCRIBED = ("batch_size", "compile", "mark", "engine")  # they do not change the picture
INPUTS = {"invert": "the inverted picture", "init_image": "the picture to begin from", "mask": "the mask"}


@dataclass(frozen=True)
class Drawing:
    """A plan, how it is drawn, and the SHA-256 of each weights file it is drawn with."""

    plan: SamplePlan
    settings: SamplerSettings
    hashes: dict[str, str]


def hashes_of(folder: Path, weak: str | None) -> dict[str, str]:
    """Return the SHA-256 of a model's weights files, and of autoguidance's weak network."""
    hashes = {name: weights_hash(folder, name) for name in ("autoencoder", "denoiser")}
    return hashes if weak is None else {**hashes, "weak_denoiser": weak}


def describe(drawing: Drawing, model: Model) -> list[str]:
    """Return the settings that go into each file; what was not asked for is not named.

    Raises:
        DataError: a picture to begin from, or its mask, cannot be read.
    """
    plan, settings = drawing.plan, drawing.settings
    common = {name: value for name, value in asdict(settings).items() if name not in NOT_DESCRIBED}
    if settings.autoguidance is None:
        del common["autoguidance"]
    if model.task is None or settings.noise_limit_for(model.task.target) is None:
        del common["noise_limit"]
    common |= {"latentart": __version__, **drawing.hashes}
    if plan.labels:
        common["labels"] = dict(plan.labels)
    if plan.size != (model.resolution, model.resolution):
        common["size"] = list(plan.size)
    if plan.origin is not None:
        common |= _describe_origin(plan.origin)
    if plan.kind == "separate":
        return [json.dumps({"style": c.style.to_json(), "seed": seed_to_json(c.seed), **common}) for c in plan.cells]
    if plan.is_movie:
        common["movie"] = plan.kind
    about = {"styles": [c.style.to_json() for c in plan.cells], "seeds": [seed_to_json(c.seed) for c in plan.cells]}
    return [json.dumps({**about, "grid": [plan.rows, plan.columns], **common})]


def _describe_origin(origin: OriginRequest) -> dict[str, Any]:
    about: dict[str, Any] = {"invert" if origin.inverts else "init_image": _describe_file(origin.picture)}
    if origin.mask is not None:
        about["mask"] = _describe_file(origin.mask)
    if origin.inverts:
        about["from_style"] = origin.from_style
    return {**about, "strength": origin.strength}


def _describe_file(path: Path) -> dict[str, str]:
    """Return a file's path from the current folder, in its own name where there is none, and its SHA-256."""
    try:
        relative = Path(os.path.relpath(path)).as_posix()
    except ValueError:  # on another drive
        relative = path.name
    return {"file": relative, "sha256": _sha256_of(path)}


def _sha256_of(path: Path) -> str:
    try:
        return sha256_of(path)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}.") from None


def read_text(path: Path) -> str | None:
    """Return the settings inside a picture or movie, None where it holds none or is neither.

    Raises:
        OSError: the file cannot be opened.
    """
    try:
        require_file(path)
        with strict_pillow(None), Image.open(path, formats=["PNG", "GIF", "WEBP", "JPEG"]) as picture:
            text = picture.info.get(SETTINGS_KEY) if picture.format == "PNG" else read_movie_text(picture)
    except (UnidentifiedImageError, SyntaxError, ValueError):
        return None
    return text if isinstance(text, str) else None


class _File(Saved):
    file: str
    sha256: str


_Style = str | Annotated[dict[str, Annotated[float, Field(gt=0)]], Field(min_length=1)]
_Pair = Annotated[list[Annotated[int, Field(ge=1, lt=2**31)]], Field(min_length=2, max_length=2)]


class _Described(Saved):
    """What a picture or movie says of itself beside the sampler's settings; a single one has ``style`` and ``seed``."""

    style: _Style | None = None
    seed: Any = None  # of core.seeds
    styles: list[_Style] = Field(default_factory=list)
    seeds: list[Any] = Field(default_factory=list)
    grid: _Pair = Field(default_factory=lambda: [1, 1])
    movie: Literal["denoising", "walk"] | None = None
    size: _Pair | None = None
    labels: dict[str, str] = Field(default_factory=dict)
    invert: _File | None = None
    init_image: _File | None = None
    mask: _File | None = None
    strength: Annotated[float, Field(ge=0, le=1)] = 1.0
    from_style: str | None = None
    autoencoder: str | None = None
    denoiser: str | None = None
    weak_denoiser: str | None = None


def read_drawing(path: Path, model: Model, settings_in: Callable[[Mapping[str, Any]], SamplerSettings]) -> Drawing:
    """Return what a picture or movie that ``sample`` wrote was drawn from; the older forms too.

    ``settings_in`` checks the sampler's settings among what is inside.

    Raises:
        UsageError: it holds no settings of ours, or a style or label that the model lacks.
        DataError: it cannot be read, or a file that it was drawn from is gone or changed.
    """
    try:
        found = parse_json(read_text(path) or "null")
        about = _Described.model_validate(found)
        settings = settings_in(found)
        plan = _read_plan(path, about, model)
    except OSError as error:
        msg = f"{path} cannot be read: {error.strerror or error}."
        raise DataError(msg, "Name a picture or movie that `latentart sample` wrote.") from None
    except (ValueError, RecursionError):
        msg = f"{path} holds no settings of `latentart sample`."
        hint = "Name a picture or movie as it was written; editors and messengers drop what is inside."
        raise UsageError(msg, hint) from None
    for name in {name for cell in plan.cells for name, _ in cell.style.parts}:
        model.style_id(name)
    for column, value in plan.labels:
        model.label(f"{column}={value}")
    hashes = about.model_dump(include={"autoencoder", "denoiser", "weak_denoiser"}, exclude_none=True)
    return Drawing(plan, settings, hashes)


def read_origin(path: Path) -> OriginRequest | None:
    """Return the picture that a kept one was begun from, None where there is none.

    Raises:
        DataError: it is gone or changed, or the settings cannot be read.
    """
    try:
        return _read_origin(path, _Described.model_validate(parse_json(read_text(path) or "null")))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path} holds no settings that can be read ({error}).") from None


def _read_plan(path: Path, about: _Described, model: Model) -> SamplePlan:
    kind: Kind = about.movie or "grid"
    if about.movie and path.suffix.lower() not in SUFFIXES:
        raise ValueError(f"movie: got settings of one in {path.name}")
    styles, seeds, (rows, columns) = about.styles, about.seeds, about.grid
    if about.style is not None and about.seed is not None:
        kind, styles, seeds, rows, columns = "separate", [about.style], [about.seed], 1, 1
    cells = [
        Cell(Blend.from_json(style), seed_from_json(seed, LARGEST_SEED))
        for style, seed in zip(styles, seeds, strict=True)
    ]
    is_full = len(cells) % rows == 0 and columns == 1 if kind == "walk" else len(cells) == rows * columns
    if not 1 <= len(cells) <= MAX_PICTURES or not is_full:
        raise ValueError(f"cells: got {len(cells)} for {rows}x{columns}")
    width, height = about.size or (model.resolution, model.resolution)
    return SamplePlan(
        cells=tuple(cells),
        rows=rows,
        columns=columns,
        kind=kind,
        size=(width, height),
        labels=tuple(about.labels.items()),
        origin=_read_origin(path, about),
    )


def _read_origin(path: Path, about: _Described) -> OriginRequest | None:
    given = {key: getattr(about, key) for key in INPUTS}
    found = {key: _find_input(path, INPUTS[key], file) for key, file in given.items() if file is not None}
    picture = found.get("invert", found.get("init_image"))
    if picture is None:
        return None
    return OriginRequest(picture, about.strength, found.get("mask"), "invert" in found, about.from_style)


def _find_input(path: Path, what: str, wanted: _File) -> Path:
    """Return a file that a picture was drawn from: where it was, seen from here, else beside the picture.

    Raises:
        DataError: it is gone, or not as it was.
    """
    places = [Path(wanted.file), path.parent / wanted.file, path.parent / Path(wanted.file).name]
    there = [place for place in places if place.is_file()]
    for place in there:
        if _sha256_of(place) == wanted.sha256:
            return place
    if there:
        raise DataError(f"{what} of {path}, {there[0]}, is not what it was.", "Bring back the file it was drawn from.")
    raise DataError(f"{what} of {path}, {wanted.file}, is not here.", f"Put it there, or beside {path}.")


def require_weights(path: Path, drawing: Drawing, folder: Path) -> None:
    """Refuse a model of other weights than a picture was drawn with.

    Raises:
        ModelError: the hash of a weights file differs.
    """
    now = hashes_of(folder, None)
    for name, sha256 in drawing.hashes.items():
        if name in now and now[name] != sha256:
            msg = f"{path} was drawn with another {name} than that of {folder}: {sha256[:12]}…, not {now[name][:12]}…."
            raise ModelError(msg, "Give the folder of that model with --model.")
