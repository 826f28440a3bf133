"""Words that two texts have in common, and words that one of them has alone."""

from __future__ import annotations

import re
from difflib import SequenceMatcher

Part = tuple[str, bool]
"""A part of a text, and whether the other text lacks it."""

MAX_WORDS = 3000
"""Of both texts: the comparison takes time with the square of it."""

MIN_SHARED, MAX_SHORT_WORDS = 0.3, 4
"""Share of words that texts have in common at least: marks all over two texts would say nothing. Short ones are always
marked."""

_TOKEN = re.compile(r"\s+|\w+|[^\w\s]")


def mark_differences(original: str, rewritten: str) -> tuple[list[Part], list[Part]]:
    """Return both texts as parts. Texts too long to compare, or that share little, are one part each, not marked."""
    original_tokens, rewritten_tokens = _TOKEN.findall(original), _TOKEN.findall(rewritten)
    if len(original_tokens) + len(rewritten_tokens) > 2 * MAX_WORDS:
        return [(original, False)], [(rewritten, False)]
    matcher = SequenceMatcher(
        None, [t.casefold() for t in original_tokens], [t.casefold() for t in rewritten_tokens], autojunk=False
    )
    if _measure_shared_words(matcher, original_tokens, rewritten_tokens) < MIN_SHARED:
        return [(original, False)], [(rewritten, False)]
    original_parts: list[Part] = []
    rewritten_parts: list[Part] = []
    for operation, start, stop, other_start, other_stop in matcher.get_opcodes():
        is_different = operation != "equal"
        for parts, text in (
            (original_parts, "".join(original_tokens[start:stop])),
            (rewritten_parts, "".join(rewritten_tokens[other_start:other_stop])),
        ):
            # White space alone is no difference that a person looks for.
            _append(parts, text, is_different and bool(text.strip()))
    return _join_marks(original_parts), _join_marks(rewritten_parts)


def _join_marks(parts: list[Part]) -> list[Part]:
    """Return the parts with white space between two marks marked, so that a changed phrase is one mark."""
    joined: list[Part] = []
    for number, (text, is_different) in enumerate(parts):
        is_gap = text.isspace() and 0 < number < len(parts) - 1 and "\n" not in text
        _append(joined, text, is_different or is_gap)
    return joined


def _measure_shared_words(matcher: SequenceMatcher[str], tokens: list[str], other_tokens: list[str]) -> float:
    """Return the share of the words of the shorter text that are common to both; 1 for short texts."""
    lengths = [sum(not token.isspace() for token in side) for side in (tokens, other_tokens)]
    if not min(lengths) or max(lengths) <= MAX_SHORT_WORDS:
        return 1.0
    blocks = [tokens[block.a : block.a + block.size] for block in matcher.get_matching_blocks()]
    return sum(not token.isspace() for block in blocks for token in block) / min(lengths)


def _append(parts: list[Part], text: str, is_different: bool) -> None:
    if not text:
        return
    if parts and parts[-1][1] == is_different:
        text = parts.pop()[0] + text
    parts.append((text, is_different))
