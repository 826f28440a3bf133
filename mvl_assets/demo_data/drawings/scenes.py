"""Scenes of shapes and simple landscapes: counting, colours, positions, relations."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from PIL import Image, ImageDraw

from mvl_assets.demo_data.drawings.drawing import (
    COLOURS,
    PAPERS,
    RGB,
    Drawing,
    Pair,
    a,
    between,
    canvas,
    listing,
    plural,
)
from mvl_assets.demo_data.drawings.shapes import SHAPES, draw_shape


@dataclass(frozen=True, slots=True)
class Thing:
    """One shape of a scene. `column` and `row` count grid cells from the upper left."""

    shape: str
    colour: str
    column: int
    row: int

    @property
    def name(self) -> str:
        return f"{self.colour} {self.shape}"


def place_of(thing: Thing, columns: int, rows: int) -> str:
    """Words for the third of the picture a thing lies in, such as `upper left`, or `centre`."""
    vertical = "upper" if thing.row < rows / 3 else "lower" if thing.row >= rows * 2 / 3 else ""
    horizontal = "left" if thing.column < columns / 3 else "right" if thing.column >= columns * 2 / 3 else ""
    return f"{vertical} {horizontal}".strip() or "centre"


def paint(things: list[Thing], columns: int, rows: int, cell: int, paper: RGB) -> Image.Image:
    """Draw the things on their grid; the middle of each cell carries the thing's colour."""
    picture, draw = canvas((columns * cell, rows * cell), paper)
    for thing in things:
        draw_shape(draw, thing.shape, *spot(thing, cell), COLOURS[thing.colour])
    return picture


def spot(thing: Thing, cell: int) -> tuple[tuple[float, float], float]:
    """Centre and radius of the thing in pixels, where cells have sides of `cell` pixels."""
    return ((thing.column + 0.5) * cell, (thing.row + 0.5) * cell), cell * 0.36


def choose(rng: Random, columns: int, rows: int, count: int) -> list[Thing]:
    """`count` things in different cells; the first is unique in its shape-and-colour name."""
    cells = rng.sample([(x, y) for y in range(rows) for x in range(columns)], count)
    names = [(shape, colour) for shape in SHAPES for colour in COLOURS]
    first = rng.choice(names)
    rest = rng.choices([name for name in names if name != first], k=count - 1)
    return [Thing(*name, *cell) for name, cell in zip([first, *rest], cells, strict=True)]


def scene(rng: Random, columns: int = 3, rows: int = 3) -> Drawing:
    """A grid of shapes with questions of counting, colour, place and relation."""
    things = choose(rng, columns, rows, between(rng, 4, min(7, columns * rows)))
    cell = between(rng, 84, 180, 12)
    picture = paint(things, columns, rows, cell, rng.choice(PAPERS))
    pairs = [
        count_pair(rng, things),
        total_pair(things),
        where_pair(things[0], columns, rows),
        *relation_pairs(rng, things),
        *colour_pairs(things),
    ]
    return Drawing(picture, tuple(pairs), scene_caption(things))


def strip(rng: Random) -> Drawing:
    """A row of shapes in a picture far wider than 7:1."""
    columns = between(rng, 8, 10)
    shapes = [rng.choice(SHAPES) for _ in range(columns)]
    things = [Thing(shape, rng.choice(list(COLOURS)), at, 0) for at, shape in enumerate(shapes)]
    picture = paint(things, columns, 1, between(rng, 110, 160, 10), rng.choice(PAPERS))
    first, last = things[0], things[-1]
    pairs = (
        count_pair(rng, things),
        Pair(
            "Which shape stands at the far left?",
            first.shape,
            f"Reading the row from left to right, it begins with {a(first.name)}.",
        ),
        Pair(
            "What colour is the shape at the far right?",
            last.colour,
            f"Reading the row from left to right, it ends with {a(last.name)}.",
        ),
        total_pair(things),
    )
    return Drawing(picture, pairs, f"A long row of {plural(columns, 'shape')}, from {a(first.name)} to {a(last.name)}.")


def count_pair(rng: Random, things: list[Thing]) -> Pair:
    if rng.random() < 0.5:
        shape = rng.choice(things).shape
        found = [thing for thing in things if thing.shape == shape]
        question = f"How many {shape}s are in the picture?"
        what = f"{shape}"
    else:
        colour = rng.choice(things).colour
        found = [thing for thing in things if thing.colour == colour]
        question = f"How many {colour} shapes do you see?"
        what = f"{colour} shape"
    steps = f"Looking at each shape in turn, the matching ones are: {listing([t.name for t in found])}."
    return Pair(question, str(len(found)), f"{steps} That makes {plural(len(found), what)}.")


def total_pair(things: list[Thing]) -> Pair:
    names = listing([a(thing.name) for thing in things])
    return Pair("How many shapes are there in all?", str(len(things)), f"The picture holds {names}.")


def where_pair(thing: Thing, columns: int, rows: int) -> Pair:
    place = place_of(thing, columns, rows)
    steps = f"The {thing.name} lies in column {thing.column + 1} of {columns} and row {thing.row + 1} of {rows}."
    return Pair(f"In which part of the picture is the {thing.name}?", place, steps)


def relation_pairs(rng: Random, things: list[Thing]) -> list[Pair]:
    """One statement, true or false, about the first thing and another whose name comes once; none without such."""
    unique = [thing for thing in things[1:] if sum(other.name == thing.name for other in things) == 1]
    if not unique:
        return []
    first, other = things[0], rng.choice(unique)
    if first.column != other.column:
        word = rng.choice(("left", "right"))
        true = (first.column < other.column) == (word == "left")
        claim = f"to the {word} of"
    else:
        word = rng.choice(("above", "below"))
        true = (first.row < other.row) == (word == "above")
        claim = word
    steps = (
        f"The {first.name} is in column {first.column + 1}, row {first.row + 1}; "
        f"the {other.name} is in column {other.column + 1}, row {other.row + 1}."
    )
    return [Pair(f"Is the {first.name} {claim} the {other.name}?", "yes" if true else "no", steps)]


def colour_pairs(things: list[Thing]) -> list[Pair]:
    """One question for each shape that comes once."""
    single = [t for t in things if sum(o.shape == t.shape for o in things) == 1]
    return [
        Pair(
            f"What colour is the {thing.shape}?",
            thing.colour,
            f"There is only one {thing.shape} in the picture, and it is filled with {thing.colour}.",
        )
        for thing in single
    ]


def scene_caption(things: list[Thing]) -> str:
    return f"A plain picture with {plural(len(things), 'shape')}: {listing([a(t.name) for t in things])}."


def landscape(rng: Random) -> Drawing:
    """A house on a meadow by day or night, with trees and windows to count."""
    width, height = between(rng, 260, 680, 20), between(rng, 220, 460, 20)
    night = rng.random() < 0.4
    sky: RGB = (22, 28, 66) if night else (160, 208, 245)
    picture, draw = canvas((width, height), sky)
    ground = int(height * 0.7)
    draw.rectangle((0, ground, width, height), fill=(30, 70, 40) if night else (104, 178, 88))
    light_left = rng.random() < 0.5
    _disc(draw, (width * (0.14 if light_left else 0.86), height * 0.17), height * 0.09, night)
    wall, door = rng.sample(["red", "yellow", "orange", "pink", "purple"], 2)
    windows, trees = between(rng, 1, 4), between(rng, 1, 3)
    house_left = rng.random() < 0.5
    _house(draw, (width, height, ground), house_left, COLOURS[wall], COLOURS[door], windows)
    _trees(draw, (width, height, ground), not house_left, trees)
    side = "left" if house_left else "right"
    light = "moon" if night else "sun"
    caption = (
        f"{a(wall).capitalize()} house with {a(door)} door and {plural(windows, 'window')} stands "
        f"on the {side} of a meadow with {plural(trees, 'tree')}, "
        f"under {'a night sky with the moon' if night else 'a blue sky with the sun'}."
    )
    pairs = (
        Pair("What colour is the door of the house?", door, f"The house has {wall} walls, and its door is {door}."),
        Pair(
            "How many trees are in the picture?",
            str(trees),
            f"Beside the house, on the other half of the meadow, stand {plural(trees, 'tree')}.",
        ),
        Pair(
            "Is it day or night?",
            "night" if night else "day",
            f"The {light} is in the sky, which is {'dark' if night else 'light blue'}.",
        ),
        Pair("How many windows does the house have?", str(windows), f"The wall shows {plural(windows, 'window')}."),
        Pair(
            "On which side of the picture is the house?",
            side,
            f"The house stands on the {side} half and the trees on the other half.",
        ),
        Pair(f"What colour are the walls of the house with the {door} door?", wall, f"The walls are painted {wall}."),
    )
    return Drawing(picture, pairs, caption)


def _disc(draw: ImageDraw.ImageDraw, centre: tuple[float, float], radius: float, night: bool) -> None:
    draw_shape(draw, "circle", centre, radius, (240, 240, 225) if night else (250, 215, 60))


def _house(
    draw: ImageDraw.ImageDraw, room: tuple[int, int, int], left: bool, wall: RGB, door: RGB, windows: int
) -> None:
    width, height, ground = room
    x0 = width * (0.06 if left else 0.54)
    x1, y0, y1 = x0 + width * 0.4, ground - height * 0.3, ground + height * 0.08
    draw.rectangle((x0, y0, x1, y1), fill=wall)
    draw.polygon([(x0 - 8, y0), ((x0 + x1) / 2, y0 - height * 0.2), (x1 + 8, y0)], fill=(96, 64, 48))
    mid = (x0 + x1) / 2
    draw.rectangle((mid - width * 0.035, y1 - height * 0.17, mid + width * 0.035, y1), fill=door)
    pane = width * 0.045
    for n in range(windows):
        x = x0 + (x1 - x0) * (n + 0.5) / windows
        top = y0 + height * 0.04
        draw.rectangle(
            (x - pane / 2, top, x + pane / 2, top + height * 0.09), fill=(225, 240, 250), outline=(40, 40, 40)
        )


def _trees(draw: ImageDraw.ImageDraw, room: tuple[int, int, int], left: bool, trees: int) -> None:
    width, height, ground = room
    for n in range(trees):
        x = width * ((0.04 if left else 0.54) + 0.42 * (n + 0.5) / trees)
        foot = ground + height * 0.12
        draw.rectangle((x - 4, foot - height * 0.16, x + 4, foot), fill=(90, 58, 36))
        draw_shape(draw, "circle", (x, foot - height * 0.22), min(height * 0.1, width * 0.06), (26, 110, 52))
