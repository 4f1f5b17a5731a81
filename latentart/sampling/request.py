"""What `sample` is asked for, and the plan that comes of it: which pictures, in which order, how large."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

from latentart.core.seeds import LARGEST_FIRST, LARGEST_WALKED, Between, Seed, first_after, is_between, later_seed
from latentart.data.pictures.decode import MAX_PIXELS
from latentart.errors import UsageError
from latentart.model.folder import Model
from latentart.sampling.blends import Blend, parse_blend

DEFAULT_COLUMNS = 4
MAX_PICTURES = 64 * 64
MAX_ASPECT = 16  # long side over short side of what takes its shape from a picture: longer is no picture but a mistake
LARGEST_SEED = LARGEST_FIRST + MAX_PICTURES  # of a picture

Kind = Literal["grid", "separate", "denoising", "walk"]


@dataclass(frozen=True)
class OriginRequest:
    """The picture to begin from: ``strength`` as in ``model.generate.Origin``; ``inverts`` walks its own way back up.

    Attributes:
        mask: a picture that is white where it is painted anew.
        from_style: the style it is inverted as; None says nothing of it.
    """

    picture: Path
    strength: float = 1.0
    mask: Path | None = None
    inverts: bool = False
    from_style: str | None = None


@dataclass(frozen=True, kw_only=True)
class SampleRequest:
    """What to draw.

    Attributes:
        styles: as the user wrote them, blends too; ``all`` stands for every style.
        grid: (rows, columns); None takes one row per style.
        count: pictures per style where there is no grid; of a walk, seeds.
        separate: single pictures in a folder, in place of a grid.
        out: the grid's file or, with ``separate``, the folder; None names it after the settings.
        labels: as the user wrote them, ``column=value``.
        size: (width, height) in pixels; None is the model's own.
        walk: pictures on the way from each seed to the next.
        movie: a GIF or WebP to be made in place of the grid.
    """

    styles: tuple[str, ...]
    grid: tuple[int, int] | None = None
    count: int | None = None
    seed: Seed = 0
    separate: bool = False
    out: Path | None = None
    labels: tuple[str, ...] = ()
    size: tuple[int, int] | None = None
    walk: int | None = None
    movie: Path | None = None
    origin: OriginRequest | None = None


@dataclass(frozen=True)
class Cell:
    """One picture: a style or blend, and a seed."""

    style: Blend
    seed: Seed


@dataclass(frozen=True, kw_only=True)
class SamplePlan:
    """What will be drawn: the pictures row by row, or, for the movie of a walk, one style's after the other's.

    Attributes:
        labels: (column, value) pairs that hold for all.
        size: (width, height) in pixels.
    """

    cells: tuple[Cell, ...]
    rows: int
    columns: int
    kind: Kind
    size: tuple[int, int]
    labels: tuple[tuple[str, str], ...] = ()
    origin: OriginRequest | None = None

    @cached_property
    def styles(self) -> list[Blend]:
        """The different styles in their order."""
        return list(dict.fromkeys(cell.style for cell in self.cells))

    @property
    def is_movie(self) -> bool:
        """Whether it is a movie and not a picture."""
        return self.kind in ("denoising", "walk")

    @property
    def is_walk(self) -> bool:
        """Whether there are pictures between seeds."""
        return len(self.cells) > 1 and any(is_between(cell.seed) for cell in self.cells)

    @property
    def next_seed(self) -> int:
        """The first seed that none of the pictures uses."""
        return max(first_after(cell.seed) for cell in self.cells)


def make_plan(model: Model, request: SampleRequest, unit: int, picture_size: tuple[int, int] | None) -> SamplePlan:
    """Return the plan of a request; ``unit`` is what the sides of a picture must be multiples of.

    ``picture_size`` is the (width, height) of the picture to begin from, whose shape is kept where no size is given.

    Raises:
        UsageError: an unknown style or label, a grid without room, too many pictures, or a size that does not divide.
    """
    size = choose_size(model, request.size, unit, picture_size)
    labels = dict(model.label(text) for text in request.labels)
    names = model.style_names if "all" in request.styles and "all" not in model.style_names else request.styles
    styles = list(dict.fromkeys(parse_blend(model, name) for name in names))
    kind: Kind = "separate" if request.separate else "denoising" if request.movie is not None else "grid"
    refuse_many(styles, request)
    if request.walk is not None:
        kind = "walk" if request.movie is not None else kind
        cells, columns = walk_cells(styles, request, is_movie=kind == "walk")
    else:
        cells, columns = choose_cells(styles, request)
    rows = len(styles) if kind == "walk" else len(cells) // columns
    return SamplePlan(
        cells=tuple(cells),
        rows=rows,
        columns=1 if kind == "walk" else columns,
        kind=kind,
        size=size,
        labels=tuple(labels.items()),
        origin=request.origin,
    )


def refuse_many(styles: list[Blend], request: SampleRequest) -> None:
    """Refuse more pictures than ``MAX_PICTURES`` before there is a list of them.

    Raises:
        UsageError: so it is, or a seed is too large.
    """
    if not isinstance(request.seed, Between) and request.seed >= LARGEST_FIRST:
        raise UsageError(f"--seed {str(request.seed)[:30]} is too large.", "Seeds are less than 2 to the power of 63.")
    if request.origin is not None and request.origin.inverts:
        count = len(styles)
    elif request.walk is not None:
        legs = max(1, (request.count or 2) - 1)
        count = len(styles) * (legs * request.walk + (1 if request.movie is not None else 0))
    elif request.grid is not None:
        count = request.grid[0] * request.grid[1]
    else:
        count = len(styles) * (request.count or DEFAULT_COLUMNS)
    if count > MAX_PICTURES:
        msg = f"that would be {count} pictures, and {MAX_PICTURES} are the most."
        raise UsageError(msg, "Ask for fewer at a time; the next have the next seeds.")


def choose_cells(styles: list[Blend], request: SampleRequest) -> tuple[list[Cell], int]:
    """Return the pictures to draw, row by row, and the columns; every style starts again at the first seed."""
    if request.origin is not None and request.origin.inverts:  # the picture takes the place of the seed
        return [Cell(style, 0) for style in styles], 1
    if request.grid is None:
        columns = request.count or DEFAULT_COLUMNS
        return [Cell(style, later_seed(request.seed, i)) for style in styles for i in range(columns)], columns
    rows, columns = request.grid
    if rows * columns < len(styles):
        msg = f"a grid of {rows}x{columns} has no room for {len(styles)} styles."
        raise UsageError(msg, "Give a larger --grid, or leave it out for one row per style.")
    shares: list[int] = []  # which style each picture has; where a style ends its row ends, if there are rows enough
    for row in range(rows):
        first, end = (place * len(styles) // rows for place in (row, row + 1))
        shares += [first + column * max(1, end - first) // columns for column in range(columns)]
    return [Cell(styles[k], later_seed(request.seed, i - shares.index(k))) for i, k in enumerate(shares)], columns


def walk_cells(styles: list[Blend], request: SampleRequest, *, is_movie: bool) -> tuple[list[Cell], int]:
    """Return the pictures of walks, and the columns: a row for each leg with both of its ends, a movie without repeats.

    Raises:
        UsageError: there are not two pictures or two seeds to walk between, or a seed is too large for it.
    """
    steps, seeds = request.walk or 0, request.count or 2
    if steps < 2 or seeds < 2:
        msg = f"--walk {steps} over {seeds} seeds leads nowhere."
        raise UsageError(msg, "Give at least 2 pictures a leg, and at least --count 2 seeds.")
    first = request.seed
    if not isinstance(first, int):
        msg = "--walk goes from one whole seed to the next."
        raise UsageError(msg, "Give a --seed without what follows its point or colon.")
    if first + seeds > LARGEST_WALKED:
        msg = f"--seed {first} is too large to walk from."
        raise UsageError(msg, f"Seeds up to {LARGEST_WALKED - seeds} will do.")
    last = first + seeds - 1
    if is_movie:
        way = [leg + (i / steps if i else 0) for leg in range(first, last) for i in range(steps)] + [last]
    else:
        inner = range(1, steps - 1)
        way = [seed for leg in range(first, last) for seed in (leg, *(leg + i / (steps - 1) for i in inner), leg + 1)]
    return [Cell(style, seed) for style in styles for seed in way], steps


def choose_size(
    model: Model, asked: tuple[int, int] | None, unit: int, picture_size: tuple[int, int] | None
) -> tuple[int, int]:
    """Return (width, height) in pixels: as asked, else of the picture to begin from, else the model's own.

    Raises:
        UsageError: a side is no multiple of ``unit``, there are too many pixels, or the picture is too long to follow.
    """
    if asked is None and picture_size is None:
        asked = model.resolution, model.resolution
    elif asked is None:
        assert picture_size is not None
        if max(picture_size) > MAX_ASPECT * min(picture_size):
            shape = f"{picture_size[0]}x{picture_size[1]}"
            msg = f"the picture to begin from has {shape} pixels, too long for its shape to be kept."
            raise UsageError(msg, f"Give the size to draw, as --size {model.resolution}x{model.resolution}.")
        scale = model.resolution / min(picture_size)
        asked = tuple(max(unit, int(side * scale + 1e-6) // unit * unit) for side in picture_size)  # type: ignore[assignment]
        assert asked is not None
    elif asked[0] % unit or asked[1] % unit or not min(asked):
        below = "x".join(str(max(unit, side // unit * unit)) for side in asked)
        above = "x".join(str(max(unit, -(-side // unit) * unit)) for side in asked)
        msg = f"--size {asked[0]}x{asked[1]}: this model draws multiples of {unit} pixels."
        raise UsageError(msg, f"Nearest: {below} or {above}." if below != above else f"Nearest: {below}.")
    if asked[0] * asked[1] > MAX_PIXELS:
        msg = f"pictures of {asked[0]}x{asked[1]} would have more than {MAX_PIXELS} pixels, the most that are made."
        raise UsageError(msg, "Give a smaller --size.")
    return asked
