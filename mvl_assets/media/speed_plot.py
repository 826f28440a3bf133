"""How fast a run went, as a picture small enough for an event: one line per measure over the time of the run.

Belongs here: the drawing. matplotlib would draw it nicer, and is installed only where models are trained.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence

from PIL import Image, ImageDraw, ImageFont

PLOT_WIDTH, PANEL_HEIGHT = 640, 110
LEFT, RIGHT, TOP, BOTTOM = 12, 70, 24, 20
BACKGROUND_COLOUR, TEXT_COLOUR, GRID_COLOUR = (255, 255, 255), (60, 60, 66), (225, 225, 228)
LINE_COLOURS = ((31, 78, 121), (176, 92, 20))


def draw_speed_plot(times_s: Sequence[float], series: Mapping[str, Sequence[float]]) -> bytes:
    """A PNG of 640 pixels across and 110 per measure. `series` holds one value per entry of `times_s`, by name.

    Raises `ValueError` for fewer than two readings.
    """
    if len(times_s) < 2:
        raise ValueError("a line needs two readings")
    image = Image.new("RGB", (PLOT_WIDTH, PANEL_HEIGHT * len(series)), BACKGROUND_COLOUR)
    draw = ImageDraw.Draw(image)
    font = ImageFont.load_default(size=12)
    right, duration_s = PLOT_WIDTH - RIGHT, max(times_s[-1] - times_s[0], 1e-9)
    for panel_index, (name, values) in enumerate(series.items()):
        top, bottom = PANEL_HEIGHT * panel_index + TOP, PANEL_HEIGHT * (panel_index + 1) - BOTTOM
        max_value = max(*values, 1e-9)
        for y in (top, bottom):
            draw.line((LEFT, y, right, y), fill=GRID_COLOUR)
        points = [
            (LEFT + (right - LEFT) * (time_s - times_s[0]) / duration_s, bottom - (bottom - top) * value / max_value)
            for time_s, value in zip(times_s, values, strict=True)
        ]
        draw.line(points, fill=LINE_COLOURS[panel_index % len(LINE_COLOURS)], width=2)
        draw.text((LEFT, top - 18), name, fill=TEXT_COLOUR, font=font)
        draw.text((right + 6, top), f"{max_value:,.1f}", fill=TEXT_COLOUR, font=font, anchor="lm")
        draw.text((right + 6, bottom), "0", fill=TEXT_COLOUR, font=font, anchor="lm")
        draw.text((LEFT, bottom + 3), "0 s", fill=TEXT_COLOUR, font=font)
        draw.text((right, bottom + 3), f"{duration_s:,.0f} s", fill=TEXT_COLOUR, font=font, anchor="ra")
    buffer = io.BytesIO()
    image.quantize(16).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()
