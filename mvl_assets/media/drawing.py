"""Drawing primitives: a palette, the font inside Pillow, canvases, text and plain shapes."""

from __future__ import annotations

import math
from functools import lru_cache
from types import MappingProxyType

from PIL import Image, ImageDraw, ImageFont

RGB = tuple[int, int, int]

# Far enough apart that a JPEG or a palette keeps them distinct, and each has one plain English name.
COLOURS: MappingProxyType[str, RGB] = MappingProxyType(
    {
        "red": (214, 39, 40),
        "green": (44, 150, 62),
        "blue": (35, 86, 205),
        "yellow": (245, 205, 30),
        "purple": (132, 58, 170),
        "orange": (245, 130, 25),
        "black": (20, 20, 20),
        "pink": (240, 130, 180),
    }
)
PAPERS: tuple[RGB, ...] = ((255, 255, 255), (250, 247, 238), (238, 243, 248), (244, 244, 244))
INK: RGB = (30, 30, 34)

SHAPES = ("circle", "square", "triangle", "star")


@lru_cache(maxsize=64)
def load_font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Return Pillow's built-in font at `size` pixels, so that images do not depend on a machine's fonts."""
    return ImageFont.load_default(size=size)


def create_canvas(size: tuple[int, int], paper: RGB) -> tuple[Image.Image, ImageDraw.ImageDraw]:
    """Return an image of `size` (width, height) filled with `paper`, and the object that draws on it."""
    image = Image.new("RGB", size, paper)
    return image, ImageDraw.Draw(image)


def draw_text(
    draw: ImageDraw.ImageDraw, xy: tuple[float, float], text: str, size: int, ink: RGB = INK, anchor: str = "la"
) -> None:
    """Write text on an image.

    Args:
        draw: Canvas.
        xy: Place of the anchor, in pixels.
        text: The text.
        size: Size of the font, in pixels.
        ink: Colour of the text.
        anchor: Pillow's two-letter anchor: which point of the text is at `xy`.
    """
    draw.text(xy, text, fill=ink, font=load_font(size), anchor=anchor)


def measure_text_width(text: str, size: int) -> int:
    """Return the width of `text` in pixels at font size `size`, rounded up."""
    return int(load_font(size).getlength(text)) + 1


def compute_polygon(shape: str, centre: tuple[float, float], radius: float) -> list[tuple[float, float]]:
    """Return the corners of a polygon shape that fits the circle of `radius` pixels around `centre`.

    Raises:
        ValueError: The shape is not a polygon drawn here; circles have no corners.
    """
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
    """Fill `shape` with `colour`; the colour always covers its centre.

    Args:
        draw: Canvas.
        shape: One of `SHAPES`.
        centre: Centre in pixels.
        radius: Distance from the centre to the outermost point, in pixels.
        colour: Colour of the shape.
    """
    if shape == "circle":
        x, y = centre
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=colour)
    else:
        draw.polygon(compute_polygon(shape, centre, radius), fill=colour)
