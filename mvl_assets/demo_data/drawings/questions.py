"""Questions a tiny model can learn: one kind of big shape on plain paper, answered with one word.

They serve the proof that a trained model sees (loss with the true picture against a shuffled one), the held-out
evaluation and one general miniature. Answers are balanced, so chance is `1 / len(ANSWERS[family])`.
"""

from __future__ import annotations

from collections.abc import Iterator
from random import Random
from types import MappingProxyType

from PIL import Image

from mvl_assets.demo_data.drawings.drawing import COLOURS, NUMBER_WORDS, PAPERS, Drawing, Pair, canvas, plural
from mvl_assets.demo_data.drawings.shapes import SHAPES, draw_shape

ANSWERS: MappingProxyType[str, tuple[str, ...]] = MappingProxyType(
    {
        "colour": ("red", "green", "blue", "yellow", "purple", "black"),
        "shape": SHAPES,
        "count": ("one", "two", "three", "four"),
    }
)
FAMILIES = tuple(ANSWERS)

# Centres (fractions of the side) for one to four shapes; the radius shrinks with the count.
_PLACES = {
    1: [(0.5, 0.5)],
    2: [(0.28, 0.5), (0.72, 0.5)],
    3: [(0.5, 0.27), (0.27, 0.72), (0.73, 0.72)],
    4: [(0.27, 0.27), (0.73, 0.27), (0.27, 0.73), (0.73, 0.73)],
}


def shape_drawing(rng: Random, family: str, answer: str, side: int = 224) -> Drawing:
    """A `side` x `side` picture whose true answer to the question of `family` is `answer`."""
    colour = answer if family == "colour" else rng.choice(ANSWERS["colour"])
    shape = answer if family == "shape" else rng.choice(SHAPES)
    count = NUMBER_WORDS.index(answer) if family == "count" else 1
    picture, draw = canvas((side, side), rng.choice(PAPERS))
    reach = side * (0.34 if count == 1 else 0.16)
    radius = reach * rng.uniform(0.75, 1.0)
    play = side * 0.04
    for x, y in _PLACES[count]:
        centre = (x * side + rng.uniform(-play, play), y * side + rng.uniform(-play, play))
        draw_shape(draw, shape, centre, radius, COLOURS[colour])
    question = {
        "colour": f"What colour is the {shape}?",
        "shape": f"Which shape is {colour}?",
        "count": f"How many {shape}s are there?",
    }[family]
    shown = plural(count, f"{colour} {shape}")
    pair = Pair(question, answer, f"The picture shows {shown} on plain paper.")
    return Drawing(picture, (pair,), f"{shown.capitalize()} on plain paper.")


def shape_questions(n: int, seed: int, side: int = 224) -> Iterator[tuple[Image.Image, str, str, str]]:
    """Yield `n` of (RGB picture of `side` x `side` pixels, question, one-word answer, family), the same for one seed.

    A longer series begins with the shorter one. Within a deck of `sum(len(a) for a in ANSWERS.values())` questions
    every answer of every family comes once.
    """
    rng = Random(f"shape_questions/{seed}")
    deck: list[tuple[str, str]] = []
    for _ in range(n):
        if not deck:
            deck = [(family, answer) for family, answers in ANSWERS.items() for answer in answers]
            rng.shuffle(deck)
        family, answer = deck.pop()
        drawing = shape_drawing(rng, family, answer, side)
        yield drawing.picture, drawing.pairs[0].question, answer, family
