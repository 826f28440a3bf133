"""Faults that are planted in a true answer, each of a named class: what a judge must find."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from types import MappingProxyType

from mvl_assets.demo_data.drawings.drawing import NUMBER_WORDS, Drawing, DrawnQAPair
from mvl_assets.media.drawing import COLOURS, SHAPES

_OPPOSITES = (("left", "right"), ("upper", "lower"), ("above", "below"), ("before", "after"), ("highest", "lowest"))
_COUNTERPARTS = MappingProxyType({a: b for pair in _OPPOSITES for a, b in (pair, pair[::-1])})
_NUMBER = re.compile(r"\d+")
_NUMBER_WORD = re.compile(rf"\b(?:{'|'.join(NUMBER_WORDS[1:])})\b")
# Another number is at most so far from the true one, so that it is a plausible misreading.
_MAX_DISTANCE = 9


@dataclass(frozen=True, slots=True)
class FaultContext:
    """What a fault may be made of.

    Attributes:
        drawing: The image's drawing.
        qa_pair: The question, with its true answer.
        other_drawing: Another drawing of the same kind.
    """

    drawing: Drawing
    qa_pair: DrawnQAPair
    other_drawing: Drawing


def plant_wrong_colour(rng: Random, context: FaultContext) -> str | None:
    """Name another colour for something in the reasons."""
    return _replace_word(rng, context, list(COLOURS))


def plant_wrong_shape(rng: Random, context: FaultContext) -> str | None:
    """Name another shape in the reasons."""
    return _replace_word(rng, context, SHAPES)


def plant_wrong_number(rng: Random, context: FaultContext) -> str | None:
    """Misread one number of the reasons."""
    rationale = context.qa_pair.rationale
    matches = [*_NUMBER.finditer(rationale), *_NUMBER_WORD.finditer(rationale)]
    if not matches:
        return None
    match = rng.choice(matches)
    if match[0].isdigit():
        number = int(match[0])
        replacement = str(_draw_other_number(rng, number))
    else:
        replacement = rng.choice([word for word in NUMBER_WORDS[1:] if word != match[0]])
    return _join(f"{rationale[: match.start()]}{replacement}{rationale[match.end() :]}", context.qa_pair.answer)


def plant_wrong_position(rng: Random, context: FaultContext) -> str | None:
    """Turn one left, right, upper, lower, before or after of the reasons or the result around."""
    answer = context.qa_pair.detailed_answer
    matches = list(re.finditer(rf"\b(?:{'|'.join(_COUNTERPARTS)})\b", answer))
    if not matches:
        return None
    match = rng.choice(matches)
    return f"{answer[: match.start()]}{_COUNTERPARTS[match[0]]}{answer[match.end() :]}"


def plant_swapped_values(rng: Random, context: FaultContext) -> str | None:
    """Exchange two values of the reasons, so that both stand beside the wrong label."""
    rationale = context.qa_pair.rationale
    matches = list(_NUMBER.finditer(rationale))
    if len({match[0] for match in matches}) < 2:
        return None
    first, second = sorted(rng.sample(matches, 2), key=lambda match: match.start())
    if first[0] == second[0]:
        return None
    swapped = (
        f"{rationale[: first.start()]}{second[0]}{rationale[first.end() : second.start()]}{first[0]}"
        f"{rationale[second.end() :]}"
    )
    return _join(swapped, context.qa_pair.answer)


def plant_wrong_result(rng: Random, context: FaultContext) -> str | None:
    """End true reasons with another result of the same kind."""
    qa_pair = context.qa_pair
    alternatives = [choice for choice in list_alternatives(rng, context) if choice != qa_pair.answer]
    return _join(qa_pair.rationale, rng.choice(alternatives)) if alternatives else None


def plant_other_image(rng: Random, context: FaultContext) -> str | None:
    """Answer as if another drawing of the same kind were seen."""
    true_answer = context.qa_pair.detailed_answer
    answers = [
        qa_pair.detailed_answer
        for qa_pair in context.other_drawing.qa_pairs
        if qa_pair.question == context.qa_pair.question and qa_pair.detailed_answer != true_answer
    ]
    return answers[0] if answers else None


def plant_other_question(rng: Random, context: FaultContext) -> str | None:
    """Give the true answer to another question about the same drawing."""
    answers = [
        qa_pair.detailed_answer
        for qa_pair in context.drawing.qa_pairs
        if qa_pair.question != context.qa_pair.question and qa_pair.answer != context.qa_pair.answer
    ]
    return rng.choice(answers) if answers else None


FAULTS: Mapping[str, Callable[[Random, FaultContext], str | None]] = MappingProxyType(
    {
        "wrong_colour": plant_wrong_colour,
        "wrong_shape": plant_wrong_shape,
        "wrong_number": plant_wrong_number,
        "wrong_position": plant_wrong_position,
        "swapped_values": plant_swapped_values,
        "wrong_result": plant_wrong_result,
        "other_image": plant_other_image,
        "other_question": plant_other_question,
    }
)
"""A fault's function returns the whole faulty answer, or None where this question cannot have it."""


def draw_fault(rng: Random, context: FaultContext) -> tuple[str, str] | None:
    """Return a fault's class and the faulty answer, of a class that the question can have; None if there is none."""
    for name in rng.sample(list(FAULTS), len(FAULTS)):
        faulty_answer = FAULTS[name](rng, context)
        if faulty_answer is not None and faulty_answer != context.qa_pair.detailed_answer:
            return name, faulty_answer
    return None


def list_alternatives(rng: Random, context: FaultContext) -> list[str]:
    """Return wrong answers of the same kind as the true one."""
    answer = context.qa_pair.answer
    if context.qa_pair.choices:
        return [choice for choice in context.qa_pair.choices if choice != answer]
    if answer.isdigit():
        return [str(_draw_other_number(rng, int(answer)))]
    for words in (list(COLOURS), SHAPES, ("yes", "no"), NUMBER_WORDS[1:6], ("left", "right"), ("day", "night")):
        if answer in words:
            return [word for word in words if word != answer]
    answers = {qa_pair.answer for qa_pair in (*context.drawing.qa_pairs, *context.other_drawing.qa_pairs)}
    return sorted(other for other in answers if other != answer and not other.isdigit())


def _replace_word(rng: Random, context: FaultContext, words: Sequence[str]) -> str | None:
    rationale = context.qa_pair.rationale
    matches = list(re.finditer(rf"\b(?:{'|'.join(words)})", rationale))
    if not matches:
        return None
    match = rng.choice(matches)
    replacement = rng.choice([word for word in words if word != match[0]])
    return _join(f"{rationale[: match.start()]}{replacement}{rationale[match.end() :]}", context.qa_pair.answer)


def _draw_other_number(rng: Random, number: int) -> int:
    step = 5 if number and number % 5 == 0 and number > 10 else 1
    candidates = [number + sign * step * n for n in range(1, _MAX_DISTANCE + 1) for sign in (-1, 1)]
    weights = [1 / abs(candidate - number) for candidate in candidates]
    other = rng.choices(candidates, weights)[0]
    return other if other > 0 else number + step


def _join(rationale: str, answer: str) -> str:
    return f"{rationale}\n\nAnswer: {answer}"
