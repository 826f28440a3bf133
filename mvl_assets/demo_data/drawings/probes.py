"""Pictures drawn from a description that says everything they show, so that it is known what is true of them.

Belongs here: the kinds of pictures such a description may name. Not here: what is asked about them.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from PIL import Image

from mvl_assets.demo_data.drawings.drawing import COLOURS, INK, PAPERS, canvas, text, width_of
from mvl_assets.demo_data.drawings.scenes import Thing, paint

LINE, CELL, BAR = 34, 112, 90


def drawn(description: Mapping[str, Any]) -> bytes:
    """A PNG. `kind` names the drawing, the other keys are its arguments. Raises `KeyError` for a kind unknown here."""
    rest = {key: value for key, value in description.items() if key != "kind"}
    buffer = io.BytesIO()
    KINDS[description["kind"]](**rest).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def _page(lines: Sequence[str]) -> Image.Image:
    """Lines of text, the first one larger."""
    sizes = [26, *(20 for _ in lines[1:])]
    across = max(width_of(line, size) for line, size in zip(lines, sizes, strict=True))
    picture, draw = canvas((max(240, across + 48), max(224, len(lines) * LINE + 48)), PAPERS[1])
    for number, (line, size) in enumerate(zip(lines, sizes, strict=True)):
        text(draw, (24, 24 + number * LINE), line, size)
    return picture


def _bars(title: str, values: Mapping[str, int]) -> Image.Image:
    """Bars from 0, each with its label below and its value above."""
    picture, draw = canvas((max(280, len(values) * BAR + 40, width_of(title, 18) + 24), 300), PAPERS[0])
    text(draw, (12, 10), title, 18)
    for number, (label, value) in enumerate(values.items()):
        left, top = 30 + number * BAR, 260 - 190 * value / max(values.values())
        draw.rectangle((left, top, left + BAR * 0.6, 260), fill=COLOURS["blue"])
        text(draw, (left + BAR * 0.3, top - 4), str(value), 16, anchor="mb")
        text(draw, (left + BAR * 0.3, 266), label, 15, anchor="ma")
    return picture


def _crossing(angle: int) -> Image.Image:
    """Two lines; the angle between them is marked, its neighbour is x, and y lies opposite."""
    picture, draw = canvas((320, 280), PAPERS[0])
    for turn in (0.0, float(angle)):
        x, y = math.cos(math.radians(turn)) * 130, math.sin(math.radians(turn)) * 130
        draw.line((160 - x, 140 + y, 160 + x, 140 - y), fill=INK, width=3)
    for turn, label in ((angle / 2, f"{angle}°"), (angle / 2 + 90, "x"), (angle / 2 + 180, "y")):
        at = (160 + math.cos(math.radians(turn)) * 62, 140 - math.sin(math.radians(turn)) * 62)
        text(draw, at, label, 20, anchor="mm")
    return picture


def _shapes(things: Sequence[Sequence[Any]]) -> Image.Image:
    """Coloured shapes on a grid of three by three: (colour, shape, column, row)."""
    listed = [Thing(shape, colour, column, row) for colour, shape, column, row in things]
    return paint(listed, 3, 3, CELL, PAPERS[0])


KINDS: Mapping[str, Callable[..., Image.Image]] = {
    "page": _page,
    "bars": _bars,
    "crossing": _crossing,
    "shapes": _shapes,
}
