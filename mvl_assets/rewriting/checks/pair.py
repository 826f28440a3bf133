"""What a check sees, and the normal form in which texts are compared."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from mvl_assets.model_stage.dialogue import QAPair

_WORD = re.compile(r"\w+")


@dataclass(frozen=True, slots=True)
class CheckedPair:
    """A rewritten pair beside what it was made from; no text has image markers.

    Attributes:
        question: The question.
        answer: The answer.
        originals: All pairs of the sample, or the one that was asked about where the prompt preserves the question.
        is_preserved: Whether the prompt preserves the question.
        family: The prompt family.
    """

    question: str
    answer: str
    originals: Sequence[QAPair]
    is_preserved: bool
    family: str


Check = Callable[[CheckedPair], str | None]
"""Returns what is wrong with a pair, in one line; None if nothing is."""


def split_words(text: str) -> list[str]:
    """Return the words and numbers of a text, folded."""
    return _WORD.findall(text.casefold())
