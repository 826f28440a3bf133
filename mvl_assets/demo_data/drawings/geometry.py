"""Figures of plane geometry drawn to scale, with worked solutions."""

from __future__ import annotations

import math
from random import Random

from PIL import Image, ImageDraw

from mvl_assets.demo_data.drawings.drawing import INK, Drawing, Pair, between, canvas, text

Point = tuple[float, float]


def figure(rng: Random) -> Drawing:
    """One of the four kinds."""
    return rng.choice((triangle, rectangle, circle, crossing))(rng)


def triangle(rng: Random) -> Drawing:
    """Two angles are written, the third is asked. Angles in whole degrees."""
    a, b = between(rng, 35, 80), between(rng, 35, 65)
    c = 180 - a - b
    base = 1.0
    # Law of sines: the side from the corner with angle `a` to the apex is opposite `b`.
    side = base * math.sin(math.radians(b)) / math.sin(math.radians(c))
    corners = [(0.0, 0.0), (base, 0.0), (side * math.cos(math.radians(a)), side * math.sin(math.radians(a)))]
    picture, draw, points = _fit(rng, corners)
    draw.polygon(points, outline=INK, fill=(232, 240, 250), width=3)
    for name, point, label in zip("ABC", points, (f"{a}°", f"{b}°", "?"), strict=True):
        _corner(draw, points, point, name, label)
    steps = f"The angles of a triangle add up to 180°. 180° - {a}° - {b}° = {c}°."
    largest = max((a, "A"), (b, "B"), (c, "C"))
    pairs = (
        Pair("What is the size of the angle at C, in degrees?", str(c), steps),
        Pair(
            "What do the two given angles add up to, in degrees?",
            str(a + b),
            f"The angles at A and B are {a}° and {b}°, and {a} + {b} = {a + b}.",
        ),
        Pair(
            "Does the triangle have an angle of more than 90°?",
            "yes" if largest[0] > 90 else "no",
            f"{steps} The largest angle is {largest[0]}°.",
        ),
    )
    return Drawing(picture, pairs, f"A triangle ABC with {a}° at A and {b}° at B.", needs_colour=False)


def rectangle(rng: Random) -> Drawing:
    wide, high = rng.sample(range(3, 13), 2)
    picture, draw, points = _fit(rng, [(0, 0), (wide, 0), (wide, high), (0, high)])
    draw.polygon(points, outline=INK, fill=(250, 240, 224), width=3)
    (x0, y0), (x1, _), (_, y1), _ = points
    text(draw, ((x0 + x1) / 2, y0 + 6), f"{wide} cm", 16, anchor="ma")
    text(draw, (x0 - 6, (y0 + y1) / 2), f"{high} cm", 16, anchor="rm")
    around = 2 * (wide + high)
    pairs = (
        Pair(
            "What is the area of the rectangle in square centimetres?",
            str(wide * high),
            f"The area is width times height: {wide} x {high} = {wide * high}.",
        ),
        Pair(
            "What is the perimeter of the rectangle in centimetres?",
            str(around),
            f"The perimeter is twice width plus height: 2 x ({wide} + {high}) = {around}.",
        ),
        Pair(
            "By how many centimetres do the two sides differ?",
            str(abs(wide - high)),
            f"{max(wide, high)} - {min(wide, high)} = {abs(wide - high)}.",
        ),
    )
    caption = f"A rectangle {wide} cm wide and {high} cm high."
    return Drawing(picture, pairs, caption, needs_colour=False)


def circle(rng: Random) -> Drawing:
    radius = between(rng, 2, 12)
    side = between(rng, 240, 420, 20)
    picture, draw = canvas((side, side), (255, 255, 255))
    mid, reach = side / 2, side * 0.38
    draw.ellipse((mid - reach, mid - reach, mid + reach, mid + reach), outline=INK, fill=(228, 245, 232), width=3)
    draw.line((mid, mid, mid + reach, mid), fill=(190, 40, 40), width=3)
    draw.ellipse((mid - 4, mid - 4, mid + 4, mid + 4), fill=INK)
    text(draw, (mid + reach / 2, mid - 6), f"{radius} cm", 17, anchor="mb")
    text(draw, (mid - 6, mid + 4), "M", 16, anchor="ra")
    pairs = (
        Pair(
            "What is the diameter of the circle in centimetres?",
            str(2 * radius),
            f"The radius is {radius} cm, and the diameter is twice the radius: 2 x {radius} = {2 * radius}.",
        ),
        Pair(
            "The area is a multiple of pi. Which whole number stands before pi, in square centimetres?",
            str(radius * radius),
            f"The area is pi times the radius squared: {radius} x {radius} = {radius * radius}.",
        ),
        Pair(
            "The circumference is a multiple of pi. Which whole number stands before pi, in centimetres?",
            str(2 * radius),
            f"The circumference is 2 x pi x radius, and 2 x {radius} = {2 * radius}.",
        ),
    )
    return Drawing(picture, pairs, f"A circle around M with a radius of {radius} cm.", needs_colour=False)


def crossing(rng: Random) -> Drawing:
    """Two lines cross; vertical angles are equal, neighbours add up to 180 degrees."""
    angle = between(rng, 30, 85)
    side = between(rng, 240, 400, 20)
    picture, draw = canvas((side + 60, side), (255, 255, 255))
    mid, reach = ((side + 60) / 2, side / 2), side * 0.44
    for turn in (0.0, float(angle)):
        x, y = math.cos(math.radians(turn)) * reach, math.sin(math.radians(turn)) * reach
        draw.line((mid[0] - x, mid[1] + y, mid[0] + x, mid[1] - y), fill=INK, width=3)
    for turn, label in ((angle / 2, f"{angle}°"), (angle / 2 + 90, "x"), (angle / 2 + 180, "y")):
        at = (mid[0] + math.cos(math.radians(turn)) * 52, mid[1] - math.sin(math.radians(turn)) * 52)
        text(draw, at, label, 18, anchor="mm")
    other = 180 - angle
    pairs = (
        Pair(
            "How many degrees is the angle x?",
            str(other),
            f"x and {angle}° lie beside each other on a straight line: 180° - {angle}° = {other}°.",
        ),
        Pair(
            "How many degrees is the angle y?",
            str(angle),
            f"y lies opposite the angle of {angle}°, and opposite angles at a crossing are equal.",
        ),
    )
    return Drawing(picture, pairs, f"Two lines cross at an angle of {angle}°.", needs_colour=False)


def _fit(rng: Random, corners: list[Point]) -> tuple[Image.Image, ImageDraw.ImageDraw, list[Point]]:
    """A canvas with the corners (y upwards) scaled into it, a margin of 56 px around."""
    reach = between(rng, 180, 420, 20)
    xs, ys = [x for x, _ in corners], [y for _, y in corners]
    scale = reach / max(max(xs) - min(xs), max(ys) - min(ys))
    size = (int((max(xs) - min(xs)) * scale) + 112, int((max(ys) - min(ys)) * scale) + 112)
    picture, draw = canvas(size, (255, 255, 255))
    return picture, draw, [(56 + (x - min(xs)) * scale, size[1] - 56 - (y - min(ys)) * scale) for x, y in corners]


def _corner(draw: ImageDraw.ImageDraw, points: list[Point], at: Point, name: str, label: str) -> None:
    """The corner's name outside, its angle inside."""
    mid = (sum(x for x, _ in points) / 3, sum(y for _, y in points) / 3)
    away = math.dist(mid, at)
    step = ((mid[0] - at[0]) / away, (mid[1] - at[1]) / away)
    text(draw, (at[0] - step[0] * 18, at[1] - step[1] * 18), name, 18, anchor="mm")
    text(draw, (at[0] + step[0] * 46, at[1] + step[1] * 46), label, 16, anchor="mm")
