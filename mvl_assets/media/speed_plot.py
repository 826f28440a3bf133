"""How fast a run went, as a picture small enough for an event: one line per measure over the time of the run.

Belongs here: the drawing. matplotlib would draw it nicer, and is installed only where models are trained.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence

from PIL import Image, ImageDraw, ImageFont

WIDTH, HEIGHT = 640, 110
LEFT, RIGHT, TOP, FOOT = 12, 70, 24, 20
PAPER, INK, GRID = (255, 255, 255), (60, 60, 66), (225, 225, 228)
COLOURS = ((31, 78, 121), (176, 92, 20))


def speed_plot(seconds: Sequence[float], measures: Mapping[str, Sequence[float]]) -> bytes:
    """A PNG of 640 pixels across and 110 per measure. `measures` holds one value per entry of `seconds`, by name.

    Raises `ValueError` for fewer than two readings.
    """
    if len(seconds) < 2:
        raise ValueError("a line needs two readings")
    picture = Image.new("RGB", (WIDTH, HEIGHT * len(measures)), PAPER)
    draw = ImageDraw.Draw(picture)
    font = ImageFont.load_default(size=12)
    right, span = WIDTH - RIGHT, max(seconds[-1] - seconds[0], 1e-9)
    for place, (name, values) in enumerate(measures.items()):
        top, foot = HEIGHT * place + TOP, HEIGHT * (place + 1) - FOOT
        most = max(*values, 1e-9)
        for level in (top, foot):
            draw.line((LEFT, level, right, level), fill=GRID)
        points = [
            (LEFT + (right - LEFT) * (at - seconds[0]) / span, foot - (foot - top) * value / most)
            for at, value in zip(seconds, values, strict=True)
        ]
        draw.line(points, fill=COLOURS[place % len(COLOURS)], width=2)
        draw.text((LEFT, top - 18), name, fill=INK, font=font)
        draw.text((right + 6, top), f"{most:,.1f}", fill=INK, font=font, anchor="lm")
        draw.text((right + 6, foot), "0", fill=INK, font=font, anchor="lm")
        draw.text((LEFT, foot + 3), "0 s", fill=INK, font=font)
        draw.text((right, foot + 3), f"{span:,.0f} s", fill=INK, font=font, anchor="ra")
    buffer = io.BytesIO()
    picture.quantize(16).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()
