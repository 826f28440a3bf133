"""Requests for a short answer, which data sets append to their questions ("Answer with a single word.")."""

from __future__ import annotations

import re

_LAST_SENTENCE = re.compile(r"(?:(?<=[.?!:;])\s+|\n\s*)(?P<sentence>[^.?!\n]{4,160}[.!]?)\s*\Z")
_BRIEF = re.compile(
    r"\b(?:brief(?:ly)?|brevity|short|succinct(?:ly)?|concise(?:ly)?|terse|quick|(?:single|one) word"
    r"|word or (?:a )?(?:short )?phrase)\b",
    re.IGNORECASE,
)
_ANSWER = re.compile(r"\b(?:answer|respond|response|reply|keep it|be)\b", re.IGNORECASE)
_LETTER = re.compile(
    r"(?:please )?(?:answer|choose|select|respond|reply|give|provide)\b.*\bletter\b.*", re.IGNORECASE | re.DOTALL
)
_OPTION = re.compile(r"\b(?:choices?|options?(?:['’]s)?|only|directly|with (?:the|its|a) letter)\b", re.IGNORECASE)
# Before the text of an option: "D. be brief".
_OPTION_MARK = re.compile(r"(?:^|\s)\(?[A-Za-z0-9][.):]\Z")


def strip_brevity_request(question: str) -> str:
    """Return the question without a last sentence that asks for a short answer; a question is never emptied."""
    match = _LAST_SENTENCE.search(question)
    if match is None or not question[: match.start()].strip() or _OPTION_MARK.search(question, 0, match.start()):
        return question
    sentence = match["sentence"]
    is_request = (_BRIEF.search(sentence) and _ANSWER.search(sentence)) or (
        _LETTER.fullmatch(sentence) and _OPTION.search(sentence)
    )
    return question[: match.start()].rstrip() if is_request else question
