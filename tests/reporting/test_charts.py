"""Charts are SVG that stands alone and draws what it was given."""

from __future__ import annotations

import itertools
import math
import re
import xml.etree.ElementTree as ET
from typing import Literal

import pytest

from latentart.reporting.charts import MAX_POINTS, Line, draw_chart, thin_out

SVG = "{http://www.w3.org/2000/svg}"


def texts(svg: str) -> list[str]:
    """Return all text of a chart; it must be sound XML."""
    return ["".join(element.itertext()) for element in ET.fromstring(svg).iter(f"{SVG}text")]


def paths(svg: str) -> list[list[tuple[float, float]]]:
    """Return the drawn lines of a chart: the paths with round joints."""
    found = re.findall(r'<path d="([^"]*)" fill="none" stroke-linejoin', svg)
    return [[(float(x), float(y)) for x, y in re.findall(r"[ML](\S+?) ([\d.-]+)", d)] for d in found]


def test_a_line_is_drawn_to_scale() -> None:
    """Equal steps are equally far apart, and a value twice as high stands twice as high; y grows downwards in SVG."""
    (line,) = paths(draw_chart([Line("", [0, 1, 2, 3], [0, 1, 2, 5])]))
    xs, ys = zip(*line, strict=True)

    assert [b - a for a, b in itertools.pairwise(xs)] == pytest.approx([xs[1] - xs[0]] * 3, rel=1e-3)
    assert [(ys[0] - y) / (ys[0] - ys[1]) for y in ys] == pytest.approx([0, 1, 2, 5], rel=1e-3)


def test_a_logarithmic_line_is_straight() -> None:
    """Where values grow tenfold each step; those of 0 and below are gaps; the ticks are plain numbers."""
    svg = draw_chart([Line("", [0, 1, 2, 3, 4], [-1, 1, 10, 100, 1000])], y_scale="log")
    (line,) = paths(svg)

    assert len(line) == 4
    ys = [y for _, y in line]
    assert [a - b for a, b in itertools.pairwise(ys)] == pytest.approx([ys[0] - ys[1]] * 3, rel=1e-3)
    assert {"1", "10", "100", "1000"} <= set(texts(svg))


def test_a_gap_is_a_gap() -> None:
    """None is left out, the line begins anew; a point that stands alone is a dot."""
    svg = draw_chart([Line("", [0, 1, 2, 3, 4, 5], [1, 2, 1, None, 1, 2])])
    (drawn,) = re.findall(r'<path d="([^"]*)" fill="none" stroke-linejoin', svg)

    assert (drawn.count("M"), drawn.count("L")) == (2, 3)
    values: list[list[float | None]] = [[1, None], [1, 1], [1, None, 2, None, 3, 3]]
    dots = [draw_chart([Line("", range(len(y)), y)]).count("<circle") for y in values]
    assert dots == [1, 0, 2]


@pytest.mark.parametrize(
    "name", ["<script>alert(1)</script>", "a\"b'c&d", "$x^2$ \\frac", "_hidden", "é 中", "a\x00\udcc3\nb"]
)
def test_names_are_taken_as_they_stand(name: str) -> None:
    """Whatever a name is, it is text: no markup, no formula, no hidden legend; what XML cannot hold is escaped."""
    svg = draw_chart([Line(name, [1, 2, 3], [1, 2, 3])], x_label=name, marks={name: 2.0}, alt=name)

    shown = name.replace("\x00", "\\x00").replace("\udcc3", "\\udcc3").replace("\n", "\\n")
    assert sum(text == shown for text in texts(svg)) == 3
    assert ET.fromstring(svg).attrib["aria-label"] == shown
    assert "<script" not in svg


def test_a_chart_stands_alone() -> None:
    """It names nothing outside itself but its namespace, nor anything inside, and is the same every time."""
    lines = [Line("a", [1, 2, 3], [3, 1, 2]), Line("b", [1, 2, 3], [1, None, 2], is_faint=True)]
    svg = draw_chart(lines, alt="Loss")

    assert svg.startswith("<svg ")
    assert set(re.findall(r"https?://[^\"]*", svg)) == {"http://www.w3.org/2000/svg"}
    assert not re.search(r"@import|<script|<image|url\(|href|\sid=", svg)
    assert draw_chart(lines, alt="Loss") == svg


def test_its_ink_is_that_of_the_page() -> None:
    """Text and axes take the color around them, and there is no white ground."""
    svg = draw_chart([Line("a", [1, 2], [1, 2])])

    assert 'fill="currentColor"' in svg
    assert not re.search("black|white|#000|#fff|<rect", svg)


def test_marks_and_size() -> None:
    """A mark is a line with its name, in the middle where it is so; the size is in inches of 72 points."""
    svg = draw_chart([Line("", [0, 10], [0, 1])], marks={"hires": 5, "later": 11}, size=(4, 2))

    assert "hires" in texts(svg)
    assert "later" not in texts(svg)
    (((left, _), (right, _)),) = paths(svg)
    (mark,) = re.findall(r'd="M(\S+) [^"]*" stroke="currentColor" stroke-dasharray', svg)
    assert float(mark) == pytest.approx((left + right) / 2, abs=0.1)
    assert ET.fromstring(svg).attrib["viewBox"] == "0 0 288 144"


def test_an_empty_chart_is_a_chart() -> None:
    """No lines, lines without points, and lines of gaps alone are drawn without a warning."""
    for lines in ([], [Line("a", [], [])], [Line("a", [1, 2], [None, math.nan])]):
        assert ET.fromstring(draw_chart(lines, y_scale="log")).tag == f"{SVG}svg"


EXTREMES: list[list[float | None]] = [
    [0, 0],
    [5, 5],
    [1e308, -1e308],
    [5e-324, 1e-323],
    [1e300, 1e300],
    [1 + 1e-15, 1],
    [1e-300, 1e300],
    [1e17, 1e17 + 4096],
]


@pytest.mark.parametrize("y", EXTREMES, ids=str)
@pytest.mark.parametrize("y_scale", ["linear", "log"])
def test_whatever_is_finite_is_drawn(y: list[float | None], y_scale: Literal["linear", "log"]) -> None:
    """Equal, enormous and tiny values lie within the picture, with at most eight numbers beside each axis."""
    svg = draw_chart([Line("", [0, 1], y)], y_scale=y_scale)

    places = [float(text) for text in re.findall(r'"(-?[\d.]+)"', svg)] + [
        v for line in paths(svg) for p in line for v in p
    ]
    assert all(0 <= place <= 72 * 5.2 for place in places)
    assert len(texts(svg)) <= 17


@pytest.mark.parametrize(
    ("y", "expected"),
    [
        ([0, 1], ["0", "0.2", "0.4", "0.6", "0.8", "1"]),
        ([0, 100_000], ["0", "20k", "40k", "60k", "80k", "100k"]),
        ([0, 3_000_000], ["0", "500k", "1M", "1.5M", "2M", "2.5M", "3M"]),
        ([100, 110], ["100", "102", "104", "106", "108", "110"]),
        ([-0.0003, 0.0003], ["-0.0003", "-0.0002", "-0.0001", "0", "0.0001", "0.0002", "0.0003"]),
        ([1.2345, 1.2346], ["1.2345", "1.23452", "1.23454", "1.23456", "1.23458", "1.2346"]),
        ([12.4, 27], ["12.5", "15", "17.5", "20", "22.5", "25", "27.5"]),
    ],
)
def test_numbers_at_the_axes_are_round(y: list[float | None], expected: list[str]) -> None:
    """An even step, and as many digits as tell neighbors apart."""
    svg = draw_chart([Line("", [0, 1], y)])

    assert re.findall(r'text-anchor="end">([^<]*)<', svg) == expected


def test_many_points_keep_their_spikes() -> None:
    """Of a hundred thousand points a thousand stay at most, the one spike and the one dip among them."""
    y: list[float | None] = [1.0] * 100_000
    y[33_333], y[77_777], y[5] = 9.0, -9.0, None

    xs, ys = thin_out(range(100_000), y)

    assert len(xs) == len(ys) <= MAX_POINTS
    assert (33_333, 9.0) in zip(xs, ys, strict=True)
    assert (77_777, -9.0) in zip(xs, ys, strict=True)
    assert xs == sorted(xs)


def test_few_points_stay_as_they_are() -> None:
    """And a bucket of gaps is a gap."""
    assert thin_out([1, 2], [5.0, 6.0]) == ([1, 2], [5.0, 6.0])
    _, ys = thin_out(range(5000), [None] * 5000)
    assert all(map(math.isnan, ys))
