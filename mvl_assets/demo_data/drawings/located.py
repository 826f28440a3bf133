"""Scenes that know where everything is: shapes with boxes and outlines, expressions that name one of them.

A maker's `fields` hold `size` (width and height in pixels), `places` and `part`; the writers of region formats make
annotations of them. Not here: the annotations (`layouts.regions`), text in pictures (`signboards`).
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from random import Random

from mvl_assets.demo_data.contents import Content
from mvl_assets.demo_data.drawings.drawing import PAPERS, Drawing, between
from mvl_assets.demo_data.drawings.scenes import (
    Thing,
    choose,
    colour_pairs,
    count_pair,
    paint,
    place_of,
    scene_caption,
    spot,
    total_pair,
    where_pair,
)
from mvl_assets.demo_data.drawings.shapes import outline

SIDE = 3
"""Columns and rows of a scene."""


@dataclass(frozen=True, slots=True)
class Place:
    """A shape and where it is. `box` is x, y, width, height and `corners` the outline, in pixels."""

    thing: Thing
    box: tuple[float, float, float, float]
    corners: tuple[tuple[float, float], ...]


def shapes(rng: Random, index: int, part: int) -> Content:
    """Questions about a scene of shapes, and the places of all its shapes."""
    things = choose(rng, SIDE, SIDE, between(rng, 4, 7))
    cell = between(rng, 84, 144, 12)
    picture = paint(things, SIDE, SIDE, cell, rng.choice(PAPERS))
    pairs = (count_pair(rng, things), total_pair(things), where_pair(things[0], SIDE, SIDE), *colour_pairs(things))
    caption = scene_caption(things)
    fields = {"size": picture.size, "places": tuple(_place(thing, cell) for thing in things), "part": part}
    turns = tuple((pair.question, pair.answer) for pair in pairs)
    return Content(turns, (Drawing(picture, pairs, caption),), fields=fields)


def expressions(rng: Random, index: int, part: int) -> Content:
    """A scene and one expression for one of its shapes (`expression`, `place`); two parts share a shape."""
    content = shapes(rng, index, part)
    places: tuple[Place, ...] = content.fields["places"]  # type: ignore[assignment]
    names = Counter(place.thing.name for place in places)
    unique = [place for place in places if names[place.thing.name] == 1]
    place = unique[part // 2 % len(unique)]
    where = place_of(place.thing, SIDE, SIDE)
    expression = f"the {place.thing.name}" if part % 2 == 0 else f"{place.thing.name} in the {where}"
    fields = {**content.fields, "place": place, "expression": expression}
    return Content(((expression, place.thing.name),), content.drawings, fields=fields)


def relation(one: Thing, other: Thing) -> str:
    """Where `one` lies, seen from `other`: the predicate of a relationship."""
    if one.column != other.column:
        return "left of" if one.column < other.column else "right of"
    return "above" if one.row < other.row else "below"


def _place(thing: Thing, cell: int) -> Place:
    centre, radius = spot(thing, cell)
    if thing.shape == "circle":
        turns = [2 * math.pi * n / 24 for n in range(24)]
        corners = [(centre[0] + radius * math.sin(turn), centre[1] - radius * math.cos(turn)) for turn in turns]
    else:
        corners = outline(thing.shape, centre, radius)
    xs, ys = [x for x, _ in corners], [y for _, y in corners]
    box = (min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys))
    return Place(thing, box, tuple(corners))
