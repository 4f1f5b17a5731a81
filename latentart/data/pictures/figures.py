"""Figures as files: SVG or PNG by the name's ending, whole or not at all, never over what is there."""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from latentart.errors import ResourceError, UsageError
from latentart.storage.folders import free_path
from latentart.storage.whole import require_place

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FORMATS = (".svg", ".png")
_STYLE: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "latentart",  # the same figure is the same file
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.3,
}


def choose_path(default: Path, out: Path | None) -> Path:
    """Return where a figure goes: ``out``, which must be free, else ``default``, with a number where that is taken.

    Raises:
        UsageError: ``out`` exists, or is no name of an SVG or PNG.
        ResourceError: it cannot be written.
    """
    if out is None:
        path = free_path(default)
        require_place(path)
        return path
    if out.suffix.lower() not in FORMATS:
        msg = f"--out: '{out.name}' is no name of a figure."
        raise UsageError(msg, "Let it end in .svg or .png.")
    if os.path.lexists(out):
        raise _taken(out)
    require_place(out)
    return out


def _taken(path: Path) -> UsageError:
    return UsageError(f"{path} exists; nothing is overwritten.", "Name another file with --out, or move it away.")


@contextlib.contextmanager
def new_figure(width: float, height: float) -> Iterator[Figure]:
    """Yield an empty matplotlib figure of that size in inches; what is drawn inside has our style."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    with rc_context(_STYLE):
        yield Figure(figsize=(width, height), dpi=120, layout="constrained")


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure as its path's ending says; within ``new_figure``, whose style the writing needs too.

    Raises:
        UsageError: something has taken that name since it was chosen.
        ResourceError: the file cannot be written.
    """
    kind = path.suffix.lower().removeprefix(".")
    metadata = {"Date": None, "Creator": None} if kind == "svg" else {"Software": None}
    content = io.BytesIO()
    figure.savefig(content, format=kind, metadata=metadata)
    is_begun = False
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("xb") as file:
            is_begun = True
            file.write(content.getbuffer())
    except OSError as error:
        if is_begun:
            path.unlink()
        elif isinstance(error, FileExistsError) and os.path.lexists(path):
            raise _taken(path) from None
        msg = f"{path} cannot be written: {error.strerror or error}."
        raise ResourceError(msg, "Name another place with --out.") from None
