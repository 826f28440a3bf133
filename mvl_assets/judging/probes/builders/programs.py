"""Pairs about short programs, followed by hand."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random
from typing import Any

from mvl_assets.judging.probes.builders.drafts import Draft, make_off_image_draft


def draw_program(rng: Random, number: int) -> tuple[dict[str, Any], list[Draft]]:
    """Return the description of a page of code, and one draft per fault."""
    factor, start = rng.randrange(3, 10), rng.randrange(2, 30)
    lines = [
        f"steps_{number + 1}.py",
        f"total = {start}",
        "for n in range(1, 4):",
        f"    total = total + n * {factor}",
        "print(total)",
    ]
    return {"kind": "page", "lines": lines}, list(_iter_drafts(rng, factor, start))


def _iter_drafts(rng: Random, factor: int, start: int) -> Iterator[Draft]:
    sums = [start + factor, start + 3 * factor, start + 6 * factor]
    trace = (
        f"{start} + {factor} = {sums[0]}, {sums[0]} + {2 * factor} = {sums[1]}, "
        f"and {sums[1]} + {3 * factor} = {sums[2]}"
    )
    opening = f"The total begins with {start}, and n takes the values 1, 2 and 3."
    wrong = factor + 1
    wrong_sums = [start + wrong, start + 3 * wrong, start + 6 * wrong]
    yield Draft(
        "misread_content",
        f"The program multiplies by {factor}, not by {wrong}.",
        "What does this program print, and why?",
        f"{opening} Each time n * {factor} is added: {trace}. It prints {sums[2]}.",
        f"{opening} Each time n * {wrong} is added: {start} + {wrong} = {wrong_sums[0]}, {wrong_sums[0]} + "
        f"{2 * wrong} = "
        f"{wrong_sums[1]}, and {wrong_sums[1]} + {3 * wrong} = {wrong_sums[2]}. It prints {wrong_sums[2]}.",
        f"n * {wrong}",
        str(sums[2]),
    )
    slip = rng.choice((-2, -1, 1, 2))
    yield Draft(
        "wrong_step",
        f"{start} + {factor} is {sums[0]}; the last number is right all the same.",
        "Follow the program line by line. What is printed at the end?",
        f"{opening} {trace}. It prints {sums[2]}.",
        f"{opening} {start} + {factor} = {sums[0] + slip}, {sums[0] + slip} + {2 * factor} = {sums[1]}, and "
        f"{sums[1]} + "
        f"{3 * factor} = {sums[2]}. It prints {sums[2]}.",
        f"{start} + {factor} = {sums[0] + slip}",
        str(sums[2]),
    )
    yield Draft(
        "unseen_content",
        "The program has no variable of this name, and no such test.",
        "Which variables does the program use, and for what?",
        "Two: total, to which something is added in each round, and n, which counts the rounds.",
        "Three: total, to which something is added in each round, n, which counts the rounds, and limit, "
        "which ends the "
        "loop when total exceeds it.",
        "limit, which ends the loop",
        "total, n",
    )
    yield make_off_image_draft(
        rng,
        "How often is the line inside the loop executed?",
        "range(1, 4) gives 1, 2 and 3, so it is executed 3 times.",
        "3",
    )
    yield Draft(
        "off_question",
        "The question is about the last value, and the answer about the first one.",
        "Which value does total have at the end?",
        f"It has the value {sums[2]}, after {trace}.",
        f"Before the loop begins, total has the value {start}.",
        "Before the loop begins",
        str(sums[2]),
    )
