"""Eight painters: each fills a canvas in one WikiArt style, its whole choice coming from one ``random.Random``.

Lengths are in units of the picture's shorter side, so a picture is the same at any size. Forms are large on
purpose: a small generative model has to learn them in minutes.
"""

from __future__ import annotations

import colorsys
import math
from collections.abc import Callable, Sequence
from random import Random

from PIL import Image, ImageDraw, ImageFilter

Color = tuple[int, int, int]
Point = tuple[float, float]

SUPERSAMPLING = 3
WHITE: Color = (250, 247, 238)
INK: Color = (24, 20, 22)


class Canvas:
    """A picture drawn three times too large and then reduced, measured in its shorter side."""

    def __init__(self, size: tuple[int, int]) -> None:
        self.width, self.height = (side / min(size) for side in size)
        self.x, self.y, self.unit = 0.0, 0.0, float(SUPERSAMPLING * min(size))
        self.image = Image.new("RGB", (SUPERSAMPLING * size[0], SUPERSAMPLING * size[1]), WHITE)
        self.pen = ImageDraw.Draw(self.image)

    def move(self, x: float, y: float, scale: float) -> None:
        """Measure from (x, y) and in units of ``scale`` from now on."""
        self.x, self.y, self.unit = self.x + x * self.unit, self.y + y * self.unit, scale * self.unit

    def ground(self, *colors: Color) -> None:
        """Cover everything with colors that melt into each other from top to bottom."""
        column = Image.new("RGB", (1, len(colors)))
        column.putdata(colors)
        self.image.paste(column.resize(self.image.size, Image.Resampling.BICUBIC))

    def polygon(self, points: Sequence[Point], color: Color) -> None:
        """Fill a polygon."""
        self.pen.polygon(self._pixels(points), fill=color)

    def ellipse(self, x: float, y: float, rx: float, ry: float, color: Color) -> None:
        """Fill an ellipse around (x, y)."""
        self.pen.ellipse(self._pixels([(x - rx, y - ry), (x + rx, y + ry)]), fill=color)

    def line(self, points: Sequence[Point], width: float, color: Color) -> None:
        """Draw a stroke with round ends and joints."""
        self.pen.line(self._pixels(points), fill=color, width=max(1, round(width * self.unit)), joint="curve")
        for x, y in (points[0], points[-1]):
            self.ellipse(x, y, width / 2, width / 2, color)

    def blur(self, radius: float) -> None:
        """Soften everything drawn so far."""
        self.image.paste(self.image.filter(ImageFilter.GaussianBlur(radius * self.unit)))

    def picture(self) -> Image.Image:
        """Return the finished picture at its own size, with smooth edges."""
        return self.image.reduce(SUPERSAMPLING)

    def _pixels(self, points: Sequence[Point]) -> list[Point]:
        return [(self.x + x * self.unit, self.y + y * self.unit) for x, y in points]


def paint_portrait(canvas: Canvas, rng: Random) -> None:
    """Paint High_Renaissance: a soft half-length portrait in front of a dark ground."""
    ground = _vary(rng, rng.choice([(58, 44, 30), (40, 50, 38), (34, 42, 52)]), 8)
    skin = _vary(rng, rng.choice([(232, 190, 150), (220, 172, 130), (240, 206, 172)]), 6)
    hair = _vary(rng, rng.choice([(66, 36, 18), (118, 70, 28), (34, 22, 16), (150, 104, 46)]), 8)
    dress = _vary(rng, rng.choice([(132, 30, 26), (28, 72, 62), (36, 48, 112), (120, 84, 24)]), 12)
    canvas.ground(_scale(ground, 1.3), ground, _scale(ground, 0.6))
    left, up = rng.uniform(-0.03, 0.03), rng.uniform(0.08, 0.12)
    canvas.move(canvas.width / 2 - left, canvas.height / 2 - up, rng.uniform(0.98, 1.12))
    ends, turn = rng.uniform(0.2, 0.36), rng.uniform(-0.025, 0.025)
    canvas.ellipse(0, -0.03, 0.235, 0.28, hair)
    canvas.polygon([(-0.235, -0.03), (0.235, -0.03), (0.25, ends), (-0.25, ends)], hair)
    canvas.ellipse(0, 0.66, 0.48, 0.38, dress)
    canvas.polygon([(-0.48, 0.66), (0.48, 0.66), (0.48, 2), (-0.48, 2)], dress)
    canvas.ellipse(0, 0.32, 0.17, 0.13, _scale(skin, 0.92))
    canvas.polygon([(-0.085, 0.1), (0.085, 0.1), (0.085, 0.28), (-0.085, 0.26)], _scale(skin, 0.74))
    canvas.ellipse(0, 0, 0.172, 0.235, _scale(skin, 0.78))
    canvas.ellipse(-0.018, -0.005, 0.152, 0.222, skin)
    for side in (-1, 1):
        lock = [(0.24, 0.18), (0.085, 0.18), (0.085, 0.27), (0.17, 0.32), (0.24, 0.3)]
        canvas.polygon([(side * x, y) for x, y in lock], hair)
        parting = [(turn, -0.26), (turn, -0.175), (side * 0.11, -0.12)]
        canvas.polygon([*parting, (side * 0.165, 0.06), (side * 0.22, 0), (side * 0.15, -0.24)], hair)
    canvas.blur(0.013)
    canvas.move(turn, 0, 1)
    for side in (-1, 1):
        x = side * 0.073
        canvas.line([(x - side * 0.035, -0.06), (x, -0.07), (x + side * 0.045, -0.06)], 0.013, _scale(hair, 0.9))
        canvas.ellipse(x, -0.018, 0.041, 0.021, WHITE)
        canvas.ellipse(x, -0.018, 0.02, 0.022, INK)
        canvas.line([(x - 0.04, -0.022), (x, -0.04), (x + 0.04, -0.022)], 0.011, _scale(skin, 0.35))
    canvas.line([(0.016, 0.0), (0.026, 0.066), (-0.018, 0.074)], 0.013, _scale(skin, 0.72))
    canvas.ellipse(0, 0.14, 0.045, 0.021, (178, 68, 60))
    canvas.line([(-0.058, 0.131), (0, 0.139), (0.058, 0.131)], 0.01, (104, 36, 32))
    canvas.blur(0.005)


def paint_fields(canvas: Canvas, rng: Random) -> None:
    """Paint Color_Field_Painting: two or three wide fields with soft edges on a colored ground."""
    hue = rng.choice([0.0, 0.04, 0.09, 0.6, 0.7, 0.85]) + rng.uniform(-0.02, 0.02)
    canvas.ground(_hsv(hue, 0.75, rng.uniform(0.35, 0.6)))
    shares = [rng.uniform(0.7, 1.3) for _ in range(rng.choice([2, 3]))]
    gap, left = 0.06, rng.uniform(0.08, 0.12)
    right, top = canvas.width - left, gap
    room = canvas.height - gap * (len(shares) + 1)
    for share in shares:
        bottom = top + room * share / sum(shares)
        field = _hsv(hue + rng.uniform(-0.1, 0.16), rng.uniform(0.65, 0.95), rng.uniform(0.55, 1.0))
        canvas.polygon([(left, top), (right, top), (right, bottom), (left, bottom)], field)
        top = bottom + gap
    canvas.blur(0.035)


def paint_shards(canvas: Canvas, rng: Random) -> None:
    """Paint Cubism: a plane cut by straight lines into twelve to eighteen shards in earth colors."""
    earth = [(196, 160, 104), (150, 108, 62), (98, 74, 50), (132, 126, 108), (216, 196, 152), (74, 80, 74)]
    right, bottom = canvas.width, canvas.height
    shards: list[list[Point]] = [[(0, 0), (right, 0), (right, bottom), (0, bottom)]]
    for _ in range(rng.randint(11, 17)):
        shards.sort(key=_area)
        shards += _cut(shards.pop(), rng.uniform(-0.7, 0.7), rng.uniform(-0.05, 0.05))
    for shard in shards:
        color = _vary(rng, rng.choice(earth), 12)
        canvas.polygon(shard, color)
        canvas.polygon([shard[0], shard[1], _center(shard)], _scale(color, 0.8))
    for shard in shards:
        canvas.line([*shard, shard[0]], 0.014, (44, 34, 26))


def paint_waves(canvas: Canvas, rng: Random) -> None:
    """Paint Ukiyo_e: a red sun in a pale sky over layers of blue waves with white crests."""
    sky = _vary(rng, rng.choice([(240, 224, 184), (226, 226, 206), (244, 208, 176)]), 6)
    canvas.ground(_scale(sky, 0.86), sky, sky)
    x, y, sun = canvas.width * rng.uniform(0.25, 0.75), canvas.height * rng.uniform(0.24, 0.32), rng.uniform(0.13, 0.18)
    canvas.ellipse(x, y, sun, sun, _vary(rng, (206, 54, 36), 14))
    num_waves, blue, start = rng.choice([3, 4]), rng.uniform(0.54, 0.62), rng.uniform(0.5, 0.56)
    for i in range(num_waves):
        level = canvas.height * (start + (0.94 - start) * i / num_waves)
        length, phase = rng.uniform(0.34, 0.5), rng.uniform(0, 1)
        steps = [canvas.width * k / 48 for k in range(49)]
        crest = [(u, level + 0.1 * (1 - abs(math.sin(math.pi * (u / length + phase))))) for u in steps]
        depth = 0.4 * i / (num_waves - 1)
        body = _hsv(blue, 0.45 + depth, 0.75 - depth)
        for drop, color in ((0, WHITE), (0.032, body)):
            lower = [(u, v + drop) for u, v in crest]
            canvas.polygon([*lower, (canvas.width, canvas.height), (0, canvas.height)], color)


def paint_dots(canvas: Canvas, rng: Random) -> None:
    """Paint Pointillism: land under a sky, both made of dots about a fourteenth of the side wide."""
    day, dusk = [(150, 196, 232), (196, 220, 240), (236, 214, 214)], [(246, 196, 120), (250, 220, 160), (226, 160, 150)]
    grass, corn = [(92, 148, 60), (150, 182, 70), (58, 112, 72)], [(206, 170, 62), (168, 132, 48), (120, 146, 62)]
    sky, land = rng.choice([day, dusk]), rng.choice([grass, corn])
    middle, slope = canvas.height * rng.uniform(0.48, 0.64), rng.uniform(-0.18, 0.18)
    near, far = middle - slope * canvas.width / 2, middle + slope * canvas.width / 2
    canvas.ground(_scale(sky[0], 0.8))
    below = [(0, near), (canvas.width, far), (canvas.width, canvas.height), (0, canvas.height)]
    canvas.polygon(below, _scale(land[2], 0.65))
    cell = 1 / 12
    for row in range(math.ceil(canvas.height / cell) + 1):
        for column in range(math.ceil(canvas.width / cell) + 1):
            x = (column + 0.5 * (row % 2) + rng.uniform(-0.12, 0.12)) * cell
            y = (row + rng.uniform(-0.12, 0.12)) * cell
            palette = sky if y < near + slope * x else land
            color = _vary(rng, rng.choice(palette), 8)
            canvas.ellipse(x, y, 0.44 * cell, 0.44 * cell, color)


def paint_halftone(canvas: Canvas, rng: Random) -> None:
    """Paint Pop_Art: a saturated halftone whose dots grow to one side, and a comic burst in the middle."""
    hue = rng.choice([0.0, 0.14, 0.33, 0.52, 0.62, 0.9])
    canvas.ground(_hsv(hue + 0.14 + rng.uniform(0, 0.1), rng.uniform(0.5, 0.95), 1.0))
    dots = _hsv(hue, 0.95, rng.uniform(0.8, 0.95))
    dx, dy = rng.choice([(1, 0), (-1, 0), (0, 1), (0, -1), (1, 1), (-1, 1)])
    cell = 1 / 9
    for row in range(math.ceil(canvas.height / cell) + 1):
        for column in range(math.ceil(canvas.width / cell) + 1):
            x, y = (column + 0.5 * (row % 2)) * cell, row * cell
            along = (dx * (x / canvas.width - 0.5) + dy * (y / canvas.height - 0.5)) / (abs(dx) + abs(dy))
            radius = cell * (0.34 + 0.5 * along)
            canvas.ellipse(x, y, radius, radius, dots)
    middle = (canvas.width / 2 + rng.uniform(-0.05, 0.05), canvas.height / 2 + rng.uniform(-0.05, 0.05))
    spikes, spin, reach = rng.randint(8, 11), rng.uniform(0, 1), rng.uniform(0.3, 0.36)
    for extra, color in ((0.03, INK), (0.0, _hsv(hue + 0.5, 0.85, 1.0))):
        canvas.polygon(_star(middle, spikes, spin, reach + 1.5 * extra, 0.62 * reach + extra), color)


def paint_shape(canvas: Canvas, rng: Random) -> None:
    """Paint Minimalism: one flat shape on white."""
    canvas.ground(_vary(rng, (246, 245, 241), 4))
    color = _vary(rng, rng.choice([(26, 26, 28), (200, 36, 34), (28, 68, 158), (240, 190, 30), (90, 92, 94)]), 8)
    x, y = canvas.width / 2 + rng.uniform(-0.08, 0.08), canvas.height / 2 + rng.uniform(-0.08, 0.08)
    r = rng.uniform(0.17, 0.29)
    kind = rng.choice(["disk", "triangle", "square", "bar"])
    if kind == "disk":
        canvas.ellipse(x, y, r, r, color)
    elif kind == "triangle":
        canvas.polygon([(x - r, y + 0.8 * r), (x + r, y + 0.8 * r), (x, y - 0.9 * r)], color)
    else:
        half = r if kind == "square" else 0.4 * r
        canvas.polygon([(x - half, y - r), (x + half, y - r), (x + half, y + r), (x - half, y + r)], color)


def paint_drips(canvas: Canvas, rng: Random) -> None:
    """Paint Action_painting: thrown loops, drips and splashes of a few colors on a light ground."""
    canvas.ground(_vary(rng, (232, 222, 200), 8))
    first, second = rng.sample([(190, 40, 30), (226, 168, 34), (40, 76, 140), (96, 112, 110)], 2)
    for color in (first, INK, second, INK):
        path = _curve(
            [(rng.uniform(-0.15, 1.15) * canvas.width, rng.uniform(-0.15, 1.15) * canvas.height) for _ in range(5)]
        )
        canvas.line(path, rng.uniform(0.022, 0.045), color)
        for x, y in rng.sample(path, 2):
            drop, fall = rng.uniform(0.02, 0.034), rng.uniform(0.06, 0.2)
            canvas.line([(x, y), (x, y + fall)], 0.018, color)
            canvas.ellipse(x, y + fall, drop, 1.3 * drop, color)
        for _ in range(5):
            drop = rng.uniform(0.012, 0.035)
            canvas.ellipse(rng.uniform(0, canvas.width), rng.uniform(0, canvas.height), drop, drop, color)


STYLES: dict[str, Callable[[Canvas, Random], None]] = {
    "Action_painting": paint_drips,
    "Color_Field_Painting": paint_fields,
    "Cubism": paint_shards,
    "High_Renaissance": paint_portrait,
    "Minimalism": paint_shape,
    "Pointillism": paint_dots,
    "Pop_Art": paint_halftone,
    "Ukiyo_e": paint_waves,
}


def _hsv(hue: float, saturation: float, value: float) -> Color:
    red, green, blue = colorsys.hsv_to_rgb(hue % 1, saturation, value)
    return round(255 * red), round(255 * green), round(255 * blue)


def _scale(color: Color, factor: float) -> Color:
    red, green, blue = (min(255, round(channel * factor)) for channel in color)
    return red, green, blue


def _vary(rng: Random, color: Color, amount: int) -> Color:
    red, green, blue = (min(255, max(0, channel + rng.randint(-amount, amount))) for channel in color)
    return red, green, blue


def _curve(points: Sequence[Point]) -> list[Point]:
    """Return points along the quadratic B-spline of these points, which touches the middle of each side."""
    path = []
    for (x0, y0), (x1, y1), (x2, y2) in zip(points, points[1:], points[2:], strict=False):
        for k in range(12):
            t = k / 12
            before, after = (1 - t) ** 2 / 2, t**2 / 2
            at = 1 - before - after
            path.append((before * x0 + at * x1 + after * x2, before * y0 + at * y1 + after * y2))
    return path


def _star(middle: Point, spikes: int, spin: float, outer: float, inner: float) -> list[Point]:
    turns = [(k / spikes / 2 + spin) * 2 * math.pi for k in range(2 * spikes)]
    reach = [outer, inner] * spikes
    return [(middle[0] + r * math.cos(a), middle[1] + r * math.sin(a)) for a, r in zip(turns, reach, strict=True)]


def _edges(polygon: Sequence[Point]) -> list[tuple[Point, Point]]:
    return list(zip(polygon, [*polygon[1:], polygon[0]], strict=True))


def _area(polygon: Sequence[Point]) -> float:
    return abs(sum(x0 * y1 - x1 * y0 for (x0, y0), (x1, y1) in _edges(polygon))) / 2


def _center(polygon: Sequence[Point]) -> Point:
    return sum(x for x, _ in polygon) / len(polygon), sum(y for _, y in polygon) / len(polygon)


def _cut(polygon: Sequence[Point], tilt: float, offset: float) -> list[list[Point]]:
    """Cut a convex polygon in two, across its longest edge but for a tilt, at this distance from its center."""
    x, y = _center(polygon)
    start, end = max(_edges(polygon), key=lambda edge: math.dist(*edge))
    angle = math.atan2(end[1] - start[1], end[0] - start[0]) + tilt
    halves: tuple[list[Point], list[Point]] = ([], [])
    for here, there in _edges(polygon):
        a, b = ((px - x) * math.cos(angle) + (py - y) * math.sin(angle) - offset for px, py in (here, there))
        halves[a > 0].append(here)
        if (a > 0) != (b > 0):
            t = a / (a - b)
            for half in halves:
                half.append((here[0] + t * (there[0] - here[0]), here[1] + t * (there[1] - here[1])))
    return [half for half in halves if len(half) > 2]
