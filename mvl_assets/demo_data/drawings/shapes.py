"""Plain shapes as drawing primitives. Not here: questions about them (`questions`, `scenes`)."""

from __future__ import annotations

import math

from PIL import ImageDraw

from mvl_assets.demo_data.drawings.drawing import RGB

SHAPES = ("circle", "square", "triangle", "star")


def compute_polygon(shape: str, centre: tuple[float, float], radius: float) -> list[tuple[float, float]]:
    """Corners of a polygon shape that fits the circle of `radius` pixels around `centre`. Circles have none."""
    x, y = centre
    if shape == "square":
        angles, radii = [0.125, 0.375, 0.625, 0.875], [radius * 1.1]
    elif shape == "triangle":
        angles, radii = [0.0, 1 / 3, 2 / 3], [radius * 1.1]
    elif shape == "star":
        angles, radii = [n / 10 for n in range(10)], [radius * 1.1, radius * 0.5]
    else:
        raise ValueError(f"{shape} is not a polygon drawn here")
    return [
        (
            x + radii[n % len(radii)] * math.sin(2 * math.pi * turn),
            y - radii[n % len(radii)] * math.cos(2 * math.pi * turn),
        )
        for n, turn in enumerate(angles)
    ]


def draw_shape(draw: ImageDraw.ImageDraw, shape: str, centre: tuple[float, float], radius: float, colour: RGB) -> None:
    """Fill `shape`; its centre always carries the colour."""
    if shape == "circle":
        x, y = centre
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=colour)
    else:
        draw.polygon(compute_polygon(shape, centre, radius), fill=colour)
