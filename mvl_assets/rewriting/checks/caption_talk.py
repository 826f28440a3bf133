"""Pairs that speak of the text they were made from ("the caption", "the known answers") instead of the image.

Whoever reads the pair has the image only. Where an original itself speaks of a caption, one may be in the image.
"""

from __future__ import annotations

import re

from mvl_assets.rewriting.checks.pair import CheckedPair

_CAPTION = (
    r"(?:caption|(?:image|text(?:ual)?|given|provided|original) description"
    r"|(?:given|provided|known|original) (?:answers?|q&a|question[- ]answer pairs?))"
)
_PREFIX = r"the (?:given |provided |original |image |image's |above |sample )?"
_TALK = re.compile(
    rf"\b(?:in|from|by|on|to|with|of|per) {_PREFIX}{_CAPTION}s?\b"
    rf"|\b{_PREFIX}{_CAPTION}s? (?:says?|states?|mentions?|describes?|notes?|tells?|gives?|provides?|implies|suggests?"
    r"|indicates?|does)\b",
    re.IGNORECASE,
)
# Quick to look for, and in few pairs.
_HINT = re.compile(r"caption|description|(?:given|provided|known|original) (?:answer|q&a|question)", re.IGNORECASE)
_MENTION = re.compile(r"\bcaption|\bdescription", re.IGNORECASE)


def find_caption_talk(pair: CheckedPair) -> str | None:
    """Return the words that speak of the text behind the pair."""
    if not (_HINT.search(pair.answer) or _HINT.search(pair.question)):
        return None
    talk = _TALK.search(pair.answer) or _TALK.search(pair.question)
    if talk is None or any(_MENTION.search(o.question) or _MENTION.search(o.answer) for o in pair.originals):
        return None
    return f"speaks of its source: {talk[0]!r}"
