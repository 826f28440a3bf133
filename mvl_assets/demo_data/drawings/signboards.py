"""Walls with signboards: lines of Chinese and Latin text with the corners of each, some of them tilted or worn away.

A maker's `fields` hold `lines`; the writers of text formats make annotations of them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from random import Random

from PIL import Image, ImageDraw

from mvl_assets.demo_data.contents import Content
from mvl_assets.demo_data.drawings import strokes
from mvl_assets.demo_data.drawings.drawing import RGB, Drawing, Pair, between, canvas, listing, text, width_of

LATIN = ("TEA 1,200", "Open daily, 9-17", "BAKERY", "No. 38", 'The "Old" Mill', "Rooms, 2nd floor", "SALE 50%")
BOARDS: tuple[tuple[RGB, RGB], ...] = (
    ((190, 30, 40), (255, 240, 200)),
    ((20, 60, 130), (255, 255, 255)),
    ((250, 245, 225), (30, 30, 30)),
    ((30, 100, 60), (250, 250, 235)),
)
TILTS = (0, 0, 0, -6, 5)


@dataclass(frozen=True, slots=True)
class Line:
    """One line of text. `corners` are the board's, clockwise from the upper left, in whole pixels."""

    words: str
    corners: tuple[tuple[int, int], ...]
    legible: bool
    chinese: bool


def wall(rng: Random, index: int, part: int) -> Content:
    """Two to four boards below each other; every third wall has one more that nobody can read."""
    size = between(rng, 26, 40, 2)
    picture, _ = canvas((size * 12, size * 13), rng.choice(((176, 170, 160), (150, 158, 168), (196, 186, 170))))
    lines = [_hang(rng, picture, size, row, row % 2 == 0) for row in range(between(rng, 2, 4))]
    if index % 3 == 1:
        lines.append(_hang(rng, picture, size, 4, True, worn=True))
    read = "\n".join(line.words for line in lines if line.legible)
    caption = f"A wall with boards that read {listing([line.words for line in lines if line.legible])}."
    pair = Pair("What is written on the boards?", read, caption)
    return Content(
        ((pair.question, pair.answer),), (Drawing(picture, (pair,), caption, False),), fields={"lines": lines}
    )


def _hang(rng: Random, wall: Image.Image, size: int, row: int, chinese: bool, worn: bool = False) -> Line:
    """Draws a board in the given fifth of the wall."""
    words = rng.choice(strokes.WORDS if chinese else LATIN)
    back, ink = rng.choice(BOARDS)
    wide = (len(words) * size if chinese else width_of(words, size)) + size
    board, draw = canvas((wide, size * 2), back)
    if worn:
        _scratch(rng, draw, board.size, ink)
    elif chinese:
        strokes.write(draw, words, (size / 2, size / 2), size, ink)
    else:
        text(draw, (size / 2, size), words, size, ink, anchor="lm")
    centre = (
        between(rng, wide // 2 + size // 2, wall.width - wide // 2 - size // 2),
        size * 3 // 2 + row * size * 5 // 2,
    )
    tilt = rng.choice(TILTS)
    turned = board.rotate(tilt, Image.Resampling.BICUBIC, expand=True)
    mask = Image.new("L", board.size, 255).rotate(tilt, expand=True)
    wall.paste(turned, (centre[0] - turned.width // 2, centre[1] - turned.height // 2), mask)
    half = (wide / 2, size)
    corners = tuple(_turned((x * half[0], y * half[1]), tilt, centre) for x, y in ((-1, -1), (1, -1), (1, 1), (-1, 1)))
    return Line(words, corners, not worn, chinese)


def _scratch(rng: Random, draw: ImageDraw.ImageDraw, size: tuple[int, int], ink: RGB) -> None:
    """A few short scratches where words may once have been."""
    wide, high = size
    for _ in range(9):
        x, y = rng.randint(high // 4, wide - high // 4), rng.randint(high // 4, high * 3 // 4)
        draw.line((x, y, x + rng.randint(-6, 6), y + rng.randint(-6, 6)), fill=ink, width=1)


def _turned(offset: tuple[float, float], degrees: int, centre: tuple[int, int]) -> tuple[int, int]:
    """Where a point lies after a turn against the clock, as Pillow turns pictures (y points down)."""
    angle = math.radians(degrees)
    x = offset[0] * math.cos(angle) + offset[1] * math.sin(angle)
    y = offset[1] * math.cos(angle) - offset[0] * math.sin(angle)
    return round(centre[0] + x), round(centre[1] + y)
