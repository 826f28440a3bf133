"""Multiple choice whose options were lost, so that the question cannot be answered any more.

An open question made of one with options is fine. It is not where it still speaks of options, where its answer is a
letter, or where it is the original's stem as it was ("What comes directly after" -> "water").
"""

from __future__ import annotations

import re

from mvl_assets.answer_matching.options import parse_options
from mvl_assets.rewriting.checks.copies import is_near_copy
from mvl_assets.rewriting.checks.pair import CheckedPair, split_words

_OPTIONS_START = re.compile(
    r"(?:^|\s)(?:(?:choices|options)\s*:?\s*)?\(?[Aa](?:\)|\.|:)\s", re.IGNORECASE | re.MULTILINE
)
_SPEAKS_OF_OPTIONS = re.compile(
    r"\bwhich (?:one )?of (?:the following|these|those)\b|\b(?:the|these) (?:options|choices)\b"
    r"|\bchoose\b.{0,30}\bletter\b",
    re.IGNORECASE,
)
_LETTER_ANSWER = re.compile(
    r"\A\W*\(?[A-H]\)?\W*\Z|\b(?:option|choice)s? \(?[A-H]\b|\banswer(?: is)?:? \**\(?[A-H](?:\)|\.|\**\s*\Z)"
)


def find_lost_options(pair: CheckedPair) -> str | None:
    """Return what the question lacks."""
    if pair.is_preserved or parse_options(pair.question):
        return None
    for original in pair.originals:
        if not parse_options(original.question):
            continue
        if _SPEAKS_OF_OPTIONS.search(pair.question):
            return f"the question speaks of options and has none: {pair.question[:60]!r}"
        if _LETTER_ANSWER.search(pair.answer):
            return f"the answer is a letter, and the question has no options: {pair.answer[:60]!r}"
        start = _OPTIONS_START.search(original.question)
        stem = original.question[: start.start()] if start else ""
        if stem and is_near_copy(split_words(pair.question), split_words(stem)):
            return f"the question is the original's without its options: {pair.question[:60]!r}"
    return None
