"""Walls with signboards: lines of Chinese and Latin text with the corners of each, some of them tilted or worn.

A builder's `fields` hold `text_lines`; `layouts.regions` makes annotations of them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from random import Random

from PIL import Image, ImageDraw

from mvl_assets.demo_data.contents import RowContent
from mvl_assets.demo_data.drawings import strokes
from mvl_assets.demo_data.drawings.drawing import Drawing, DrawnQAPair, join_with_and, sample_int
from mvl_assets.media.drawing import RGB, create_canvas, draw_text, measure_text_width

LATIN_TEXTS = ("TEA 1,200", "Open daily, 9-17", "BAKERY", "No. 38", 'The "Old" Mill', "Rooms, 2nd floor", "SALE 50%")
BOARD_COLOURS: tuple[tuple[RGB, RGB], ...] = (
    ((190, 30, 40), (255, 240, 200)),
    ((20, 60, 130), (255, 255, 255)),
    ((250, 245, 225), (30, 30, 30)),
    ((30, 100, 60), (250, 250, 235)),
)
TILT_DEGREES = (0, 0, 0, -6, 5)


@dataclass(frozen=True, slots=True)
class TextLine:
    """One line of text. `corners` are the board's, clockwise from the upper left, in whole pixels."""

    text: str
    corners: tuple[tuple[int, int], ...]
    is_legible: bool
    is_chinese: bool


def build_signboard_wall(rng: Random, image_index: int, row_in_image: int) -> RowContent:
    """Return a wall of two to four boards below each other; every third wall has one more, which is illegible."""
    size = sample_int(rng, 26, 40, 2)
    image, _ = create_canvas((size * 12, size * 13), rng.choice(((176, 170, 160), (150, 158, 168), (196, 186, 170))))
    lines = [_draw_board(rng, image, size, row, row % 2 == 0) for row in range(sample_int(rng, 2, 4))]
    if image_index % 3 == 1:
        lines.append(_draw_board(rng, image, size, 4, True, is_worn=True))
    answer = "\n".join(line.text for line in lines if line.is_legible)
    caption = f"A wall with boards that read {join_with_and([line.text for line in lines if line.is_legible])}."
    qa_pair = DrawnQAPair("What is written on the boards?", answer, caption)
    return RowContent(
        ((qa_pair.question, qa_pair.answer),),
        (Drawing(image, (qa_pair,), caption, False),),
        fields={"text_lines": lines},
    )


def _draw_board(
    rng: Random, wall_image: Image.Image, size: int, row_index: int, is_chinese: bool, is_worn: bool = False
) -> TextLine:
    """Draw a board in the given fifth of the wall."""
    text_content = rng.choice(strokes.CHINESE_WORDS if is_chinese else LATIN_TEXTS)
    background, ink = rng.choice(BOARD_COLOURS)
    board_width = (len(text_content) * size if is_chinese else measure_text_width(text_content, size)) + size
    board, draw = create_canvas((board_width, size * 2), background)
    if is_worn:
        _draw_scratches(rng, draw, board.size, ink)
    elif is_chinese:
        strokes.draw_characters(draw, text_content, (size / 2, size / 2), size, ink)
    else:
        draw_text(draw, (size / 2, size), text_content, size, ink, anchor="lm")
    centre = (
        sample_int(rng, board_width // 2 + size // 2, wall_image.width - board_width // 2 - size // 2),
        size * 3 // 2 + row_index * size * 5 // 2,
    )
    tilt = rng.choice(TILT_DEGREES)
    rotated_board = board.rotate(tilt, Image.Resampling.BICUBIC, expand=True)
    mask = Image.new("L", board.size, 255).rotate(tilt, expand=True)
    wall_image.paste(rotated_board, (centre[0] - rotated_board.width // 2, centre[1] - rotated_board.height // 2), mask)
    half_size = (board_width / 2, size)
    corners = tuple(
        _rotate_point((x * half_size[0], y * half_size[1]), tilt, centre)
        for x, y in ((-1, -1), (1, -1), (1, 1), (-1, 1))
    )
    return TextLine(text_content, corners, not is_worn, is_chinese)


def _draw_scratches(rng: Random, draw: ImageDraw.ImageDraw, size: tuple[int, int], ink: RGB) -> None:
    """Draw a few short scratches where words may once have been."""
    width, height = size
    for _ in range(9):
        x, y = rng.randint(height // 4, width - height // 4), rng.randint(height // 4, height * 3 // 4)
        draw.line((x, y, x + rng.randint(-6, 6), y + rng.randint(-6, 6)), fill=ink, width=1)


def _rotate_point(offset: tuple[float, float], degrees: int, centre: tuple[int, int]) -> tuple[int, int]:
    """Return a point after a counter-clockwise rotation, as Pillow rotates images (y points down)."""
    angle = math.radians(degrees)
    x = offset[0] * math.cos(angle) + offset[1] * math.sin(angle)
    y = offset[1] * math.cos(angle) - offset[0] * math.sin(angle)
    return round(centre[0] + x), round(centre[1] + y)
