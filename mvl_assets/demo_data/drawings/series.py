"""Several pictures that belong together: puzzles with a missing panel, and stories told in a row of pictures."""

from __future__ import annotations

from dataclasses import replace
from random import Random

from PIL import Image, ImageDraw

from mvl_assets.demo_data.drawings.comparisons import Comparison
from mvl_assets.demo_data.drawings.drawing import (
    COLOURS,
    INK,
    NUMBER_WORDS,
    PAPERS,
    Drawing,
    Pair,
    a,
    between,
    canvas,
    plural,
    text,
)
from mvl_assets.demo_data.drawings.scenes import Thing, choose, paint, scene_caption
from mvl_assets.demo_data.drawings.shapes import SHAPES, draw_shape
from mvl_assets.demo_data.drawings.videos import MOVES

SIDE = 84
"""Pixels of one panel."""


def matrix(rng: Random) -> Drawing:
    """Nine panels in one picture, the last one missing: shapes change by row and their number by column."""
    shapes, colour, panels = _panels(rng)
    picture, draw = canvas((SIDE * 3 + 1, SIDE * 3 + 1), (255, 255, 255))
    for n, panel in enumerate(panels):
        picture.paste(panel, (n % 3 * SIDE, n // 3 * SIDE))
    for at in range(4):
        draw.line((at * SIDE, 0, at * SIDE, SIDE * 3), fill=INK)
        draw.line((0, at * SIDE, SIDE * 3, at * SIDE), fill=INK)
    text(draw, (SIDE * 2.5, SIDE * 2.5), "?", 40, anchor="mm")
    return Drawing(picture, _puzzle(rng, shapes, colour), f"A puzzle of nine panels with {shapes[0]}s above.")


def puzzle(rng: Random) -> Comparison:
    """The same puzzle as eight pictures in reading order."""
    shapes, colour, panels = _panels(rng)
    return Comparison(tuple(panels[:8]), _puzzle(rng, shapes, colour))


def story(rng: Random) -> Comparison:
    """Three to five pictures in which one shape crosses the picture and at last changes its colour."""
    count = between(rng, 3, 5)
    shape, way = rng.choice(SHAPES), rng.choice(list(MOVES))
    first, last = rng.sample(list(COLOURS), 2)
    paper, (x, y) = rng.choice(PAPERS), MOVES[way]
    pictures = []
    for n in range(count):
        picture, draw = canvas((160, 120), paper)
        part = 2 * n / (count - 1) - 1
        draw_shape(
            draw, shape, (80 + x * part * 55, 60 + y * part * 35), 22, COLOURS[last if n + 1 == count else first]
        )
        pictures.append(picture)
    told = f"{a(first).capitalize()} {shape} moves from {way}, and in the last picture it turns {last}."
    pairs = (
        Pair("Tell the story of these pictures in one sentence.", told, f"There are {count} pictures in order."),
        Pair("What colour does the shape have in the last picture?", last, told),
        Pair("In which direction does the shape move from picture to picture?", f"from {way}", told),
    )
    return Comparison(tuple(pictures), pairs)


def contrast(rng: Random) -> Comparison:
    """Two scenes that differ in one thing, each with a caption of its own."""
    cell, paper = between(rng, 60, 100, 10), rng.choice(PAPERS)
    things = choose(rng, 3, 3, between(rng, 3, 5))
    colour = rng.choice([name for name in COLOURS if name != things[0].colour])
    other = [replace(things[0], colour=colour), *things[1:]]
    captions = [scene_caption(list(side)) for side in (things, other)]
    pairs = (
        Pair("Caption the first picture, then the second.", " ".join(captions), "The pictures differ in one shape."),
        Pair(
            "Which shape of the second picture was not like this in the first?",
            f"the {other[0].name}",
            f"In the first picture it is {a(things[0].name)}.",
        ),
    )
    return Comparison((paint(things, 3, 3, cell, paper), paint(other, 3, 3, cell, paper)), pairs)


def odd_one(rng: Random) -> Comparison:
    """A row of pictures of one thing each; all but one are alike."""
    count = between(rng, 3, 5)
    shape, odd = rng.sample(SHAPES, 2)
    colour, at = rng.choice(list(COLOURS)), rng.randrange(count)
    shown = [odd if n == at else shape for n in range(count)]
    pictures = tuple(paint([Thing(name, colour, 0, 0)], 1, 1, SIDE, (255, 255, 255)) for name in shown)
    told = f"Picture {at + 1} shows {a(odd)}, the others show {shape}s."
    pairs = (
        Pair("Which picture is not like the others? Answer with its number.", str(at + 1), told),
        Pair(f"How many of the pictures show {a(shape)}?", str(count - 1), told),
    )
    return Comparison(pictures, pairs)


def _panels(rng: Random) -> tuple[list[str], str, list[Image.Image]]:
    """Shapes by row, their colour, and nine panels; the ninth is empty."""
    shapes, colour = rng.sample(SHAPES, 3), rng.choice(list(COLOURS))
    panels = []
    for n in range(9):
        picture, draw = canvas((SIDE, SIDE), (255, 255, 255))
        if n < 8:
            _fill(draw, shapes[n // 3], colour, n % 3 + 1)
        panels.append(picture)
    return shapes, colour, panels


def _fill(draw: ImageDraw.ImageDraw, shape: str, colour: str, count: int) -> None:
    for n in range(count):
        draw_shape(draw, shape, (SIDE * (n + 1) / (count + 1), SIDE / 2), SIDE * 0.1, COLOURS[colour])


def _puzzle(rng: Random, shapes: list[str], colour: str) -> tuple[Pair, ...]:
    answer = f"three {colour} {shapes[2]}s"
    told = f"Each row keeps its shape and counts one, two, three. The last row holds {shapes[2]}s, two in the middle."
    wrong = [f"{NUMBER_WORDS[count]} {colour} {shape}s" for shape in shapes for count in (2, 3)]
    choices = (answer, *rng.sample([choice for choice in wrong if choice != answer], 3))
    return (
        Pair("Which panel is missing at the end?", answer, told, choices),
        Pair(
            f"How many {shapes[1]}s are in the second row?", "6", f"The row holds 1, 2 and 3: {plural(6, shapes[1])}."
        ),
    )
