"""Charts are SVG that stands alone and draws what it was given."""

from __future__ import annotations

import itertools
import json
import math
import re
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Literal

import numpy as np
import pytest

from latentart.reporting.run_charts import MAX_POINTS, Line, draw_chart, draw_charts, thin_out
from latentart.scoring.run_history import RunHistory

SVG = "{http://www.w3.org/2000/svg}"


def texts(svg: str) -> list[str]:
    """Return all text of a chart; it must be sound XML."""
    return ["".join(element.itertext()) for element in ET.fromstring(svg).iter(f"{SVG}text")]


def curves(svg: str) -> list[str]:
    """Return the paths of the drawn lines: those that are cut off at the axes and are of their width."""
    paths = [path.attrib for path in ET.fromstring(svg).iter(f"{SVG}path")]
    return [path.get("d", "") for path in paths if "clip-path" in path and "stroke-width: 1.3" in path["style"]]


def points(path: str) -> list[tuple[float, float]]:
    """Return the points of a path."""
    return [(float(x), float(y)) for x, y in re.findall(r"[ML] (\S+) (\S+)", path)]


def count_dots(svg: str) -> int:
    """Return how many points stand alone."""
    groups = [group for group in ET.fromstring(svg).iter(f"{SVG}g") if "clip-path" in group.attrib]
    return sum(len(list(group.iter(f"{SVG}use"))) for group in groups)


def test_a_line_is_drawn_to_scale() -> None:
    """Equal steps are equally far apart, and a value twice as high stands twice as high; y grows downwards in SVG."""
    (line,) = curves(draw_chart([Line("", [0, 1, 2, 3], [0, 1, 2, 5])]))
    xs, ys = zip(*points(line), strict=True)

    assert [b - a for a, b in itertools.pairwise(xs)] == pytest.approx([xs[1] - xs[0]] * 3, rel=1e-3)
    assert [(ys[0] - y) / (ys[0] - ys[1]) for y in ys] == pytest.approx([0, 1, 2, 5], rel=1e-3)


def test_a_logarithmic_line_is_straight() -> None:
    """Where values grow tenfold each step; those of 0 and below are gaps; the ticks are plain numbers."""
    svg = draw_chart([Line("", [0, 1, 2, 3, 4], [-1, 0.1, 1, 10, 100])], y_scale="log")
    (line,) = curves(svg)

    ys = [y for _, y in points(line)]
    assert len(ys) == 4
    assert [a - b for a, b in itertools.pairwise(ys)] == pytest.approx([ys[0] - ys[1]] * 3, rel=1e-3)
    assert {"0.1", "1", "10", "100"} <= set(texts(svg))


def test_numbers_at_the_axes_are_short() -> None:
    """Steps in thousands; of a logarithmic axis of few decades 1, 2 and 5."""
    svg = draw_chart([Line("", [0, 100_000], [1, 20])], y_scale="log")

    assert texts(svg)[:6] == ["0", "20k", "40k", "60k", "80k", "100k"]
    assert {"1", "2", "5", "10", "20"} <= set(texts(svg))


def test_a_gap_is_a_gap() -> None:
    """None is left out, the line begins anew; a point that stands alone is a dot."""
    (drawn,) = curves(draw_chart([Line("", [0, 1, 2, 3, 4, 5], [1, 2, 1, None, 1, 2])]))

    assert (drawn.count("M"), drawn.count("L")) == (2, 3)
    values: list[list[float | None]] = [[1, None], [1, 1], [1, None, 2, None, 3, 3]]
    assert [count_dots(draw_chart([Line("", range(len(y)), y)])) for y in values] == [1, 0, 2]


@pytest.mark.parametrize(
    "name", ["<script>alert(1)</script>", "a\"b'c&d", "$x^2$ \\frac", "é 中", "a\x00\udcc3\nb", "#010203"]
)
def test_names_are_taken_as_they_stand(name: str) -> None:
    """Whatever a stage's name is, it is text: no markup, no formula; what XML cannot hold is escaped."""
    svg = draw_chart([Line("", [1, 2, 3], [1, 2, 3])], marks={name: 2.0}, alt=name)

    shown = name.replace("\x00", "\\x00").replace("\udcc3", "\\udcc3").replace("\n", "\\n")
    assert shown in texts(svg)
    assert ET.fromstring(svg).attrib["aria-label"] == shown
    assert "<script" not in svg


def test_a_chart_stands_alone() -> None:
    """It names nothing outside itself but its namespaces, and is the same every time."""
    lines = [Line("a", [1, 2, 3], [3, 1, 2]), Line("b", [1, 2, 3], [1, None, 2], is_faint=True)]
    svg = draw_chart(lines, alt="Loss")

    assert svg.startswith("<svg ")
    assert set(re.findall(r"https?://[^\"]*", svg)) == {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}
    assert not re.search(r"@import|<script|<image|<style|<!|<metadata", svg)
    assert set(re.findall(r'(?:url\(|href=")(.)', svg)) == {"#"}
    assert draw_chart(lines, alt="Loss") == svg


def test_charts_do_not_reach_into_each_other() -> None:
    """Two on one page have no name in common, and each has those that it refers to."""
    line = [Line("a", [1, 2, 3], [3, None, 2])]
    names = [set(re.findall(r' id="([^"]*)"', draw_chart(line, alt=alt))) for alt in ("Loss", "Rate")]

    assert names[0].isdisjoint(names[1])
    assert set(re.findall(r'(?:url\(|href=")#([^)"]*)', draw_chart(line, alt="Loss"))) == names[0]


def test_its_ink_is_that_of_the_page() -> None:
    """Text, axes and faint lines take the color around them, and there is no white ground."""
    svg = draw_chart([Line("a", [1, 2], [1, 2]), Line("", [1, 2], [2, 1], is_faint=True)], marks={"hires": 2})

    assert "currentColor" in svg
    assert not re.search("black|white|#000|#fff|#010203", svg)
    for text in ET.fromstring(svg).iter(f"{SVG}text"):
        assert "fill: currentColor" in text.attrib["style"]


def test_marks_and_names() -> None:
    """A mark is a line with its name, in the middle where it is so; few names and many are all written."""
    svg = draw_chart([Line("", [0, 10], [0, 1])], marks={"hires": 5, "later": 11})

    assert "hires" in texts(svg)
    assert "later" not in texts(svg)
    ((left, _), (right, _)) = points(curves(svg)[0])
    (mark,) = re.findall(r'd="M (\S+) [^"]*"[^>]*stroke-dasharray', svg)
    assert float(mark) == pytest.approx((left + right) / 2, abs=0.1)
    for count in (2, 8):
        names = [f"line {i}" for i in range(count)]
        assert texts(draw_chart([Line(name, [0, 1], [0, 1]) for name in names]))[-count:] == names


def test_lines_of_one_thing_are_of_neighboring_colors() -> None:
    """And no two of them are alike."""
    lines = [Line(f"{i}", [0, 1], [i, i]) for i in range(8)]

    colors = re.findall(r"stroke: (#\w{6}); stroke-width: 1.3", draw_chart(lines, is_graded=True))

    assert len(set(colors)) == 8


def test_an_empty_chart_is_a_chart() -> None:
    """No lines, lines without points, and lines of gaps alone are drawn without a warning."""
    for lines in ([], [Line("a", [], [])], [Line("a", [1, 2], [None, math.nan])]):
        for scale in ("linear", "log"):
            assert ET.fromstring(draw_chart(lines, y_scale=scale)).tag == f"{SVG}svg"


EXTREMES: list[list[float | None]] = [
    [0, 0],
    [5, 5],
    [1e308, -1e308],
    [5e-324, 1e-323],
    [1e300, 1e300],
    [1 + 1e-15, 1],
    [1e-300, 1e300],
    [1e17, 1e17 + 4096],
    [math.inf, 1],
]


@pytest.mark.parametrize("y", EXTREMES, ids=str)
@pytest.mark.parametrize("y_scale", ["linear", "log"])
def test_whatever_is_finite_is_drawn(y: list[float | None], y_scale: Literal["linear", "log"]) -> None:
    """Equal, enormous and tiny values lie within the picture, with not too many numbers beside it."""
    svg = draw_chart([Line("", [0, 1], y)], y_scale=y_scale)

    places = [place for curve in curves(svg) for point in points(curve) for place in point]
    assert all(0 <= place <= 72 * 5.2 for place in places)
    assert len(texts(svg)) <= 20


def test_many_points_keep_their_spikes() -> None:
    """Of a hundred thousand points a thousand stay at most, the one spike and the one dip among them."""
    y: list[float | None] = [1.0] * 100_000
    y[33_333], y[77_777], y[5] = 9.0, -9.0, None

    xs, ys = thin_out(range(100_000), y)

    assert len(xs) == len(ys) <= MAX_POINTS
    assert (33_333, 9.0) in zip(xs, ys, strict=True)
    assert (77_777, -9.0) in zip(xs, ys, strict=True)
    assert list(xs) == sorted(xs)


def test_few_points_stay_as_they_are() -> None:
    """And a bucket of gaps is a gap."""
    xs, ys = thin_out([1, 2], [5.0, 6.0])
    assert (list(xs), list(ys)) == ([1, 2], [5.0, 6.0])
    _, ys = thin_out(range(5000), [None] * 5000)
    assert np.isnan(ys).all()


def test_the_loss_chart_compares_like_with_like(tmp_path: Path) -> None:
    """The weighted loss of a run that does not overfit lies far below its held-out loss: it has a chart of its own."""
    for name, plain in (("now", {"plain_loss": 0.34}), ("before", {f"loss_t{i}": 0.34 for i in range(8)})):
        run = tmp_path / name
        run.mkdir()
        lines = [{"step": step, "loss": 0.099, **plain} for step in range(1, 40)]
        lines.append({"step": 39, "held_out_loss": 0.348})
        (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        history = RunHistory(run, "denoiser")
        history.read()

        charts = draw_charts(history)

        assert 'aria-label="Loss over the steps; at the end training 0.34, held out 0.348"' in charts["Loss"]
        assert "at the end 0.099" in charts["Loss as training weighs it"]


def test_an_unweighted_loss_has_one_chart(tmp_path: Path) -> None:
    """There is nothing else to show."""
    lines = [{"step": step, "loss": 0.34 + 0.01 * (step % 2), "plain_loss": 0.345} for step in range(1, 40)]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    history = RunHistory(tmp_path, "denoiser")
    history.read()

    assert list(draw_charts(history)) == ["Loss"]
