"""Images of the judge probes, drawn from descriptions that list everything an image shows."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from PIL import Image

from mvl_assets.media.drawing import COLOURS, INK, PAPERS, create_canvas, draw_shape, draw_text, measure_text_width

LINE_HEIGHT, CELL_SIZE, BAR_PITCH, LINK_PITCH = 34, 112, 90, 190
SHAPE_RADIUS = CELL_SIZE * 0.36


def render_probe_png(description: Mapping[str, Any]) -> bytes:
    """Return the PNG of one probe image.

    Args:
        description: `kind` names the drawing (a key of `RENDERERS`); the other keys are its arguments.

    Raises:
        KeyError: The kind is unknown.
    """
    renderer_args = {key: value for key, value in description.items() if key != "kind"}
    buffer = io.BytesIO()
    RENDERERS[description["kind"]](**renderer_args).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def _render_text_page(lines: Sequence[str]) -> Image.Image:
    """Draw lines of text, the first one larger."""
    sizes = [26, *(20 for _ in lines[1:])]
    text_width = max(measure_text_width(line, size) for line, size in zip(lines, sizes, strict=True))
    image, draw = create_canvas((max(240, text_width + 48), max(224, len(lines) * LINE_HEIGHT + 48)), PAPERS[1])
    for number, (line, size) in enumerate(zip(lines, sizes, strict=True)):
        draw_text(draw, (24, 24 + number * LINE_HEIGHT), line, size)
    return image


def _render_bar_chart(title: str, values: Mapping[str, int]) -> Image.Image:
    """Draw bars from 0, each with its label below and its value above."""
    image, draw = create_canvas(
        (max(280, len(values) * BAR_PITCH + 40, measure_text_width(title, 18) + 24), 300), PAPERS[0]
    )
    draw_text(draw, (12, 10), title, 18)
    for number, (label, value) in enumerate(values.items()):
        left, top = 30 + number * BAR_PITCH, 260 - 190 * value / max(values.values())
        draw.rectangle((left, top, left + BAR_PITCH * 0.6, 260), fill=COLOURS["blue"])
        draw_text(draw, (left + BAR_PITCH * 0.3, top - 4), str(value), 16, anchor="mb")
        draw_text(draw, (left + BAR_PITCH * 0.3, 266), label, 15, anchor="ma")
    return image


def _render_crossing_lines(angle: int) -> Image.Image:
    """Draw two lines; the angle between them is marked, its neighbour is x, and y is opposite."""
    image, draw = create_canvas((320, 280), PAPERS[0])
    for line_angle in (0.0, float(angle)):
        x, y = math.cos(math.radians(line_angle)) * 130, math.sin(math.radians(line_angle)) * 130
        draw.line((160 - x, 140 + y, 160 + x, 140 - y), fill=INK, width=3)
    for line_angle, label in ((angle / 2, f"{angle}°"), (angle / 2 + 90, "x"), (angle / 2 + 180, "y")):
        label_xy = (160 + math.cos(math.radians(line_angle)) * 62, 140 - math.sin(math.radians(line_angle)) * 62)
        draw_text(draw, label_xy, label, 20, anchor="mm")
    return image


def _render_shape_grid(objects: Sequence[Sequence[Any]]) -> Image.Image:
    """Draw coloured shapes on a grid of three by three cells, each as (colour, shape, column, row)."""
    image, draw = create_canvas((3 * CELL_SIZE, 3 * CELL_SIZE), PAPERS[0])
    for colour, shape, column, row in objects:
        centre = ((column + 0.5) * CELL_SIZE, (row + 0.5) * CELL_SIZE)
        draw_shape(draw, shape, centre, SHAPE_RADIUS, COLOURS[colour])
    return image


def _render_rectangle(width: int, height: int) -> Image.Image:
    """Draw a rectangle to scale, with its width and height in centimetres."""
    scale = 200 / max(width, height)
    right, bottom = 60 + max(40.0, width * scale), 40 + max(40.0, height * scale)
    image, draw = create_canvas((360, 320), PAPERS[0])
    draw.rectangle((60, 40, right, bottom), outline=INK, width=3)
    draw_text(draw, ((60 + right) / 2, bottom + 10), f"{width} cm", 20, anchor="ma")
    draw_text(draw, (right + 10, (40 + bottom) / 2), f"{height} cm", 20, anchor="lm")
    return image


def _render_triangle(left: int, right: int) -> Image.Image:
    """Draw a triangle; its lower angles are marked, and the angle at the top is x."""
    image, draw = create_canvas((400, 400), PAPERS[0])
    base, (x, y) = 280.0, (60.0, 340.0)
    slope_left, slope_right = math.tan(math.radians(left)), math.tan(math.radians(right))
    run = base * slope_right / (slope_left + slope_right)
    top = (x + run, y - run * slope_left)
    draw.line([(x, y), (x + base, y), top, (x, y)], fill=INK, width=3)
    draw_text(draw, (x + 34, y - 8), f"{left}°", 18, anchor="lb")
    draw_text(draw, (x + base - 34, y - 8), f"{right}°", 18, anchor="rb")
    draw_text(draw, (top[0], top[1] + 44), "x", 18, anchor="ma")
    return image


def _render_chain(links: Sequence[str], arrow: str) -> Image.Image:
    """Draw boxes from left to right with an arrow from each to the next; a line below says what arrows mean."""
    image, draw = create_canvas((len(links) * LINK_PITCH, 224), PAPERS[0])
    for number, link in enumerate(links):
        left = number * LINK_PITCH + 14
        draw.rectangle((left, 70, left + 130, 120), outline=INK, width=2)
        draw_text(draw, (left + 65, 95), link, 18, anchor="mm")
        if number + 1 < len(links):
            draw.line((left + 132, 95, left + LINK_PITCH - 4, 95), fill=INK, width=3)
            draw.polygon(
                [(left + LINK_PITCH - 2, 95), (left + LINK_PITCH - 14, 88), (left + LINK_PITCH - 14, 102)], fill=INK
            )
    draw_text(draw, (14, 180), f"An arrow means: {arrow}", 18)
    return image


RENDERERS: Mapping[str, Callable[..., Image.Image]] = {
    "page": _render_text_page,
    "bars": _render_bar_chart,
    "chain": _render_chain,
    "crossing": _render_crossing_lines,
    "rectangle": _render_rectangle,
    "shapes": _render_shape_grid,
    "triangle": _render_triangle,
}
