"""A line plot of a run's throughput, small enough for an event: one panel per measure over the time of the run.

Drawn with Pillow, because matplotlib is installed only where models are trained.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence

from PIL import Image, ImageDraw, ImageFont

PLOT_WIDTH, PANEL_HEIGHT = 640, 110
LEFT, RIGHT, TOP, BOTTOM = 12, 70, 24, 20
"""Margins of a panel, in pixels."""
BACKGROUND_COLOUR, TEXT_COLOUR, GRID_COLOUR = (255, 255, 255), (60, 60, 66), (225, 225, 228)
LINE_COLOURS = ((31, 78, 121), (176, 92, 20))


def draw_speed_plot(times_s: Sequence[float], series: Mapping[str, Sequence[float]]) -> bytes:
    """Return a PNG, `PLOT_WIDTH` pixels wide and `PANEL_HEIGHT` high per measure.

    Args:
        times_s: Seconds of the readings, in order.
        series: One value per reading, by the name of the measure.

    Raises:
        ValueError: There are fewer than two readings.
    """
    if len(times_s) < 2:
        raise ValueError("a line needs two readings")
    image = Image.new("RGB", (PLOT_WIDTH, PANEL_HEIGHT * len(series)), BACKGROUND_COLOUR)
    draw = ImageDraw.Draw(image)
    font = ImageFont.load_default(size=12)
    right = PLOT_WIDTH - RIGHT
    for panel_index, (name, values) in enumerate(series.items()):
        top, bottom = PANEL_HEIGHT * panel_index + TOP, PANEL_HEIGHT * (panel_index + 1) - BOTTOM
        for y in (top, bottom):
            draw.line((LEFT, y, right, y), fill=GRID_COLOUR)
        points = compute_line_points(times_s, values, panel_index)
        draw.line(points, fill=LINE_COLOURS[panel_index % len(LINE_COLOURS)], width=2)
        draw.text((LEFT, top - 18), name, fill=TEXT_COLOUR, font=font)
        draw.text((right + 6, top), f"{_compute_scale(values):,.1f}", fill=TEXT_COLOUR, font=font, anchor="lm")
        draw.text((right + 6, bottom), "0", fill=TEXT_COLOUR, font=font, anchor="lm")
        draw.text((LEFT, bottom + 3), "0 s", fill=TEXT_COLOUR, font=font)
        draw.text(
            (right, bottom + 3),
            f"{_compute_scale(times_s, times_s[0]):,.0f} s",
            fill=TEXT_COLOUR,
            font=font,
            anchor="ra",
        )
    return encode_plot(image)


def encode_plot(image: Image.Image) -> bytes:
    """Return a PNG of at most 16 colours."""
    buffer = io.BytesIO()
    image.quantize(16).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def compute_line_points(
    times_s: Sequence[float], values: Sequence[float], panel_index: int
) -> list[tuple[float, float]]:
    """Return the (x, y) pixels of a measure's line, from the left to the right margin, zero at the panel's bottom."""
    top, bottom = PANEL_HEIGHT * panel_index + TOP, PANEL_HEIGHT * (panel_index + 1) - BOTTOM
    width, duration_s, max_value = (
        PLOT_WIDTH - RIGHT - LEFT,
        _compute_scale(times_s, times_s[0]),
        _compute_scale(values),
    )
    return [
        (LEFT + width * (time_s - times_s[0]) / duration_s, bottom - (bottom - top) * value / max_value)
        for time_s, value in zip(times_s, values, strict=True)
    ]


def _compute_scale(values: Sequence[float], origin: float = 0.0) -> float:
    return max(max(values) - origin, 1e-9)
