"""Answers that end in the middle of a sentence.

A short answer needs no full stop ("12 apples"), and neither does a list item, a formula, a line of code or a stated
result, so a missing full stop counts only after long prose that has some.
"""

from __future__ import annotations

import re

from mvl_assets.rewriting.checks.pair import CheckedPair

MIN_DANGLING_WORDS = 6
MIN_PROSE_CHARS = 160
# Words that no sentence ends with. Not "to", "on", "with" or "in": "the chair she sits on".
_DANGLING = re.compile(
    r"(?:\b(?:a|an|and|are|because|but|by|from|if|its|my|of|or|our|than|the|their|was|were|which|whose|your)"
    r"|[,(\[{=+]|\s[-–—&])\Z",
    re.IGNORECASE,
)
_SENTENCE_END = re.compile(r"[.!?…。！？।؟][\"'”’»)*_\]]*(?=\s|\Z)")
_ENDS_PROPERLY = re.compile(r"(?:[.!?…。！？।؟:;]|\$|`|\||>|\}|\]|\)|%)[\s\"'”’»)*_\]]*\Z")
# List items, headings, table rows, marked results, formulas.
_NO_SENTENCE = re.compile(
    r"\s*(?:[-*•+#|>]|\(?\w{1,3}[.)]\s|\**[\w ]{1,40}\**\s*[:=]|\\|\$)|.*(?:[=\\$→]|\banswer\b)", re.IGNORECASE
)


def find_open_end(pair: CheckedPair) -> str | None:
    """Return how the answer breaks off."""
    answer = pair.answer.rstrip()
    if pair.family == "code" or answer.endswith("```"):
        return None
    last_line = answer.rpartition("\n")[2]
    if len(last_line.split()) >= MIN_DANGLING_WORDS and _DANGLING.search(last_line):
        return f"ends in the middle: …{last_line[-40:]!r}"
    if (
        len(last_line) >= MIN_PROSE_CHARS
        and not _ENDS_PROPERLY.search(last_line)
        and _SENTENCE_END.search(last_line)
        and not _NO_SENTENCE.match(last_line[last_line.rfind(". ") + 2 :])
    ):
        return f"the last sentence has no end: …{last_line[-40:]!r}"
    return None
