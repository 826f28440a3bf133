"""Pairs about geometric figures, solved step by step: rectangles, triangles and crossing lines in turn."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random
from typing import Any

from mvl_assets.judging.probes.builders.drafts import Draft, make_off_image_draft


def draw_figure(rng: Random, number: int) -> tuple[dict[str, Any], list[Draft]]:
    """Return the description of a figure, and one draft per fault."""
    return (_draw_rectangle, _draw_triangle, _draw_crossing)[number % 3](rng)


def _draw_rectangle(rng: Random) -> tuple[dict[str, Any], list[Draft]]:
    width, height = rng.sample(range(3, 20), 2)
    return {"kind": "rectangle", "width": width, "height": height}, list(_iter_rectangle(rng, width, height))


def _iter_rectangle(rng: Random, w: int, h: int) -> Iterator[Draft]:
    wrong = next(value for value in (h + 2, h + 3, h + 4) if value != w)
    yield Draft(
        "misread_content",
        f"The height is {h} cm.",
        "What is the area of this rectangle?",
        f"It is {w} cm wide and {h} cm high. {w} * {h} = {w * h}, so the area is {w * h} square centimetres.",
        f"It is {w} cm wide and {wrong} cm high. {w} * {wrong} = {w * wrong}, so the area is {w * wrong} square "
        "centimetres.",
        f"{wrong} cm high",
        str(w * h),
    )
    perimeter = 2 * w + 2 * h
    yield Draft(
        "wrong_step",
        f"2 * {w} is {2 * w}, and 2 * {h} is {2 * h}; the two errors cancel out.",
        "What is the perimeter of this rectangle, in centimetres?",
        f"The two sides of {w} cm make 2 * {w} = {2 * w}, the two of {h} cm make 2 * {h} = {2 * h}. {2 * w} + "
        f"{2 * h} = "
        f"{perimeter}, so the perimeter is {perimeter}.",
        f"The two sides of {w} cm make 2 * {w} = {2 * w + 2}, the two of {h} cm make 2 * {h} = {2 * h - 2}. "
        f"{2 * w + 2} "
        f"+ {2 * h - 2} = {perimeter}, so the perimeter is {perimeter}.",
        f"2 * {w} = {2 * w + 2}",
        str(perimeter),
    )
    yield Draft(
        "unseen_content",
        "The figure marks no diagonal.",
        "Which lengths does the figure mark?",
        f"It marks the width, {w} cm, and the height, {h} cm.",
        f"It marks the width, {w} cm, the height, {h} cm, and a dashed diagonal of {w + h - 1} cm.",
        "a dashed diagonal",
        f"{w} cm, {h} cm",
    )
    longer, shorter = max(w, h), min(w, h)
    yield make_off_image_draft(
        rng,
        "By how much is the longer side longer than the shorter one?",
        f"The sides are {longer} cm and {shorter} cm. {longer} - {shorter} = {longer - shorter}, so by "
        f"{longer - shorter} cm.",
        str(longer - shorter),
    )
    yield Draft(
        "off_question",
        "The question is about the perimeter, and the answer about the area.",
        "How long is the way once around this rectangle?",
        f"{w} + {h} = {w + h}, and 2 * {w + h} = {perimeter}, so it is {perimeter} cm long.",
        f"{w} * {h} = {w * h}, so the area is {w * h} square centimetres.",
        "the area is",
        f"{perimeter} cm",
    )


def _draw_triangle(rng: Random) -> tuple[dict[str, Any], list[Draft]]:
    left, right = rng.randrange(40, 70), rng.randrange(40, 70)
    return {"kind": "triangle", "left": left, "right": right}, list(_iter_triangle(rng, left, right))


def _iter_triangle(rng: Random, a: int, b: int) -> Iterator[Draft]:
    x, wrong = 180 - a - b, b + 10 if b + 10 != a else b + 20
    yield Draft(
        "misread_content",
        f"The angle on the right is {b} degrees.",
        "How large is the angle x?",
        f"The marked angles are {a} and {b} degrees. {a} + {b} = {a + b}, and 180 - {a + b} = {x}, so x is {x} "
        "degrees.",
        f"The marked angles are {a} and {wrong} degrees. {a} + {wrong} = {a + wrong}, and 180 - {a + wrong} = "
        f"{180 - a - wrong}, so x is {180 - a - wrong} degrees.",
        f"and {wrong} degrees",
        str(x),
    )
    yield Draft(
        "wrong_step",
        f"The angles of a triangle make 180 degrees, and {a} + {b} is {a + b}; two errors lead to the right angle.",
        "How large is the angle x? Explain your answer.",
        f"The angles of a triangle make 180 degrees. {a} + {b} = {a + b}, and 180 - {a + b} = {x}. So x, in "
        "degrees, is "
        f"{x}.",
        f"The angles of a triangle make 200 degrees. {a} + {b} = {a + b + 20}, and 200 - {a + b + 20} = {x}. So x, in "
        f"degrees, is {x}.",
        "make 200 degrees",
        str(x),
    )
    yield Draft(
        "unseen_content",
        "No side has a length.",
        "What is marked in this figure?",
        f"Two angles are marked with {a} and {b} degrees, and the third with x.",
        f"Two angles are marked with {a} and {b} degrees, the third with x, and the lowest side with 12 cm.",
        "the lowest side with 12 cm",
        f"{a}, {b} and x",
    )
    yield make_off_image_draft(
        rng,
        "How large are the two marked angles together?",
        f"{a} + {b} = {a + b}, so they are {a + b} degrees together.",
        str(a + b),
    )
    yield Draft(
        "off_question",
        "The question is about x, and the answer about the other two angles.",
        "What is the size of the angle at the top?",
        f"It is what the other two leave of 180 degrees. {a} + {b} = {a + b}, and 180 - {a + b} = {x}, so it is {x} "
        "degrees.",
        f"The angle at the lower left is {a} degrees, and the one at the lower right is {b} degrees.",
        "The angle at the lower left is",
        f"{x} degrees",
    )


def _draw_crossing(rng: Random) -> tuple[dict[str, Any], list[Draft]]:
    angle = rng.choice([value for value in range(32, 80) if value not in (45, 60)])
    return {"kind": "crossing", "angle": angle}, list(_iter_crossing(rng, angle))


def _iter_crossing(rng: Random, angle: int) -> Iterator[Draft]:
    x, wrong = 180 - angle, angle + 5
    yield Draft(
        "misread_content",
        f"The marked angle is {angle} degrees.",
        "How large is the angle x?",
        f"The marked angle is {angle} degrees, and x lies next to it on a straight line. 180 - {angle} = {x}, so x is "
        f"{x} degrees.",
        f"The marked angle is {wrong} degrees, and x lies next to it on a straight line. 180 - {wrong} = "
        f"{180 - wrong}, "
        f"so x is {180 - wrong} degrees.",
        f"The marked angle is {wrong} degrees",
        str(x),
    )
    yield Draft(
        "wrong_step",
        "y lies opposite the marked angle, not next to it; two wrong subtractions lead to the right number.",
        "How large is the angle y, in degrees?",
        f"The angle y lies opposite the marked angle of {angle} degrees, and opposite angles are equal. So y "
        f"is {angle}.",
        f"The angle y and the marked angle of {angle} degrees lie next to each other on one line, so together "
        "they make "
        f"180 degrees. 180 - {angle} = {x}, and 180 - {x} = {angle}. So y is {angle}.",
        "lie next to each other on one line",
        str(angle),
    )
    yield Draft(
        "unseen_content",
        "There is no angle z, and no third line.",
        "Which angles are marked here?",
        f"One angle is marked with {angle} degrees; its neighbour is x, and the angle opposite it is y.",
        f"One angle is marked with {angle} degrees; its neighbour is x, the angle opposite it is y, and a third line "
        "makes the angle z.",
        "the angle z",
        f"{angle} degrees, x, y",
    )
    yield make_off_image_draft(
        rng,
        "How many straight lines cross here, and which given angle do they make?",
        f"Two lines cross, at an angle of {angle} degrees.",
        f"2, {angle} degrees",
    )
    yield Draft(
        "off_question",
        "The question is about x, and the answer about y.",
        "What is the size of x, the neighbour of the given angle?",
        f"Neighbours on a line make 180 degrees together. 180 - {angle} = {x}, so x is {x} degrees.",
        f"The angle y lies opposite the given angle, so y is {angle} degrees.",
        "so y is",
        f"{x} degrees",
    )
