"""Where samples go and how they are written; nothing is ever overwritten."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from PIL import Image

from latentart.core.seeds import seed_text
from latentart.data.pictures.grids import GAP, save_png, tile_grid
from latentart.data.pictures.marks import AI_MADE
from latentart.data.pictures.movies import SUFFIXES as MOVIES
from latentart.data.pictures.movies import save_movie
from latentart.data.pictures.stills import LARGEST, MOST_TEXT, save_still
from latentart.data.slug import slug, slugs
from latentart.errors import ResourceError, UsageError
from latentart.model.folder import Model
from latentart.model.generate import SamplerSettings
from latentart.sampling.blends import Blend
from latentart.sampling.request import SamplePlan
from latentart.sampling.settings import SETTINGS_KEY, read_text
from latentart.storage.folders import free_path
from latentart.storage.whole import remove_temporaries, require_place

LONGEST = 120
MOST_LINES = 4  # of a label
MOST_MARGIN, MOST_HEAD = 1000, 40  # pixels for the labels of a grid beside it, above a picture
VIDEOS = (".mp4", ".mov", ".webm", ".gif")
ELSEWHERE = "Name another place with --out or --movie."


def choose_paths(
    samples: Path, plan: SamplePlan, settings: SamplerSettings, model: Model, out: Path | None, suffix: str = ".png"
) -> list[Path]:
    """Return where the pictures go, named after what was asked for."""
    way = f"eta{settings.eta:g}" if settings.sampler == "ddim" else settings.sampler
    is_all = len(plan.styles) > 1 and {style.text for style in plan.styles} == set(model.style_names)
    who = "all" if is_all else "+".join(map(file_name, plan.styles))
    who = who if len(who) <= LONGEST else f"{len(plan.styles)}_styles"
    parts = [who, *(slug(value) for _, value in plan.labels), way]
    if plan.origin is not None:
        parts.append(f"{'of' if plan.origin.inverts else 'from'}_{slug(plan.origin.picture.stem)}")
    parts += ["walk"] * plan.is_walk
    if plan.kind == "separate":
        folder = out or samples / "_".join(parts)
        names = slugs(map(_full_name, plan.styles))  # which keeps apart what is one as a file name
        return [folder / f"{names[_full_name(c.style)]}_seed{seed_text(c.seed, '-')}.png" for c in plan.cells]
    return [out or samples / f"{'_'.join(parts)}_{plan.rows}x{plan.columns}{suffix}"]


def file_name(style: Blend) -> str:
    """Return a safe name of a style or blend, as Cubism-0.6+Ukiyo_e-0.4."""
    if len(style.parts) == 1:
        return slug(style.parts[0][0])
    return "+".join(f"{slug(name)}-{weight:g}" for name, weight in style.parts)


def _full_name(style: Blend) -> str:
    if len(style.parts) == 1:
        return style.parts[0][0]
    return "+".join(f"{name}-{weight:g}" for name, weight in style.parts)


def holds(path: Path, described: str) -> bool:
    """Tell whether a file is a picture or movie that was made with exactly these settings."""
    try:
        return path.is_file() and read_text(path) == described
    except OSError:
        return False


def require_free(path: Path) -> None:
    """Refuse to write over what is there, or where nothing can be written: before anything is drawn.

    Raises:
        UsageError: something has that name.
        ResourceError: its folder cannot be made, or takes no file.
    """
    if os.path.lexists(path):  # a link that leads nowhere is the user's too
        msg = f"{path} exists and was made otherwise; nothing is overwritten."
        raise UsageError(msg, "Name another place with --out or --movie, or move it away.")
    require_place(path, ELSEWHERE)


def remove_unfinished(paths: Sequence[Path]) -> None:
    """Delete what a killed process was writing in place of these files; they lie in one folder."""
    with contextlib.suppress(OSError):  # it is in nobody's way
        remove_temporaries(paths[0].parent, names={path.name for path in paths})


def make_grid(plan: SamplePlan, pictures: list[Image.Image]) -> Image.Image:
    """Return the pictures in a grid; where they differ in style its rows are labelled, or what is beside each other."""
    styles = plan.styles if plan.kind == "walk" else [cell.style for cell in plan.cells]
    if len(plan.styles) == 1 or (plan.kind == "walk" and plan.rows == 1):  # a walk may lead from style to style
        return tile_grid(pictures, plan.rows, plan.columns)
    rows = [styles[i : i + plan.columns] for i in range(0, len(styles), plan.columns)]
    if all(len(set(row)) == 1 for row in rows):
        return tile_grid(pictures, plan.rows, plan.columns, ["\n".join(_lines_of(row[0])) for row in rows])
    captions = [
        " + ".join(_lines_of(style)) if i == 0 or row[i - 1] != style else ""
        for row in rows
        for i, style in enumerate(row)
    ]
    return tile_grid(pictures, plan.rows, plan.columns, captions=captions)


def _lines_of(style: Blend) -> list[str]:
    """Return what a grid says of a style: its name, or the parts of a blend, of many the first."""
    if len(style.parts) == 1:
        return [style.parts[0][0]]
    lines = [f"{weight:.3g} {name}" for name, weight in style.parts]
    return lines if len(lines) <= MOST_LINES else [*lines[: MOST_LINES - 1], f"and {len(lines) - MOST_LINES + 1} more"]


def require_ending(path: Path, plan: SamplePlan, described: str) -> None:
    """Refuse a file of a kind that is not written, or that does not hold so much: before anything is drawn.

    Raises:
        UsageError: so it is.
    """
    suffix = path.suffix.lower()
    if plan.is_movie:
        if suffix not in MOVIES:
            raise UsageError(f"--out {path} is neither GIF nor WebP.", f"Name the movie as {path.stem}.webp.")
        return
    if suffix not in LARGEST:
        msg = f"--out {path} ends in none of {', '.join(LARGEST)}."
        hint = "A movie is asked for with --movie, as .gif or .webp." if suffix in VIDEOS else ""
        raise UsageError(msg, hint or f"Name the grid as {path.stem}.png.")
    rows, columns = plan.rows * (plan.size[1] + MOST_HEAD), plan.columns * (plan.size[0] + GAP) + MOST_MARGIN
    if max(rows, columns) > LARGEST[suffix] or (suffix in (".jpg", ".jpeg") and len(described) > MOST_TEXT):
        raise UsageError(f"a {suffix} does not hold so large a grid.", f"Name it as {path.stem}.png.")


def save_pictures(pictures: list[Image.Image], paths: list[Path], described: list[str], *, mark: bool = True) -> None:
    """Write a grid, or single pictures, each with its settings, and with ``mark`` that a trained network made it.

    Raises:
        ResourceError: a file cannot be written; the message names the place where it lies instead, if any takes it.
    """
    for picture, path, text in zip(pictures, paths, described, strict=True):
        xmp = AI_MADE if mark else ""
        is_png = path.suffix.lower() == ".png"
        write = partial(save_png, settings={SETTINGS_KEY: text}) if is_png else partial(save_still, text=text)
        _save(path, partial(write, picture, xmp=xmp))


def save_frames(frames: list[Image.Image], path: Path, described: str, *, mark: bool = True) -> None:
    """Write a movie with its settings, and with ``mark`` that a trained network made it.

    Raises:
        ResourceError: the file cannot be written; the message names the place where it lies instead, if any takes it.
    """
    _save(path, lambda place: save_movie(frames, place, described, xmp=AI_MADE if mark else ""))


def _save(path: Path, write: Callable[[Path], None]) -> None:
    """Write a file, else beside the work or among the system's temporary files: what is drawn is not lost."""
    try:
        write(path)
    except OSError as error:
        msg = f"{path} cannot be written: {error.strerror or error}."
        for folder in (Path(), Path(tempfile.gettempdir())):
            kept = free_path(folder / path.name)
            with contextlib.suppress(OSError):
                write(kept)
                raise ResourceError(msg, f"What was drawn lies at {kept.absolute()}.") from None
        raise ResourceError(msg, ELSEWHERE) from None
