"""Charts as SVG text, for pages and files; drawn by matplotlib, which no display needs."""

from __future__ import annotations

import html
import io
import math
import re
import warnings
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from latentart.printable import printable

MAX_POINTS = 1000  # of one line: more than a screen shows
MAX_NAME = 60
MAX_ABOVE = 4  # names in a row above the lines
LETTER = 0.065  # inches, of one of a legend's letters
_INK = "#010203"  # replaced by the color of the text around the chart, so that it suits a dark page


@dataclass(frozen=True)
class Line:
    """One line of a chart; None in ``y`` is a gap. Without a name it is left out of the legend; a faint one is gray."""

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
    alt: str = "",
    is_graded: bool = False,
) -> str:
    """Return a line chart as an ``<svg>`` element that names nothing outside itself and has no ground of its own.

    A line of more than 1,000 points is drawn through the least and the greatest of each bucket of neighbors, so that
    no spike is lost. On a logarithmic scale values of 0 and below are gaps. ``marks`` are the names of vertical lines
    and where they stand, ``size`` is in inches, ``alt`` says in words what is to be seen, by default the title. With
    ``is_graded`` the lines are steps of one thing, and so are their colors. Names are taken as they stand.
    """
    from matplotlib import colormaps, rc_context
    from matplotlib.figure import Figure

    with rc_context(_settings()):
        figure = Figure(figsize=size)
        axes = figure.subplots()
        if is_graded:
            shades = [i / max(len(lines) - 1, 1) for i in range(len(lines))]
            axes.set_prop_cycle(color=[colormaps["cool"](shade) for shade in shades])
        for line in lines:
            x, y = thin_out(line.x, line.y)
            if y_scale == "log":
                y = [value if value > 0 else math.nan for value in y]
            alone = sum(map(math.isfinite, y)) == 1
            look: dict[str, Any] = {"color": _INK, "alpha": 0.25, "linewidth": 0.7} if line.is_faint else {}
            axes.plot(x, y, label=_name(line.name) or "_", marker="o" if alone else None, **look)
        for name, place in (marks or {}).items():
            axes.axvline(place, color=_INK, alpha=0.5, linewidth=1, linestyle="--")
            where = (place, 1.0)
            style: dict[str, Any] = {"fontsize": 8, "rotation": 90, "ha": "left", "va": "top", "parse_math": False}
            axes.annotate(_name(name), where, xycoords=("data", "axes fraction"), **style)
        axes.set(xscale=x_scale, yscale=y_scale)
        for axis in [axes.xaxis] * (x_scale == "log") + [axes.yaxis] * (y_scale == "log"):
            _label_logarithms(axis)
        names = [_name(line.name) for line in lines if line.name]
        axes.set_title(printable(title), parse_math=False, pad=22 if 0 < len(names) <= MAX_ABOVE else 6)
        axes.set_xlabel(printable(x_label), parse_math=False)
        axes.set_ylabel(printable(y_label), parse_math=False)
        if y_scale == "linear":
            axes.yaxis.set_major_formatter("{x:g}")
        _arrange(figure, names, has_title=bool(title), has_y_label=bool(y_label))
        return to_svg(figure, alt or title)


def _label_logarithms(axis: Any) -> None:
    """Write plain numbers at 1, 2 and 5 of every decade, or at fewer; matplotlib's powers of ten take long to draw."""
    from matplotlib.ticker import LogLocator, NullFormatter

    axis.set_major_locator(LogLocator(subs=(1, 2, 5), numticks=12))
    axis.set_major_formatter("{x:g}")
    axis.set_minor_formatter(NullFormatter())


def _arrange(figure: Any, names: Sequence[str], *, has_title: bool, has_y_label: bool) -> None:
    """Give the axes what room is left beside numbers and names; matplotlib's own layout takes as long as the drawing.

    Few names stand above the lines, many on the right, where they hide none.
    """
    width, height = figure.get_size_inches()
    is_beside = len(names) > MAX_ABOVE
    column = 0.45 + LETTER * max(map(len, names), default=0) if is_beside else 0.0
    top = height - 0.08 - 0.25 * has_title - 0.22 * (bool(names) and not is_beside)
    figure.subplots_adjust(
        left=min(0.4, (0.62 + 0.2 * has_y_label) / width),
        right=max(0.5, (width - 0.12 - column) / width),
        bottom=min(0.4, 0.45 / height),
        top=max(0.6, top / height),
    )
    if names:
        box = figure.subplotpars
        corner = (box.right, box.top) if is_beside else (box.left, box.top)
        place, columns = ("upper left", 1) if is_beside else ("lower left", len(names))
        look: dict[str, Any] = {"frameon": False, "fontsize": 8, "borderaxespad": 0.2, "columnspacing": 1.2}
        legend = figure.legend(loc=place, bbox_to_anchor=corner, ncols=columns, **look)
        for text in legend.get_texts():
            text.set_parse_math(False)


def _settings() -> Any:
    """Return the look of charts; text stays text."""
    ink = ("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color")
    return {
        "svg.fonttype": "none",
        "svg.hashsalt": "latentart",
        "font.size": 9,
        "font.family": "sans-serif",
        "font.sans-serif": ["DejaVu Sans"],
        "lines.linewidth": 1.3,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "grid.color": _INK,
        "grid.alpha": 0.15,
        **dict.fromkeys(ink, _INK),
    }


def _name(text: str) -> str:
    """Return a name for the legend, which leaves out those that begin with an underscore; this space has no width."""
    shown = printable(text)[:MAX_NAME]
    return f"\u200b{shown}" if shown.startswith("_") else shown


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


def to_svg(figure: Any, alt: str = "") -> str:
    """Return a matplotlib figure as an ``<svg>`` element without the file's head, the same every time.

    What it names inside itself has names of its own, so that several charts can stand on one page. Where the figure
    was drawn in the ink of ``draw_chart`` it takes the color of the text around it.
    """
    buffer = io.StringIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph")  # who shows the text has other fonts; here only its width is guessed
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = re.sub(r"^.*?(?=<svg)", "", buffer.getvalue(), count=1, flags=re.DOTALL).replace(_INK, "currentColor")
    text = re.sub(r"\s*<metadata>.*?</metadata>", "", text, count=1, flags=re.DOTALL)
    own = f"c{zlib.crc32(text.encode()):08x}"
    used = set(re.findall(r'(?:url\(#|href="#)([^)"]+)', text))
    text = re.sub(r'(?<=\s)id="([^"]*)"', lambda m: f'id="{own}-{m[1]}"' if m[1] in used else "", text)
    text = re.sub(r'(url\(#|href="#)', rf"\g<1>{own}-", text)
    return text.replace("<svg ", f'<svg role="img" aria-label="{html.escape(printable(alt))}" ', 1)
