"""Charts as SVG text, for pages and files; drawn by matplotlib, which no display needs."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

MAX_POINTS = 1000  # of one line: more than a screen shows


@dataclass(frozen=True)
class Line:
    """One line of a chart; None in ``y`` is a gap."""

    name: str
    x: Sequence[float]
    y: Sequence[float | None]
    is_faint: bool = False


def draw_chart(
    lines: Sequence[Line],
    *,
    title: str = "",
    x_label: str = "",
    y_label: str = "",
    x_scale: Literal["linear", "log"] = "linear",
    y_scale: Literal["linear", "log"] = "linear",
    marks: Mapping[str, float] | None = None,
    size: tuple[float, float] = (7.0, 3.2),
) -> str:
    """Return a line chart as an ``<svg>`` element that names nothing outside itself.

    A line of more than 1,000 points is drawn through the least and the greatest of each bucket of neighbors, so that
    no spike is lost. On a logarithmic scale values of 0 and below are gaps. ``marks`` are the names of vertical lines
    and where they stand, ``size`` is in inches.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    settings = {"svg.fonttype": "none", "svg.hashsalt": "latentart", "font.size": 9, "axes.spines.top": False}
    with rc_context(settings | {"axes.spines.right": False, "axes.grid": True, "grid.alpha": 0.3}):
        figure = Figure(figsize=size, layout="constrained")
        axes = figure.subplots()
        for line in lines:
            x, y = thin_out(line.x, line.y)
            axes.plot(x, y, label=line.name, linewidth=1.3, alpha=0.35 if line.is_faint else 1.0)
        for name, place in (marks or {}).items():
            axes.axvline(place, color="0.4", linewidth=1, linestyle="--")
            axes.annotate(name, (place, 1.0), xycoords=("data", "axes fraction"), fontsize=8, ha="left", va="top")
        axes.set(title=title, xlabel=x_label, ylabel=y_label, xscale=x_scale, yscale=y_scale)
        if any(line.name for line in lines):
            axes.legend(frameon=False, fontsize=8)
        return to_svg(figure)


def thin_out(x: Sequence[float], y: Sequence[float | None]) -> tuple[list[float], list[float]]:
    """Return at most 1,000 points of a line: of each bucket of neighbors the least and the greatest; NaN for None."""
    values = [math.nan if value is None else float(value) for value in y]
    size = -(-len(values) // (MAX_POINTS // 2))
    if len(values) <= MAX_POINTS:
        return list(x), values
    chosen: list[int] = []
    for start in range(0, len(values), size):
        bucket = [i for i in range(start, min(start + size, len(values))) if math.isfinite(values[i])]
        if bucket:
            chosen += sorted({min(bucket, key=values.__getitem__), max(bucket, key=values.__getitem__)})
        else:
            chosen.append(start)
    return [x[i] for i in chosen], [values[i] for i in chosen]


def to_svg(figure: object) -> str:
    """Return a matplotlib figure as an ``<svg>`` element without the file's head, the same every time."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})  # type: ignore[attr-defined]
    return re.sub(r"^.*?(?=<svg)", "", buffer.getvalue(), count=1, flags=re.DOTALL)
