"""Questions a tiny model can learn: one kind of big shape on plain paper, answered with one word.

They are used to prove that a trained model sees (loss with the true image against a shuffled one), by the held-out
evaluation, and in one general source. Answers are balanced, so chance is `1 / len(ANSWERS[family])`.
"""

from __future__ import annotations

from collections.abc import Iterator
from random import Random
from types import MappingProxyType

from PIL import Image

from mvl_assets.demo_data.drawings.drawing import NUMBER_WORDS, Drawing, DrawnQAPair, pluralize
from mvl_assets.media.drawing import COLOURS, PAPERS, SHAPES, create_canvas, draw_shape

ANSWERS: MappingProxyType[str, tuple[str, ...]] = MappingProxyType(
    {
        "colour": ("red", "green", "blue", "yellow", "purple", "black"),
        "shape": SHAPES,
        "count": ("one", "two", "three", "four"),
    }
)
FAMILIES = tuple(ANSWERS)

# Centres (fractions of the side) for one to four shapes; the radius shrinks with the count.
_SHAPE_CENTRES = {
    1: [(0.5, 0.5)],
    2: [(0.28, 0.5), (0.72, 0.5)],
    3: [(0.5, 0.27), (0.27, 0.72), (0.73, 0.72)],
    4: [(0.27, 0.27), (0.73, 0.27), (0.27, 0.73), (0.73, 0.73)],
}


def draw_shape_question(rng: Random, family: str, answer: str, side: int = 224) -> Drawing:
    """Draw a `side` x `side` image whose true answer to the question of `family` is `answer`.

    Args:
        rng: Source of randomness for all that the answer does not fix.
        family: What is asked for: one of `FAMILIES`.
        answer: One of `ANSWERS[family]`.
        side: Width and height of the image in pixels.
    """
    colour = answer if family == "colour" else rng.choice(ANSWERS["colour"])
    shape = answer if family == "shape" else rng.choice(SHAPES)
    count = NUMBER_WORDS.index(answer) if family == "count" else 1
    image, draw = create_canvas((side, side), rng.choice(PAPERS))
    max_radius = side * (0.34 if count == 1 else 0.16)
    radius = max_radius * rng.uniform(0.75, 1.0)
    jitter = side * 0.04
    for x, y in _SHAPE_CENTRES[count]:
        centre = (x * side + rng.uniform(-jitter, jitter), y * side + rng.uniform(-jitter, jitter))
        draw_shape(draw, shape, centre, radius, COLOURS[colour])
    question = {
        "colour": f"What colour is the {shape}?",
        "shape": f"Which shape is {colour}?",
        "count": f"How many {shape}s are there?",
    }[family]
    shapes_text = pluralize(count, f"{colour} {shape}")
    qa_pair = DrawnQAPair(question, answer, f"The picture shows {shapes_text} on plain paper.")
    return Drawing(image, (qa_pair,), f"{shapes_text.capitalize()} on plain paper.")


def iter_shape_questions(n_questions: int, seed: int, side: int = 224) -> Iterator[tuple[Image.Image, str, str, str]]:
    """Yield `n_questions` of (RGB image of `side` x `side` pixels, question, one-word answer, family).

    The same seed gives the same series.

    A longer series begins with the shorter one. Within a deck of `sum(len(a) for a in ANSWERS.values())` questions
    every answer of every family comes once.
    """
    rng = Random(f"shape_questions/{seed}")
    remaining_questions: list[tuple[str, str]] = []
    for _ in range(n_questions):
        if not remaining_questions:
            remaining_questions = [(family, answer) for family, answers in ANSWERS.items() for answer in answers]
            rng.shuffle(remaining_questions)
        family, answer = remaining_questions.pop()
        drawing = draw_shape_question(rng, family, answer, side)
        yield drawing.image, drawing.qa_pairs[0].question, answer, family
