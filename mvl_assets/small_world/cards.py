"""Cards: a few shapes, numbers and words on plain paper, named in reading order.

Every word of a card's caption depends on its image, so a vision tower learns to see from cards in a fraction of the
time that conversations need, most of whose words follow from other words.
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from PIL import Image

from mvl_assets.demo_data.drawings import charts, diagrams, documents, tables
from mvl_assets.media.drawing import (
    COLOURS,
    INK,
    PAPERS,
    RGB,
    SHAPES,
    create_canvas,
    draw_shape,
    draw_text,
    load_font,
    measure_text_width,
)

CARD_SIZE = 128
"""Width and height in pixels: one tile."""

# Cards are drawn larger and shrunk, so that their edges look like those of drawings that are shrunk to a tile.
_SCALE = 3
_BOARDS: tuple[tuple[RGB, RGB], ...] = (((30, 80, 200), (255, 255, 255)), ((30, 120, 60), (255, 255, 255)))
# Columns and rows. A single item is learned first: with several, a tower has to find each before it can read it.
_GRIDS = ((1, 1), (2, 1), (1, 2), (1, 3), (2, 2), (2, 3), (3, 2), (3, 3), (2, 4), (1, 5))
_GRID_WEIGHTS = (16, 2, 2, 1, 2, 1, 1, 1, 1, 1)
_SUFFIXES = ("", "", "", "%", "°", " cm")

WORDS: tuple[str, ...] = tuple(
    sorted(
        {
            *(label for _, _, labels in charts.SUBJECTS for label in labels),
            *(word for title, unit, _ in charts.SUBJECTS for word in (*title.split(), unit)),
            *tables.PERSON_NAMES,
            *(word for title, _, columns in tables.SUBJECTS for word in (*title.split(), *columns)),
            *(link for chain in diagrams.CHAINS for link in chain),
            *(step for _, steps in diagrams.CYCLES for step in steps),
            *documents.STREETS,
            *documents.WARNINGS,
            *"ABCMxy?",
        }
    )
)
"""What the drawings write on charts, tables, diagrams and signs."""

MARK_NAMES: tuple[str, ...] = (*SHAPES, *COLOURS, *sorted({*"".join(WORDS), *"0123456789%°cm"} - {" "}))
"""All that a mark of a card can be."""


Box = tuple[float, float, float, float]
"""Left, top, right and bottom, in pixels."""


@dataclass(frozen=True, slots=True)
class Card:
    """An image of one tile, and what it shows.

    Attributes:
        image: The image.
        caption: Its items in reading order.
        marks: The names of each character, shape and colour, with its place on the image.
    """

    image: Image.Image
    caption: str
    marks: tuple[tuple[str, Box], ...]


def draw_card(rng: Random) -> Card:
    """Draw one to six items in the cells of a grid, each a shape, a number or a word."""
    n_columns, n_rows = rng.choices(_GRIDS, _GRID_WEIGHTS)[0]
    paper, ink = rng.choice(_BOARDS) if rng.random() < 0.1 else (rng.choice(PAPERS), INK)
    side = CARD_SIZE * _SCALE
    image, draw = create_canvas((side, side), paper)
    width, height = side / n_columns, side / n_rows
    names: list[str] = []
    marks: list[tuple[str, Box]] = []
    only_text = ink != INK or rng.random() < 0.5
    for row in range(n_rows):
        for column in range(n_columns):
            if n_columns * n_rows > 1 and rng.random() < 0.25:
                continue
            x, y = (column + rng.uniform(0.45, 0.55)) * width, (row + rng.uniform(0.4, 0.6)) * height
            if only_text or rng.random() < 0.4:
                text = _draw_word(rng)
                size = _fit_text(rng, text, width, height)
                draw_text(draw, (x, y), text, size, ink, anchor="mm")
                names.append(text)
                marks += _locate_characters(text, (x, y), size)
            else:
                shape, colour = rng.choice(SHAPES), rng.choice(list(COLOURS))
                radius = min(width, height) * rng.uniform(0.2, 0.42)
                draw_shape(draw, shape, (x, y), radius, COLOURS[colour])
                names.append(f"{colour} {shape}")
                box = (x - radius, y - radius, x + radius, y + radius)
                marks += [(shape, box), (colour, box)]
    small_marks = tuple((name, (x / _SCALE, y / _SCALE, u / _SCALE, v / _SCALE)) for name, (x, y, u, v) in marks)
    return Card(
        image.resize((CARD_SIZE, CARD_SIZE), Image.Resampling.BICUBIC), ", ".join(names) or "nothing", small_marks
    )


def _draw_word(rng: Random) -> str:
    if rng.random() < 0.5:
        return f"{rng.randint(1, rng.choice((9, 99, 99, 200)))}{rng.choice(_SUFFIXES)}"
    return rng.choice(WORDS)


def _fit_text(rng: Random, text: str, width: float, height: float) -> int:
    """Return a font size from that of small print in a shrunk drawing to what the cell holds."""
    largest = min(width * 0.95 * 20 / measure_text_width(text, 20), height * 0.8, 26 * _SCALE)
    smallest = min(8.0 * _SCALE, largest)
    return max(8, round(rng.uniform(smallest, largest)))


def _locate_characters(text: str, centre: tuple[float, float], size: int) -> list[tuple[str, Box]]:
    """Return each character but spaces with its box; the text is centred on a point."""
    font = load_font(size)
    edges = [font.getlength(text[:n]) for n in range(len(text) + 1)]
    left, top = centre[0] - edges[-1] / 2, centre[1] - size / 2
    return [
        (character, (left + edges[n], top, left + edges[n + 1], top + size))
        for n, character in enumerate(text)
        if character != " "
    ]
