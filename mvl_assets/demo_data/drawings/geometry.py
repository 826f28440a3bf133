"""Figures of plane geometry drawn to scale, with worked solutions."""

from __future__ import annotations

import math
from random import Random

from PIL import Image, ImageDraw

from mvl_assets.demo_data.drawings.drawing import Drawing, DrawnQAPair, sample_int
from mvl_assets.media.drawing import INK, create_canvas, draw_text

Point = tuple[float, float]


def get_text_size(image: Image.Image) -> int:
    """Return the size of an image's labels in pixels: a part of the image, so that they can be read at any scale."""
    return max(16, max(image.size) // 18)


def draw_figure(rng: Random) -> Drawing:
    """Draw one of the four kinds."""
    return rng.choice((draw_triangle, draw_rectangle, draw_circle, draw_crossing_lines))(rng)


def draw_triangle(rng: Random) -> Drawing:
    """Draw a triangle with two angles given and the third asked for, in whole degrees."""
    a, b = sample_int(rng, 35, 80), sample_int(rng, 35, 65)
    c = 180 - a - b
    base = 1.0
    # Law of sines: the side from the corner with angle `a` to the apex is opposite `b`.
    side = base * math.sin(math.radians(b)) / math.sin(math.radians(c))
    corners = [(0.0, 0.0), (base, 0.0), (side * math.cos(math.radians(a)), side * math.sin(math.radians(a)))]
    image, draw, points = _create_fitted_canvas(rng, corners)
    draw.polygon(points, outline=INK, fill=(232, 240, 250), width=3)
    for name, point, label in zip("ABC", points, (f"{a}°", f"{b}°", "?"), strict=True):
        _label_corner(draw, points, point, name, label, get_text_size(image))
    rationale = f"The angles of a triangle add up to 180°. 180° - {a}° - {b}° = {c}°."
    largest = max((a, "A"), (b, "B"), (c, "C"))
    qa_pairs = (
        DrawnQAPair("What is the size of the angle at C, in degrees?", str(c), rationale),
        DrawnQAPair(
            "What do the two given angles add up to, in degrees?",
            str(a + b),
            f"The angles at A and B are {a}° and {b}°, and {a} + {b} = {a + b}.",
        ),
        DrawnQAPair(
            "Does the triangle have an angle of more than 90°?",
            "yes" if largest[0] > 90 else "no",
            f"{rationale} The largest angle is {largest[0]}°.",
        ),
    )
    return Drawing(image, qa_pairs, f"A triangle ABC with {a}° at A and {b}° at B.", needs_colour=False)


def draw_rectangle(rng: Random) -> Drawing:
    """Draw a rectangle with its sides given."""
    width, height = rng.sample(range(3, 13), 2)
    image, draw, points = _create_fitted_canvas(rng, [(0, 0), (width, 0), (width, height), (0, height)])
    draw.polygon(points, outline=INK, fill=(250, 240, 224), width=3)
    (x0, y0), (x1, _), (_, y1), _ = points
    size = get_text_size(image)
    draw_text(draw, ((x0 + x1) / 2, y0 + 6), f"{width} cm", size, anchor="ma")
    draw_text(draw, (x0 + 6, (y0 + y1) / 2), f"{height} cm", size, anchor="lm")
    perimeter = 2 * (width + height)
    qa_pairs = (
        DrawnQAPair(
            "What is the area of the rectangle in square centimetres?",
            str(width * height),
            f"The area is width times height: {width} x {height} = {width * height}.",
        ),
        DrawnQAPair(
            "What is the perimeter of the rectangle in centimetres?",
            str(perimeter),
            f"The perimeter is twice width plus height: 2 x ({width} + {height}) = {perimeter}.",
        ),
        DrawnQAPair(
            "By how many centimetres do the two sides differ?",
            str(abs(width - height)),
            f"{max(width, height)} - {min(width, height)} = {abs(width - height)}.",
        ),
    )
    caption = f"A rectangle {width} cm wide and {height} cm high."
    return Drawing(image, qa_pairs, caption, needs_colour=False)


def draw_circle(rng: Random) -> Drawing:
    """Draw a circle with its radius given."""
    radius = sample_int(rng, 2, 12)
    side = sample_int(rng, 240, 420, 20)
    image, draw = create_canvas((side, side), (255, 255, 255))
    centre, radius_px = side / 2, side * 0.38
    draw.ellipse(
        (centre - radius_px, centre - radius_px, centre + radius_px, centre + radius_px),
        outline=INK,
        fill=(228, 245, 232),
        width=3,
    )
    draw.line((centre, centre, centre + radius_px, centre), fill=(190, 40, 40), width=3)
    draw.ellipse((centre - 4, centre - 4, centre + 4, centre + 4), fill=INK)
    draw_text(draw, (centre + radius_px / 2, centre - 6), f"{radius} cm", get_text_size(image), anchor="mb")
    draw_text(draw, (centre - 6, centre + 4), "M", get_text_size(image), anchor="ra")
    qa_pairs = (
        DrawnQAPair(
            "What is the diameter of the circle in centimetres?",
            str(2 * radius),
            f"The radius is {radius} cm, and the diameter is twice the radius: 2 x {radius} = {2 * radius}.",
        ),
        DrawnQAPair(
            "The area is a multiple of pi. Which whole number stands before pi, in square centimetres?",
            str(radius * radius),
            f"The area is pi times the radius squared: {radius} x {radius} = {radius * radius}.",
        ),
        DrawnQAPair(
            "The circumference is a multiple of pi. Which whole number stands before pi, in centimetres?",
            str(2 * radius),
            f"The circumference is 2 x pi x radius, and 2 x {radius} = {2 * radius}.",
        ),
    )
    return Drawing(image, qa_pairs, f"A circle around M with a radius of {radius} cm.", needs_colour=False)


def draw_crossing_lines(rng: Random) -> Drawing:
    """Draw two crossing lines: vertical angles are equal, adjacent ones add up to 180 degrees."""
    angle = sample_int(rng, 30, 85)
    side = sample_int(rng, 240, 400, 20)
    image, draw = create_canvas((side + 60, side), (255, 255, 255))
    centre, half_length = ((side + 60) / 2, side / 2), side * 0.44
    for line_angle in (0.0, float(angle)):
        x, y = math.cos(math.radians(line_angle)) * half_length, math.sin(math.radians(line_angle)) * half_length
        draw.line((centre[0] - x, centre[1] + y, centre[0] + x, centre[1] - y), fill=INK, width=3)
    for line_angle, label in ((angle / 2, f"{angle}°"), (angle / 2 + 90, "x"), (angle / 2 + 180, "y")):
        label_xy = (
            centre[0] + math.cos(math.radians(line_angle)) * 3 * get_text_size(image),
            centre[1] - math.sin(math.radians(line_angle)) * 3 * get_text_size(image),
        )
        draw_text(draw, label_xy, label, get_text_size(image), anchor="mm")
    supplementary_angle = 180 - angle
    qa_pairs = (
        DrawnQAPair(
            "How many degrees is the angle x?",
            str(supplementary_angle),
            f"x and {angle}° lie beside each other on a straight line: 180° - {angle}° = {supplementary_angle}°.",
        ),
        DrawnQAPair(
            "How many degrees is the angle y?",
            str(angle),
            f"y lies opposite the angle of {angle}°, and opposite angles at a crossing are equal.",
        ),
    )
    return Drawing(image, qa_pairs, f"Two lines cross at an angle of {angle}°.", needs_colour=False)


def _create_fitted_canvas(rng: Random, corners: list[Point]) -> tuple[Image.Image, ImageDraw.ImageDraw, list[Point]]:
    """Return a canvas with the corners (y upwards) scaled into it, with a margin of 56 px."""
    max_side = sample_int(rng, 180, 420, 20)
    xs, ys = [x for x, _ in corners], [y for _, y in corners]
    scale = max_side / max(max(xs) - min(xs), max(ys) - min(ys))
    size = (int((max(xs) - min(xs)) * scale) + 112, int((max(ys) - min(ys)) * scale) + 112)
    image, draw = create_canvas(size, (255, 255, 255))
    return image, draw, [(56 + (x - min(xs)) * scale, size[1] - 56 - (y - min(ys)) * scale) for x, y in corners]


def _label_corner(
    draw: ImageDraw.ImageDraw, points: list[Point], corner: Point, name: str, label: str, size: int
) -> None:
    """Draw the corner's name outside and its angle inside."""
    centre = (sum(x for x, _ in points) / 3, sum(y for _, y in points) / 3)
    distance = math.dist(centre, corner)
    step = ((centre[0] - corner[0]) / distance, (centre[1] - corner[1]) / distance)
    draw_text(draw, (corner[0] - step[0] * 18, corner[1] - step[1] * 18), name, size, anchor="mm")
    draw_text(draw, (corner[0] + step[0] * 2.6 * size, corner[1] + step[1] * 2.6 * size), label, size, anchor="mm")
