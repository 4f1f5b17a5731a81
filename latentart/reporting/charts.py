"""Charts as SVG text, for pages; written without a library, as to load one takes longer than to draw them all."""

from __future__ import annotations

import html
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Literal

from latentart.printable import printable

MAX_POINTS = 1000  # of one line: more than a screen shows
MAX_NAME = 60
MAX_ABOVE = 4  # names in a row above the lines
LETTER = 4.6  # width, of one of a legend's letters; all lengths here are points, 72 to the inch
SAMPLE = 14  # length of a legend's line
MARGIN = 0.04  # of the height, above and below what is drawn
MAX_TICKS = 7
LIMIT = 1e300  # of what is drawn, so that no difference is infinite
COLORS = ("#1f77b4", "#ff7f0e", "#2ca02c", "#d62728", "#9467bd", "#8c564b", "#e377c2", "#7f7f7f")  # of Tableau
_STROKE = 'fill="none" stroke-linejoin="round"'


@dataclass(frozen=True)
class Line:
    """One line of a chart; None in ``y`` is a gap. Without a name it is left out of the legend; a faint one is gray."""

    name: str
    x: Sequence[float]
    y: Sequence[float | None]
    is_faint: bool = False


@dataclass(frozen=True)
class Axis:
    """Which values lie between two places of the page; with ``is_log`` the values are logarithms."""

    low: float
    high: float
    start: float
    end: float
    is_log: bool = False

    def place(self, value: float) -> float:
        """Return where on the page a value stands."""
        value = _bounded(value, is_log=self.is_log)
        return self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start)

    def ticks(self) -> list[tuple[float, str]]:
        """Return some round values within and how they are written: 1, 2 and 5 of a decade if these are few."""
        if not self.is_log:
            return _round_values(self.low, self.high)
        first, last = math.floor(self.low), math.ceil(self.high)
        every = max(1, math.ceil((last - first) / MAX_TICKS))
        leading = (1, 2, 5) if self.high - self.low < 2 else (1,)
        values = [m * 10.0**e for e in range(max(first, -300), min(last, 300) + 1, every) for m in leading]
        inside = [(value, _write(value, value)) for value in values if self.low <= math.log10(value) <= self.high]
        return inside if len(inside) > 2 else _round_values(10**self.low, 10**self.high)


def draw_chart(
    lines: Sequence[Line],
    *,
    x_label: str = "",
    y_scale: Literal["linear", "log"] = "linear",
    marks: Mapping[str, float] | None = None,
    size: tuple[float, float] = (5.2, 3.0),
    alt: str = "",
    is_graded: bool = False,
) -> str:
    """Return a line chart as an ``<svg>`` element that names nothing outside itself and has no ground of its own.

    A line of more than 1,000 points is drawn through the least and the greatest of each bucket of neighbors, so that
    no spike is lost. On a logarithmic scale values of 0 and below are gaps. ``marks`` are the names of vertical lines
    and where they stand, ``size`` is in inches, ``alt`` says in words what is to be seen. With ``is_graded`` the lines
    are steps of one thing, and so are their colors. Few names stand above the lines, many on the right.
    """
    width, height = 72 * size[0], 72 * size[1]
    names = [_shown(line.name) for line in lines if line.name]
    is_beside = len(names) > MAX_ABOVE
    beside = SAMPLE + 12 + LETTER * max(map(len, names), default=0) if is_beside else 0
    right, top = max(width / 2, width - 14 - beside), 20 if names and not is_beside else 8
    drawn = [_points(line, is_log=y_scale == "log") for line in lines]
    x_axis = _axis([x for line in drawn for x, y in line if not math.isnan(y)], 44, right)
    y_axis = _axis([y for line in drawn for _, y in line], height - 32, top, is_log=y_scale == "log", margin=MARGIN)
    colors = _colors(lines, is_graded=is_graded)
    parts = [
        *_frame(x_axis, y_axis, x_label),
        *(_mark(name, x_axis.place(at), y_axis) for name, at in (marks or {}).items() if at <= x_axis.high),
        *(
            f'<g color="{color}" stroke-width="1.3">{_curve(line, x_axis, y_axis)}</g>'
            if not is_faint
            else f'<g opacity="0.3" stroke-width="0.7">{_curve(line, x_axis, y_axis)}</g>'
            for line, color, is_faint in zip(drawn, colors, [line.is_faint for line in lines], strict=True)
        ),
        *_legend([(line.name, color) for line, color in zip(lines, colors, strict=True)], x_axis, top, is_beside),
    ]
    head = f'viewBox="0 0 {width:g} {height:g}" role="img" aria-label="{_shown(alt, most=len(alt))}"'
    font = 'font-family="system-ui, sans-serif" font-size="9" fill="currentColor"'
    return f'<svg xmlns="http://www.w3.org/2000/svg" {head} {font}>\n' + "\n".join(parts) + "\n</svg>"


def _shown(text: str, most: int = MAX_NAME) -> str:
    return html.escape(printable(text[:most]))


def _points(line: Line, *, is_log: bool) -> list[tuple[float, float]]:
    """Return the points that are drawn; NaN stands for what cannot be."""
    x, y = thin_out(line.x, line.y)
    return [(a, b if math.isfinite(b) and (b > 0 or not is_log) else math.nan) for a, b in zip(x, y, strict=True)]


def _bounded(value: float, *, is_log: bool) -> float:
    """Return a value, or its logarithm, no larger than what can be drawn."""
    return math.log10(max(1 / LIMIT, min(value, LIMIT))) if is_log else max(-LIMIT, min(value, LIMIT))


def _axis(values: Sequence[float], start: float, end: float, *, is_log: bool = False, margin: float = 0.0) -> Axis:
    """Return the axis that holds all finite values; of a single one, or none, it shows some more to both sides."""
    known = [_bounded(value, is_log=is_log) for value in values if math.isfinite(value)] or [0.0]
    low, high = min(known), max(known)
    least = max(abs(low), abs(high)) * 1e-9
    if high - low <= max(least, 1e-290):
        room = 0.3 if is_log else 0.05 * abs(low) or 1.0
        low, high = low - room, high + room
    room = margin * (high - low)
    return Axis(low - room, high + room, start, end, is_log)


def _round_values(low: float, high: float) -> list[tuple[float, str]]:
    """Return up to eight values with an even step of 1, 2, 2.5 or 5 of some decade."""
    rough = (high - low) / MAX_TICKS
    decade = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * decade for factor in (1, 2, 2.5, 5, 10) if factor * decade >= rough * (1 - 1e-9))
    values = [i * step for i in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]
    return [(value, _write(value, step)) for value in values]


def _write(value: float, step: float) -> str:
    """Return a number as short as its neighbor, one step away, allows: 250, 20k, 1.5M, 0.003, 2e-05."""
    unit, letter = (1e6, "M") if 1e6 <= abs(value) < 1e12 else (1e3, "k") if 1e4 <= abs(value) < 1e6 else (1, "")
    decades = math.log10(abs(value) / step) if abs(value) > step else 0.0
    return f"{value / unit:.{max(4, min(math.ceil(decades) + 2, 15))}g}{letter}"


def _frame(x_axis: Axis, y_axis: Axis, x_label: str) -> Iterator[str]:
    """Yield the grid and what stands at its lines."""
    left, right, bottom, top = x_axis.start, x_axis.end, y_axis.start, y_axis.end
    xs = [(x_axis.place(value), text) for value, text in x_axis.ticks()]
    ys = [(y_axis.place(value), text) for value, text in y_axis.ticks()]
    grid = "".join(f"M{x:.1f} {bottom:g}V{top:g}" for x, _ in xs) + "".join(
        f"M{left:g} {y:.1f}H{right:g}" for y, _ in ys
    )
    yield f'<path d="{grid}" stroke="currentColor" stroke-width="0.7" opacity="0.15"/>'
    yield f'<path d="M{left:g} {top:g}V{bottom:g}H{right:g}" fill="none" stroke="currentColor" stroke-width="0.7"/>'
    yield from (f'<text x="{x:.1f}" y="{bottom + 12:g}" text-anchor="middle">{text}</text>' for x, text in xs)
    yield from (f'<text x="{left - 4:g}" y="{y + 3:.1f}" text-anchor="end">{text}</text>' for y, text in ys)
    middle = (left + right) / 2
    yield f'<text x="{middle:g}" y="{bottom + 26:g}" text-anchor="middle">{_shown(x_label)}</text>'


def _mark(name: str, x: float, y_axis: Axis) -> str:
    """Return a dashed line and its name, written downwards."""
    line = f'<path d="M{x:.1f} {y_axis.start:g}V{y_axis.end:g}" stroke="currentColor" stroke-dasharray="4 3"/>'
    at = f'transform="translate({x + 3:.1f} {y_axis.end + 2:g}) rotate(90)"'
    return f'<g opacity="0.6" font-size="8">{line}<text {at}>{_shown(name)}</text></g>'


def _curve(points: Sequence[tuple[float, float]], x_axis: Axis, y_axis: Axis) -> str:
    """Return a line with its gaps; a point that stands alone is a dot."""
    path, dots = [], []
    for is_gap, group in groupby(points, key=lambda point: math.isnan(point[1])):
        places = [] if is_gap else [f"{x_axis.place(x):.2f} {y_axis.place(y):.2f}" for x, y in group]
        if len(places) > 1:
            path.append("M" + "L".join(places))
        elif places:
            x, y = places[0].split()
            dots.append(f'<circle cx="{x}" cy="{y}" r="2" fill="currentColor"/>')
    drawn = f'<path d="{"".join(path)}" {_STROKE} stroke="currentColor"/>' if path else ""
    return drawn + "".join(dots)


def _colors(lines: Sequence[Line], *, is_graded: bool) -> list[str]:
    """Return a color for each line; faint ones, in the page's own, use up none."""
    colors, number = [], 0
    most = max(1, len(lines) - 1)
    for line in lines:
        colors.append(f"hsl({190 + 130 * number / most:.0f} 75% 52%)" if is_graded else COLORS[number % len(COLORS)])
        number += not line.is_faint
    return colors


def _legend(entries: Sequence[tuple[str, str]], x_axis: Axis, top: float, is_beside: bool) -> Iterator[str]:
    """Yield the names of the lines that have one, each beside a piece of its line."""
    x, y = (x_axis.end + 6, top + 6.0) if is_beside else (x_axis.start, 9.0)
    for name, color in entries:
        if not name:
            continue
        yield f'<path d="M{x:.1f} {y:g}h{SAMPLE}" stroke="{color}" stroke-width="1.6"/>'
        yield f'<text x="{x + SAMPLE + 4:.1f}" y="{y + 3:g}" font-size="8">{_shown(name)}</text>'
        x, y = (x, y + 12) if is_beside else (x + SAMPLE + 14 + LETTER * len(name), y)


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
