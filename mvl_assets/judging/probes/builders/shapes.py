"""Pairs about coloured shapes on a grid: general questions, descriptions, and where things are."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from random import Random
from typing import Any

from mvl_assets.judging.probes.builders.drafts import Draft, join_words, make_off_image_draft
from mvl_assets.judging.probes.images import CELL_SIZE, SHAPE_RADIUS
from mvl_assets.media.drawing import COLOURS, SHAPES, compute_polygon

_ROWS, _COLUMNS = ("upper", "middle", "lower"), ("left", "centre", "right")
_N_CELLS = 3


@dataclass(frozen=True, slots=True)
class _Shape:
    colour: str
    shape: str
    column: int
    row: int

    @property
    def name(self) -> str:
        return f"{self.colour} {self.shape}"

    @property
    def with_article(self) -> str:
        return f"{'an' if self.colour == 'orange' else 'a'} {self.name}"

    @property
    def position(self) -> str:
        return f"{_ROWS[self.row]} {_COLUMNS[self.column]}"

    @property
    def centre_x(self) -> float:
        """From 0 on the left to 1 on the right."""
        return round((self.column + 0.5) / _N_CELLS, 2)

    @property
    def box(self) -> str:
        """[left, top, right, bottom] of what is drawn, as shares of the image's sides."""
        centre = ((self.column + 0.5) * CELL_SIZE, (self.row + 0.5) * CELL_SIZE)
        if self.shape == "circle":
            corners = [(centre[0] + sign * SHAPE_RADIUS, centre[1] + sign * SHAPE_RADIUS) for sign in (-1, 1)]
        else:
            corners = compute_polygon(self.shape, centre, SHAPE_RADIUS)
        edges = [choose(corner[axis] for corner in corners) for choose in (min, max) for axis in (0, 1)]
        return f"[{', '.join(f'{edge / (_N_CELLS * CELL_SIZE):.2f}' for edge in edges)}]"


@dataclass(frozen=True, slots=True)
class _Grid:
    """Three equal shapes, two single ones of other colours and kinds, and one that is not there.

    Attributes:
        triple: The equal shapes.
        single: A shape in another column than `other`.
        other: A shape of another colour and kind.
        absent: A shape in an empty cell, of a colour and kind that no other has.
    """

    triple: tuple[_Shape, _Shape, _Shape]
    single: _Shape
    other: _Shape
    absent: _Shape

    @property
    def shapes(self) -> list[_Shape]:
        return [*self.triple, self.single, self.other]

    @property
    def description(self) -> dict[str, Any]:
        objects = [[shape.colour, shape.shape, shape.column, shape.row] for shape in self.shapes]
        return {"kind": "shapes", "objects": objects}


def draw_general(rng: Random, number: int) -> tuple[dict[str, Any], list[Draft]]:
    """Return the description of a grid, and one draft per fault, of general questions."""
    grid = _draw_grid(rng)
    return grid.description, list(_iter_general(rng, grid))


def draw_caption(rng: Random, number: int) -> tuple[dict[str, Any], list[Draft]]:
    """Return the description of a grid, and one draft per fault, of descriptions in sentences."""
    grid = _draw_grid(rng)
    return grid.description, list(_iter_caption(rng, grid))


def draw_detection(rng: Random, number: int) -> tuple[dict[str, Any], list[Draft]]:
    """Return the description of a grid, and one draft per fault, of questions where things are."""
    grid = _draw_grid(rng)
    return grid.description, list(_iter_detection(rng, grid))


def _draw_grid(rng: Random) -> _Grid:
    cells = [(column, row) for row in range(_N_CELLS) for column in range(_N_CELLS)]
    rng.shuffle(cells)
    colours, kinds = rng.sample(list(COLOURS), 4), rng.sample(list(SHAPES), 4)
    single_cell = cells.pop()
    other_cell = next(cell for cell in cells if cell[0] != single_cell[0])
    cells.remove(other_cell)
    first, second, third, absent = cells[:4]
    return _Grid(
        (
            _Shape(colours[0], kinds[0], *first),
            _Shape(colours[0], kinds[0], *second),
            _Shape(colours[0], kinds[0], *third),
        ),
        _Shape(colours[1], kinds[1], *single_cell),
        _Shape(colours[2], kinds[2], *other_cell),
        _Shape(colours[3], kinds[3], *absent),
    )


def _iter_general(rng: Random, grid: _Grid) -> Iterator[Draft]:
    triple, single, other, absent = grid.triple[0], grid.single, grid.other, grid.absent
    yield Draft(
        "misread_content",
        f"The {single.shape} is {single.colour}.",
        f"What colour is the {single.shape}?",
        f"The {single.shape} at the {single.position} is {single.colour}.",
        f"The {single.shape} at the {single.position} is {absent.colour}.",
        f"is {absent.colour}",
        single.colour,
    )
    yield Draft(
        "wrong_step",
        f"There are 3 {triple.name}s; two errors lead to the right number.",
        "How many shapes are there in all?",
        f"There are 3 {triple.name}s, 1 {single.name} and 1 {other.name}. 3 + 1 = 4, and 4 + 1 = 5. In all "
        "there are 5.",
        f"There are 4 {triple.name}s, 1 {single.name} and 1 {other.name}. 4 + 1 = 4, and 4 + 1 = 5. In all "
        "there are 5.",
        f"4 {triple.name}s",
        "5",
    )
    yield Draft(
        "unseen_content",
        f"There is no {absent.name}.",
        f"Which shapes are there apart from the {triple.shape}s?",
        f"{_format_capitalized(single.with_article)} and {other.with_article}.",
        f"{_format_capitalized(single.with_article)}, {other.with_article} and, at the {absent.position}, "
        f"{absent.with_article}.",
        absent.name,
        f"{single.name}, {other.name}",
    )
    yield make_off_image_draft(
        rng,
        f"How many {triple.shape}s are there, and what colour are they?",
        f"There are 3 {triple.shape}s, and all are {triple.colour}.",
        f"3, {triple.colour}",
    )
    yield Draft(
        "off_question",
        "The question is about a colour, and the answer about a position.",
        f"Which colour does the {other.shape} have?",
        f"The {other.shape} is {other.colour}.",
        f"The {other.shape} is at the {other.position} of the image.",
        f"is at the {other.position}",
        other.colour,
    )


def _iter_caption(rng: Random, grid: _Grid) -> Iterator[Draft]:
    triple, single, other, absent = grid.triple[0], grid.single, grid.other, grid.absent
    positions = join_words([f"the {shape.position}" for shape in grid.triple])
    opening = f"Five shapes stand on a white ground. Three {triple.name}s are at {positions}."
    first, second = _format_capitalized(single.with_article), other.with_article
    truth = f"{opening} {first} is at the {single.position}, and {second} is at the {other.position}."
    caption = f"Three {triple.name}s, {single.with_article} and {other.with_article} on white."
    yield Draft(
        "misread_content",
        f"The {single.name} is at the {single.position}, and nothing is at the {absent.position}.",
        "Describe the image in detail.",
        truth,
        f"{opening} {first} is at the {absent.position}, and {second} is at the {other.position}.",
        f"{single.name} is at the {absent.position}",
        caption,
    )
    yield Draft(
        "wrong_step",
        f"There are five shapes, and three of them are {triple.name}s; two errors lead to the right number.",
        f"How many of the shapes are not {triple.name}s? Explain how you know.",
        f"There are 5 shapes, and 3 of them are {triple.name}s. 5 - 3 = 2, so the number of others is 2.",
        f"There are 7 shapes, and 5 of them are {triple.name}s. 7 - 5 = 2, so the number of others is 2.",
        f"5 of them are {triple.name}s",
        caption,
    )
    yield Draft(
        "unseen_content",
        f"There is no {absent.name} in the image.",
        "Describe everything that you see.",
        truth,
        f"{truth} At the {absent.position}, half hidden, lies {absent.with_article}.",
        absent.name,
        caption,
    )
    yield make_off_image_draft(rng, "What is on the white ground, and where?", truth, caption)
    yield Draft(
        "off_question",
        f"The question is about the {single.shape}, and the answer about the {triple.shape}s.",
        f"Describe the {single.shape} and where it is.",
        f"The {single.shape} is {single.colour}, and it is at the {single.position}.",
        f"The {triple.shape}s are {triple.colour}, and there are three of them.",
        f"The {triple.shape}s are",
        caption,
    )


def _iter_detection(rng: Random, grid: _Grid) -> Iterator[Draft]:
    triple, single, other, absent = grid.triple[0], grid.single, grid.other, grid.absent
    first, second = _format_capitalized(single.with_article), other.with_article
    yield Draft(
        "misread_content",
        f"This box is empty; that of the {single.shape} is {single.box}.",
        f"Give the bounding box of the {single.name} as [left, top, right, bottom], in shares of the image's sides.",
        f"The {single.name} is the only {single.shape}. Its box is {single.box}.",
        f"The {single.name} is the only {single.shape}. Its box is {absent.box}.",
        absent.box,
        single.box,
    )
    left, right = sorted((single, other), key=lambda shape: shape.column)
    wrong_x = round(right.centre_x + 0.09, 2)
    yield Draft(
        "wrong_step",
        f"The centre of the {left.name} is at {left.centre_x}; that it is on the left would not follow either.",
        f"Is the {left.name} to the left of the {right.name}? Answer yes or no, with the horizontal centres.",
        f"From left to right, the centre of the {left.name} is at {left.centre_x} and that of the {right.name} at "
        f"{right.centre_x}. The first number is smaller, so the answer is yes.",
        f"From left to right, the centre of the {left.name} is at {wrong_x} and that of the {right.name} at "
        f"{right.centre_x}. The first number is smaller, so the answer is yes.",
        f"is at {wrong_x}",
        "yes",
    )
    yield Draft(
        "unseen_content",
        f"There is no {absent.name}, and that cell is empty.",
        f"Which objects other than {triple.shape}s are there, and where?",
        f"{first} at the {single.position} and {second} at the {other.position}.",
        f"{first} at the {single.position}, {second} at the {other.position} and {absent.with_article} at the "
        f"{absent.position}.",
        absent.name,
        f"{single.name}, {other.name}",
    )
    yield make_off_image_draft(
        rng, f"Where is the {other.name}?", f"It is at the {other.position}: {other.box}.", other.box
    )
    yield Draft(
        "off_question",
        f"The question is about the {other.shape}, and the answer about the {single.shape}.",
        f"In which part of the image is the {other.name}, and what is its box?",
        f"The {other.name} is at the {other.position}: {other.box}.",
        f"The {single.name} is at the {single.position}: {single.box}.",
        single.box,
        other.box,
    )


def _format_capitalized(text: str) -> str:
    return text[0].upper() + text[1:]
