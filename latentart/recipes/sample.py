"""`latentart sample`: styles × seeds → a grid or single pictures, each with its settings inside.

Launch: ``latentart sample --style High_Renaissance --eta 0.8 --grid 4x4``.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from PIL import Image

from latentart import __version__
from latentart.config.sample import SampleConfig
from latentart.data.datasets import picture_from
from latentart.data.grids import save_png, tile_grid
from latentart.data.slug import slug, slugs
from latentart.errors import ResourceError, UsageError
from latentart.recipes.generate import Generator, SamplerSettings
from latentart.recipes.model import Model, load_model, require_denoiser, weights_hash
from latentart.training.devices import Placement
from latentart.training.progress import Progress

SETTINGS_KEY = "latentart"
DEFAULT_COLUMNS = 4


@dataclass(frozen=True)
class SampleRequest:
    """What to draw.

    Attributes:
        styles: as the user wrote them; ``all`` stands for every style.
        grid: (rows, columns); None takes one row per style.
        count: pictures per style where there is no grid.
        separate: single pictures in a folder, in place of a grid.
        out: the grid's file or, with ``separate``, the folder; None names it after the settings.
    """

    styles: tuple[str, ...]
    grid: tuple[int, int] | None = None
    count: int | None = None
    seed: int = 0
    separate: bool = False
    out: Path | None = None


@dataclass(frozen=True)
class SampleResult:
    """The files, whether this call made any of them, and the first seed that none of them used."""

    paths: list[Path]
    is_new: bool
    next_seed: int


def settings_from(config: SampleConfig, changes: dict[str, Any]) -> SamplerSettings:
    """Return the config's sampling settings with the options that were given on top."""
    settings = SamplerSettings(
        config.sampler,
        config.steps,
        config.spacing,
        config.eta,
        config.guidance,
        config.guidance_interval,
        config.guidance_rescale,
        config.x0_limit,
        config.batch_size,
    )
    return replace(settings, **{name: value for name, value in changes.items() if value is not None})


def sample_pictures(
    model_folder: Path,
    samples: Path,
    request: SampleRequest,
    settings: SamplerSettings,
    placement: Placement,
    *,
    quiet: bool = False,
) -> SampleResult:
    """Draw what is asked for; what was drawn before with the same settings is left as it is.

    Raises:
        ModelError: there is no model, or it has no denoiser.
        UsageError: an unknown style, more steps than the model's, or a file in the way.
    """
    model = load_model(model_folder, placement)
    denoiser, task = require_denoiser(model, model_folder)
    if not 1 <= settings.steps <= task.schedule.num_steps:
        msg = f"--steps {settings.steps} is not within 1 to {task.schedule.num_steps}, the model's own steps."
        raise UsageError(msg)
    cells = choose_cells(model, request)
    described = describe(model, model_folder, cells, request, settings)
    paths = choose_paths(samples, cells, request, settings, model)
    if request.out is None:
        paths = [free_path(path, text) for path, text in zip(paths, described, strict=True)]
    next_seed = 1 + max(cell.seed for cell in cells)
    missing = [i for i, path in enumerate(paths) if not holds(path, described[i])]
    if not missing:
        return SampleResult(paths, is_new=False, next_seed=next_seed)
    for i in missing:
        require_free(paths[i])
    if request.separate:  # those that are there were begun by an earlier call
        cells = [cells[i] for i in missing]
    generator = Generator(model.autoencoder, denoiser, model.normalizer, task, placement, model.resolution)
    with Progress("sample", len(cells), quiet=quiet) as progress:
        pixels = generator([c.style_id for c in cells], [c.seed for c in cells], settings, progress.update)
    pictures = [picture_from(p) for p in pixels]
    save_all(pictures, [paths[i] for i in missing], [described[i] for i in missing], cells, request, model)
    return SampleResult(paths, is_new=True, next_seed=next_seed)


@dataclass(frozen=True)
class Cell:
    """One picture: a style and a seed."""

    style_id: int
    seed: int


def choose_cells(model: Model, request: SampleRequest) -> list[Cell]:
    """Return the pictures to draw, row by row; every style starts again at the first seed."""
    names = model.style_names if "all" in request.styles else list(dict.fromkeys(request.styles))
    style_ids = list(dict.fromkeys(model.style_id(name) for name in names))
    if request.grid is None:
        columns = request.count or DEFAULT_COLUMNS
        return [Cell(style, request.seed + i) for style in style_ids for i in range(columns)]
    total = request.grid[0] * request.grid[1]
    if total < len(style_ids):
        msg = f"a grid of {request.grid[0]}x{request.grid[1]} has no room for {len(style_ids)} styles."
        raise UsageError(msg, "Give a larger --grid, or leave it out for one row per style.")
    shares = [i * len(style_ids) // total for i in range(total)]
    return [Cell(style_ids[k], request.seed + i - shares.index(k)) for i, k in enumerate(shares)]


def shape_of(cells: Sequence[Cell], request: SampleRequest) -> tuple[int, int]:
    """Return the grid's (rows, columns)."""
    if request.grid is not None:
        return request.grid
    columns = request.count or DEFAULT_COLUMNS
    return len(cells) // columns, columns


def describe(
    model: Model, folder: Path, cells: Sequence[Cell], request: SampleRequest, settings: SamplerSettings
) -> list[str]:
    """Return the settings that go into each file: all that is needed to make it again."""
    common = {name: value for name, value in asdict(settings).items() if name != "batch_size"}
    common |= {
        "latentart": __version__,
        "autoencoder": weights_hash(folder, "autoencoder"),
        "denoiser": weights_hash(folder, "denoiser"),
    }
    names = model.style_names
    if request.separate:
        return [json.dumps({"style": names[c.style_id], "seed": c.seed, **common}) for c in cells]
    rows, columns = shape_of(cells, request)
    about = {"styles": [names[c.style_id] for c in cells], "seeds": [c.seed for c in cells], "grid": [rows, columns]}
    return [json.dumps({**about, **common})]


def choose_paths(
    samples: Path, cells: Sequence[Cell], request: SampleRequest, settings: SamplerSettings, model: Model
) -> list[Path]:
    """Return where the pictures go, named after what was asked for."""
    way = f"eta{settings.eta:g}" if settings.sampler == "ddim" else settings.sampler
    names = list(dict.fromkeys(model.style_names[c.style_id] for c in cells))
    who = "all" if len(names) == len(model.style_names) > 1 else "+".join(slug(name) for name in names)
    who = who if len(who) <= 120 else f"{len(names)}_styles"
    if request.separate:
        folder = request.out or samples / f"{who}_{way}"
        return [folder / f"{slugs(names)[model.style_names[c.style_id]]}_seed{c.seed}.png" for c in cells]
    rows, columns = shape_of(cells, request)
    return [request.out or samples / f"{who}_{way}_{rows}x{columns}.png"]


def holds(path: Path, described: str) -> bool:
    """Tell whether a file is a picture that was made with exactly these settings."""
    if not path.is_file():
        return False
    try:
        with Image.open(path, formats=["PNG"]) as picture:
            return bool(picture.info.get(SETTINGS_KEY) == described)
    except (OSError, SyntaxError, ValueError):
        return False


def free_path(path: Path, described: str) -> Path:
    """Return ``path``, or with a number added where another picture has that name."""
    number, candidate = 1, path
    while candidate.exists() and not holds(candidate, described):
        number += 1
        candidate = path.with_stem(f"{path.stem}_{number}")
    return candidate


def require_free(path: Path) -> None:
    """Refuse to write over what is there.

    Raises:
        UsageError: something has that name.
    """
    if path.exists():
        msg = f"{path} exists and was made otherwise; nothing is overwritten."
        raise UsageError(msg, "Name another place with --out, or move it away.")


def save_all(
    pictures: list[Image.Image],
    paths: list[Path],
    described: list[str],
    cells: Sequence[Cell],
    request: SampleRequest,
    model: Model,
) -> None:
    """Write the grid or the single pictures.

    Raises:
        ResourceError: a file cannot be written.
    """
    if not request.separate:
        rows, columns = shape_of(cells, request)
        row_styles = [{c.style_id for c in cells[i * columns : (i + 1) * columns]} for i in range(rows)]
        is_labeled = len({c.style_id for c in cells}) > 1 and all(len(styles) == 1 for styles in row_styles)
        labels = [model.style_names[styles.pop()] for styles in row_styles] if is_labeled else []
        pictures = [tile_grid(pictures, rows, columns, labels)]
    try:
        for picture, path, text in zip(pictures, paths, described, strict=True):
            save_png(picture, path, {SETTINGS_KEY: text})
    except OSError as error:
        msg = f"{error.filename or paths[0]} cannot be written: {error.strerror or error}."
        raise ResourceError(msg, "Name another place with --out.") from None
