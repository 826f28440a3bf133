"""Pairs of pictures for the multi-image sources: two scenes and a claim, and a scene before and after an edit."""

from __future__ import annotations

from dataclasses import dataclass, replace
from random import Random

from PIL import Image

from mvl_assets.demo_data.drawings.drawing import COLOURS, PAPERS, Pair, a, between, plural
from mvl_assets.demo_data.drawings.scenes import choose, paint, place_of
from mvl_assets.demo_data.drawings.shapes import SHAPES

COLUMNS = ROWS = 3


@dataclass(frozen=True, slots=True)
class Comparison:
    """Pictures in order and what is true about all of them together."""

    pictures: tuple[Image.Image, ...]
    pairs: tuple[Pair, ...]


def claim(rng: Random) -> Comparison:
    """Two scenes; a statement about their counts is true or false (NLVR2's task)."""
    cell, paper = between(rng, 70, 130, 10), rng.choice(PAPERS)
    left, right = (choose(rng, COLUMNS, ROWS, between(rng, 2, 6)) for _ in range(2))
    shape = rng.choice([*left, *right]).shape
    here, there = (sum(thing.shape == shape for thing in side) for side in (left, right))
    counted = f"The first picture has {plural(here, shape)} and the second has {plural(there, shape)}."
    words, true = rng.choice(
        (
            (f"The first picture has more {shape}s than the second.", here > there),
            (f"Both pictures hold the same number of {shape}s.", here == there),
            (f"Together the pictures hold exactly {plural(here + there, shape)}.", True),
            (f"Together the pictures hold exactly {plural(here + there + 1, shape)}.", False),
            (f"Each picture holds at least one {shape}.", here > 0 and there > 0),
        )
    )
    pairs = (
        Pair(f"Is this statement true or false? {words}", "true" if true else "false", counted),
        Pair(
            f"How many {shape}s are there in both pictures together?",
            str(here + there),
            f"{counted} {here} + {there} = {here + there}.",
        ),
        Pair(
            "Which picture shows more shapes, the first or the second?",
            "the same" if len(left) == len(right) else "the first" if len(left) > len(right) else "the second",
            f"The first shows {plural(len(left), 'shape')}, the second {plural(len(right), 'shape')}.",
        ),
    )
    return Comparison((paint(left, COLUMNS, ROWS, cell, paper), paint(right, COLUMNS, ROWS, cell, paper)), pairs)


def edit(rng: Random) -> Comparison:
    """One thing is recoloured, reshaped, removed or added between the pictures (HQ-Edit's task)."""
    cell, paper = between(rng, 70, 130, 10), rng.choice(PAPERS)
    before = choose(rng, COLUMNS, ROWS, between(rng, 3, 6))
    thing = before[0]
    place = place_of(thing, COLUMNS, ROWS)
    kind = rng.choice(("recolour", "reshape", "remove", "add"))
    if kind == "recolour":
        colour = rng.choice([name for name in COLOURS if name != thing.colour])
        after = [replace(thing, colour=colour), *before[1:]]
        answer = f"Change the colour of the {thing.name} ({place}) to {colour}."
        key = "colour"
    elif kind == "reshape":
        shape = rng.choice([name for name in SHAPES if name != thing.shape])
        after = [replace(thing, shape=shape), *before[1:]]
        answer = f"Turn the {thing.name} ({place}) into {a(f'{thing.colour} {shape}')}."
        key = "shape"
    elif kind == "remove":
        after = before[1:]
        answer = f"Remove the {thing.name} ({place})."
        key = "removed"
    else:
        before, after = before[1:], before
        answer = f"Add {a(thing.name)} ({place})."
        key = "added"
    steps = "Comparing the two pictures cell by cell, everything else stays where it was."
    pairs = (
        Pair("Which instruction turns the first picture into the second?", answer, steps),
        Pair(
            "What happened to one thing between the pictures: colour, shape, removed or added?",
            key,
            f"{steps} The edit was: {answer}",
        ),
        Pair(
            "In which part of the picture do the two pictures differ?",
            place,
            f"{steps} The edit was: {answer}",
        ),
    )
    return Comparison((paint(before, COLUMNS, ROWS, cell, paper), paint(after, COLUMNS, ROWS, cell, paper)), pairs)
