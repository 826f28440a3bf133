"""Phrases inside normalized sentences."""

from __future__ import annotations

import re

# In normalized text, so without apostrophes: "not a hat", "isn t wearing any hat"; but "not red but blue" is blue.
NEGATION = re.compile(
    r"\b(?:not|no|non|never|neither|without|cannot|(?:isn|aren|wasn|weren|don|doesn|didn|hasn|haven|can|won)[ '’]?t)"
    r"(?:[\s-]+(?!but\b|only\b|rather\b|instead\b)\w+){0,2}[\s-]+$"
)
_OR_BEFORE = re.compile(r"\bor\s+$")
_OR_AFTER = re.compile(r"^\s*,?\s*or\b")


def contains_phrase(phrase: str, text: str) -> bool:
    """Return whether a text states a phrase as whole words: not negated, and not as one of two alternatives.

    Args:
        phrase: Normalized; an empty one is in no text.
        text: Normalized.
    """
    if not phrase:
        return False
    for match in re.finditer(rf"(?<!\w){re.escape(phrase)}(?!\w)", text):
        before, after = text[: match.start()], text[match.end() :]
        if not (NEGATION.search(before) or _OR_BEFORE.search(before) or _OR_AFTER.match(after)):
            return True
    return False
