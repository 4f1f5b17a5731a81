"""The curves of a report: losses, losses by noise, judged samples, gradient and rate, speed."""

from __future__ import annotations

import colorsys
import html
import io
import math
import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from latentart.data.pictures.figures import new_figure, save_figure
from latentart.printable import printable
from latentart.scoring.run_history import RunHistory, Trace

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LARGE = (7.6, 4.2)  # inches, of a figure in a file
SIZE = (5.2, 3.0)  # inches: at the width of a phone its letters are still to be read
NOISE_PARTS = 8
Names = Mapping[str, str]  # a line's name by the metric that it shows
Floats = NDArray[np.float64]

LDM_CHARTS: dict[str, Names] = {
    "Loss": {"plain_loss": "training", "held_out_loss": "held out"},
    "Loss as training weighs it": {"loss": "training"},
    "Judged samples, as shares": {
        "recognition": "recognized",
        "recognition_real": "real pictures",
        "recognition_chance": "a guess",
        "spread": "spread",
        "copies": "copies",
    },
}
VAE_CHARTS: dict[str, Names] = {
    "Reconstruction error": {"reconstruction": "training", "held_out_reconstruction": "held out"},
    "Loss and its other terms": {
        "loss": "loss",
        "perceptual": "perceptual",
        "adversarial": "adversarial",
        "discriminator": "discriminator",
    },
    "What the discriminator says": {"real_logits": "of real", "fake_logits": "of reconstructions"},
    "Divergence of the latents (KL), nats": {"kl": "KL"},
}
SHARED_CHARTS: dict[str, Names] = {
    "Gradient norm": {"gradient_norm": "gradient", "discriminator_norm": "discriminator's"},
    "Learning rate": {"lr": "rate"},
    "Images per second": {"images_per_second": "images/s"},
}
LOGARITHMIC = ("Gradient norm",)
GRADED = ("Training loss by noise", "Held-out loss by noise")
NOISY = ("loss", "plain_loss", "reconstruction")
ALIKE = 0.05  # of the loss: its batch and its lines since the last one differ as much without any weights
SMOOTH_POINTS = 100
PART = "loss_t"  # of eight lines in one chart only means can be told apart

MAX_POINTS = 1000  # of one line: more than a screen shows
MAX_NAME = 60
MAX_ABOVE = 4  # names in a row above the lines; more stand on the right
LIMIT = 1e100  # of what is drawn, so that no difference is infinite
INK = "#010203"  # stands for the page's own color, which follows its dark mode
_INKED = ("text.color", "axes.edgecolor", "axes.labelcolor", "grid.color", "xtick.color", "ytick.color")
_STYLE: Any = {
    **dict.fromkeys(_INKED, INK),
    "font.family": "DejaVu Sans",  # it is measured; the page takes its own
    "axes.facecolor": "none",
    "axes.formatter.limits": (-4, 6),
    "axes.xmargin": 0,
    "grid.alpha": 0.15,
}
_NOT_FOR_A_PAGE = re.compile(r'<style.*?</style>|(?<=<g) id="[^"]*"|(?<=\n) +', re.DOTALL)


@dataclass(frozen=True)
class Line:
    """One line of a chart; None in ``y`` is a gap. Without a name it is left out of the legend; a faint one is gray."""

    name: str
    x: Sequence[float]
    y: Sequence[float | None]
    is_faint: bool = False


def draw_charts(history: RunHistory) -> dict[str, str]:
    """Return the charts for which there are numbers, SVG by what each shows."""
    own = _ldm_charts(history) if history.what == "denoiser" else VAE_CHARTS
    chosen = {caption: _pick(history, names) for caption, names in (own | SHARED_CHARTS).items()}
    if history.what == "denoiser":
        for caption, prefix in zip(GRADED, ("loss_t", "held_out_loss_t"), strict=True):
            names = {f"{prefix}{i}": _name_part(i) for i in range(NOISE_PARTS)}
            chosen[caption] = _pick(history, names)
    return {
        caption: draw_chart(
            lines,
            x_label="step",
            y_scale="log" if caption in LOGARITHMIC else "linear",
            marks=history.stages if len(history.stages) > 1 else None,
            alt=_describe(caption, lines),
            is_graded=caption in GRADED,
        )
        for caption, lines in chosen.items()
        if any(value is not None for line in lines for value in line.y)
    }


def _ldm_charts(history: RunHistory) -> dict[str, Names]:
    """Return the denoiser's own charts: its weighted loss stands alone, where it is another than the plain one."""
    weighted, plain = (_mean(history, name) for name in ("loss", "plain_loss"))
    charts = dict(LDM_CHARTS)
    if weighted is None or (plain is not None and abs(weighted - plain) <= ALIKE * abs(plain)):
        del charts["Loss as training weighs it"]
    return charts


def _mean(history: RunHistory, name: str) -> float | None:
    known = [value for value in history.traces.get(name, Trace()).values()[1] if value is not None]
    return sum(known) / len(known) if known else None


def _pick(history: RunHistory, names: Names) -> list[Line]:
    """Return the lines that there are numbers for; of a training loss both every value, faint, and its mean."""
    found = [(name, shown, history.traces[name]) for name, shown in names.items() if name in history.traces]
    lines = []
    for name, shown, trace in found:
        label = shown if len(found) > 1 else ""
        is_noisy = name in NOISY and len(trace) > 2 * SMOOTH_POINTS
        if is_noisy or name.startswith(PART):
            steps, means = zip(*trace.means(most=SMOOTH_POINTS), strict=True)
            lines += [Line("", *trace.values(), is_faint=True)] * is_noisy
            lines.append(Line(label or "mean", steps, means))
        else:
            lines.append(Line(label, *trace.values()))
    return lines


def _name_part(part: int) -> str:
    return {0: "least noise", NOISE_PARTS - 1: "most noise"}.get(part, f"{part + 1} of {NOISE_PARTS}")


def _describe(caption: str, lines: Sequence[Line]) -> str:
    ends = [(line.name, [value for value in line.y if value is not None][-1:]) for line in lines]
    said = [f"{name} {last[0]:.4g}".strip() for name, last in ends if last]
    return f"{caption} over the steps; at the end {', '.join(said)}"


def draw_chart(
    lines: Sequence[Line],
    *,
    x_label: str = "",
    y_scale: Literal["linear", "log"] = "linear",
    marks: Mapping[str, float] | None = None,
    alt: str = "",
    is_graded: bool = False,
) -> str:
    """Return a line chart as an ``<svg>`` element that names nothing outside itself and has no ground of its own.

    A line of more than 1,000 points is drawn through the least and the greatest of each bucket of neighbors, so that
    no spike is lost. On a logarithmic scale values of 0 and below are gaps. ``marks`` are the names of vertical lines
    and where they stand, ``alt`` says in words what is to be seen. With ``is_graded`` the lines are steps of one
    thing, and so are their colors.
    """
    from matplotlib import rc_context

    with new_figure(*SIZE) as figure, rc_context(_STYLE | {"svg.hashsalt": printable(alt)}):
        axes = _draw_axes(figure, lines, x_label, y_scale, is_graded=is_graded)
        _draw_marks(axes, marks or {})
        return _to_svg(figure, alt)


def write_chart(lines: Sequence[Line], path: Path, *, x_label: str = "", y_label: str = "") -> None:
    """Write a line chart of at most four lines as a file, SVG or PNG by its name's ending.

    Raises:
        UsageError: something has that name.
        ResourceError: the file cannot be written.
    """
    from matplotlib import rc_context

    with new_figure(*LARGE) as figure, rc_context(_STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # of a run's name
        _draw_axes(figure, lines, x_label, columns=2).set_ylabel(y_label)
        save_figure(figure, path)


def _draw_axes(
    figure: Figure,
    lines: Sequence[Line],
    x_label: str,
    y_scale: Literal["linear", "log"] = "linear",
    *,
    is_graded: bool = False,
    columns: int = MAX_ABOVE,
) -> Axes:
    """Draw lines and their names into an empty figure."""
    from matplotlib.ticker import EngFormatter, MaxNLocator

    figure.set_layout_engine("none")  # to fit the margins takes as long as to draw
    is_beside = sum(bool(line.name) for line in lines) > MAX_ABOVE
    axes = figure.add_axes((0.12, 0.15, 0.63 if is_beside else 0.86, 0.82 if is_beside else 0.76))
    axes.set_xlabel(x_label, parse_math=False)
    axes.set_yscale(y_scale)
    _draw_lines(axes, lines, is_graded=is_graded)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=7, steps=[1, 2, 2.5, 5, 10], integer=True, min_n_ticks=1))
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    if y_scale == "log":
        _write_decades(axes)
    handles, names = axes.get_legend_handles_labels()
    place: Any = {"loc": "upper left", "bbox_to_anchor": (0.75, 0.98) if is_beside else (0.1, 1.0)}
    if names:
        ncols = 1 if is_beside else columns
        legend = figure.legend(handles, names, **place, ncols=ncols, frameon=False, fontsize=8, handlelength=1.5)
        for text in legend.get_texts():
            text.set_parse_math(False)
    return axes


def _draw_lines(axes: Axes, lines: Sequence[Line], *, is_graded: bool) -> None:
    """Draw lines with their gaps; a point that stands alone is a dot."""
    for number, line in enumerate(lines):
        x, y = thin_out(line.x, line.y)
        y = y.clip(-LIMIT, LIMIT)
        if axes.get_yscale() == "log":
            y = np.where(y > 0, y.clip(1 / LIMIT), math.nan)
        style: dict[str, Any] = {"linewidth": 1.3}
        if line.is_faint:
            style = {"linewidth": 0.7, "alpha": 0.3, "color": INK}
        elif is_graded:
            style["color"] = colorsys.hls_to_rgb((190 + 130 * number / max(1, len(lines) - 1)) / 360, 0.52, 0.75)
        (drawn,) = axes.plot(x, y, label=line.name or "_", **style)
        is_known = np.pad(np.isfinite(y), 1)
        is_alone = is_known[1:-1] & ~is_known[:-2] & ~is_known[2:]
        if is_alone.any():
            axes.plot(x[is_alone], y[is_alone], ".", color=drawn.get_color(), label="_")


def _write_decades(axes: Axes) -> None:
    """Write plain numbers beside a logarithmic axis; 1, 2 and 5 of a decade if these are few."""
    from matplotlib.ticker import LogLocator, NullFormatter

    low, high = axes.get_ylim()
    axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if high / low < 100 else (1.0,)))
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.yaxis.set_minor_formatter(NullFormatter())


def _draw_marks(axes: Axes, marks: Mapping[str, float]) -> None:
    """Draw dashed lines and their names, written downwards."""
    most = axes.get_xlim()[1]
    for name, at in marks.items():
        if at <= most:
            axes.axvline(at, color=INK, linewidth=0.8, linestyle="--", alpha=0.6)
            place: Any = {"xycoords": axes.get_xaxis_transform(), "xytext": (3, -2), "textcoords": "offset points"}
            text = axes.annotate(printable(name[:MAX_NAME]), (at, 1), **place, rotation=270, va="top", fontsize=8)
            text.set(parse_math=False, in_layout=False, alpha=0.7)


def _to_svg(figure: Figure, alt: str) -> str:
    """Return a figure as an element for inside a page, without what would reach out of it; its ink is the page's."""
    from matplotlib.backends.backend_svg import FigureCanvasSVG

    canvas: Any = FigureCanvasSVG(figure)  # its methods have no types
    content = io.StringIO()
    figure.set_facecolor("none")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # the reader's browser has it
        nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        canvas.print_svg(content, metadata=nothing)  # savefig would draw it twice
    _, _, svg = _NOT_FOR_A_PAGE.sub("", content.getvalue()).partition("<svg ")
    svg = re.sub(f"(?<=fill: ){INK}|(?<=stroke: ){INK}", "currentColor", svg)
    return f'<svg role="img" aria-label="{html.escape(printable(alt))}" {svg}'


def thin_out(x: Sequence[float], y: Sequence[float | None]) -> tuple[Floats, Floats]:
    """Return at most 1,000 points of a line: of each bucket of neighbors the least and the greatest; NaN for a gap."""
    xs, ys = np.array(x, dtype=np.float64), np.array(y, dtype=np.float64)
    ys[~np.isfinite(ys)] = math.nan
    if len(ys) <= MAX_POINTS:
        return xs, ys
    chosen: list[int] = []
    size = -(-len(ys) // (MAX_POINTS // 2))
    for start in range(0, len(ys), size):
        bucket = ys[start : start + size]
        is_gap = bool(np.isnan(bucket).all())
        chosen += [start] if is_gap else sorted({start + int(np.nanargmin(bucket)), start + int(np.nanargmax(bucket))})
    return xs[chosen], ys[chosen]
