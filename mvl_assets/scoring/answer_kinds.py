"""The form of an answer, by simple rules: what rewriting turns short answers into."""

from __future__ import annotations

import re
from typing import Final

ANSWER_KINDS: Final = ("option", "yes or no", "number", "phrase", "sentences", "steps", "code")
"""From the shortest to the longest."""

_OPTION = re.compile(r"\(?[A-Ha-h][).:]?|\(?[A-H][).:]\s.{1,120}")
_YES_OR_NO = re.compile(r"(?:yes|no)[.!]?", re.IGNORECASE)
_NUMBER = re.compile(r"[-+±~≈$€£]?\s?[\d.,:/×x*^\s]*\d[\d.,:/\s]*\s?[%°\w²³]{0,8}\.?")
_CODE = re.compile(
    r"```|<(?:!doctype|html|svg|div|body)\b|^[ \t]*(?:def|class|import|#include)\s", re.IGNORECASE | re.MULTILINE
)
# Two numbered or bulleted lines, "Step 2", or two words that order a derivation.
_STEP = re.compile(
    r"^[ \t]*(?:\d+[.)]|[-*•])\s+\S|\bstep\s+\d|\b(?:first|second|third|next|then|finally|therefore|thus|hence)\b[,:]",
    re.IGNORECASE | re.MULTILINE,
)
_SENTENCE_END = re.compile(r"[.!?。！？](?:\s|$)")
MIN_STEPS, MAX_PHRASE_WORDS, MAX_NUMBER_CHARS = 2, 8, 40


def classify_answer(text: str) -> str:
    """Return the form of an answer, one of `ANSWER_KINDS`."""
    text = text.strip()
    if _CODE.search(text):
        return "code"
    if len(_STEP.findall(text)) >= MIN_STEPS:
        return "steps"
    if _YES_OR_NO.fullmatch(text):
        return "yes or no"
    if len(text) <= MAX_NUMBER_CHARS and _NUMBER.fullmatch(text):
        return "number"
    if _OPTION.fullmatch(text):
        return "option"
    if len(text.split()) <= MAX_PHRASE_WORDS and len(_SENTENCE_END.findall(text)) <= 1:
        return "phrase"
    return "sentences"
