"""Answers that refuse. A sample whose own answer is that it cannot be answered may be rewritten so."""

from __future__ import annotations

import re

from mvl_assets.rewriting.checks.pair import CheckedPair

# A refusal comes first; later in a text the same words may be quoted, or concern a detail.
MAX_START = 200
_REFUSAL = re.compile(
    r"\bas an? (?:AI|language model|text-based)\b"
    r"|\bI(?:'m| am) (?:sorry|afraid),? (?:but )?I\b"
    r"|\bI(?:'m| am) (?:unable|not able) to\b"
    r"|\bI (?:can(?:no|')t|can not|do(?: not|n't)) (?:actually |directly )?(?:see|view|access|assist|help with"
    r"|have (?:access|the ability|enough information))\b"
    r"|\bno (?:image|picture|photo|chart|table) (?:is|was|has been) (?:provided|given|attached|shown|included)\b"
    r"|\b(?:please|could you) (?:provide|share|upload|attach) (?:the|an?) (?:image|picture|photo)\b",
    re.IGNORECASE,
)
_UNANSWERABLE = re.compile(r"\bunanswerable\b|\bcannot be (?:answered|determined)\b|\bunsuitable\b", re.IGNORECASE)


def find_refusal(pair: CheckedPair) -> str | None:
    """Return the words of refusal."""
    refusal = _REFUSAL.search(pair.answer.replace("’", "'"), 0, MAX_START)
    if refusal is None:
        return None
    if any(_REFUSAL.search(o.answer) or _UNANSWERABLE.search(o.answer) for o in pair.originals):
        return None
    return f"refuses: {refusal[0]!r}"
