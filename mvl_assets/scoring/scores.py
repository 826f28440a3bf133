"""Parser of stored scores: one number from 1 to 5 for each of the two measures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from mvl_assets.common.rejects import RejectError
from mvl_assets.inference.tagged_blocks import parse_blocks

MEASURES: Final = ("content", "relevance")
"""How much a person learns from a conversation, and how much it is about the image (arXiv 2412.05237, Table A6)."""
MIN_SCORE, MAX_SCORE = 1, 5


class ScoreError(RejectError):
    """An answer that gives no scores."""


@dataclass(frozen=True, slots=True)
class Scores:
    """The scores of a conversation, from 1 to 5."""

    content: int
    relevance: int


def parse_scores(schema: Mapping[str, Any], text: str, finish_reason: str) -> Scores:
    """Return the scores of an answer: JSON, alone or with words around it, or tagged blocks.

    Args:
        schema: The schema of the prompt.
        text: The answer.
        finish_reason: Why the model stopped.

    Raises:
        ScoreError: The answer is not finished, or lacks a score.
    """
    if finish_reason != "stop":
        raise ScoreError("length" if finish_reason == "length" else "not_finished", f"finish_reason {finish_reason!r}")
    document = parse_blocks(schema, text)
    return Scores(**{measure: _parse_score(measure, document.get(measure), text) for measure in MEASURES})


def _parse_score(measure: str, value: object, text: str) -> int:
    word = str(value).strip()
    if not (word.isascii() and word.isdecimal() and MIN_SCORE <= int(word[:3]) <= MAX_SCORE):
        raise ScoreError("no_score", f"no whole number from {MIN_SCORE} to {MAX_SCORE} for {measure} in {text[:120]!r}")
    return int(word)
