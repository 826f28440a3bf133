"""Record types of a drawing: an image, true questions and answers about it, and a true caption."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from PIL import Image

NUMBER_WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")


@dataclass(frozen=True, slots=True)
class DrawnQAPair:
    """One question. `answer` is short; `rationale` has one or more sentences that lead to it.

    `choices` are the answer and wrong ones of its kind, if the question can be asked with choices.
    """

    question: str
    answer: str
    rationale: str
    choices: tuple[str, ...] = ()

    @property
    def detailed_answer(self) -> str:
        """The answer in the manner of a source that is kept unchanged: reasons first, then the key."""
        return f"{self.rationale}\n\nAnswer: {self.answer}"


@dataclass(frozen=True, slots=True)
class Drawing:
    """An image with what is true about it.

    `needs_colour`: a grey image would lose answers. `is_photo`: grainy, so its PNG would be large.
    """

    image: Image.Image
    qa_pairs: tuple[DrawnQAPair, ...]
    caption: str
    needs_colour: bool = True
    is_photo: bool = False


def join_with_and(items: Sequence[str]) -> str:
    """Join words as in `a`, `a and b`, `a, b and c`."""
    if len(items) < 2:
        return "".join(items)
    return f"{', '.join(items[:-1])} and {items[-1]}"


def add_article(noun: str) -> str:
    """Return the noun with its article: `a circle`, `an orange circle`."""
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


def pluralize(count: int, noun: str) -> str:
    """Return the count in words with the noun: `one circle`, `three circles`."""
    return f"{NUMBER_WORDS[count] if count <= 10 else count} {noun}{'' if count == 1 else 's'}"


def sample_int(rng: Random, low: int, high: int, step: int = 1) -> int:
    """Return a random whole number.

    Args:
        rng: Source of randomness.
        low: Smallest possible value.
        high: Largest possible value, if whole steps lead to it.
        step: Distance of possible values, counted from `low`.
    """
    return rng.randrange(low, high + 1, step)
