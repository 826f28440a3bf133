"""Rewrites that equal their original, or nearly.

Both question and answer must be near-copies: a kept question with a new answer, and a new question whose short answer
is the same, are what rewriting is for. Near means the same numbers and at most one word in eight that differs.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from mvl_assets.rewriting.checks.pair import CheckedPair, split_words

MAX_CHANGED_SHARE = 1 / 8
# Words that an answer may have around the original's without saying more: "The answer is 12."
_FILLERS = frozenset({"a", "an", "answer", "is", "it", "final", "the"})
# Of a short text, only words like these may differ: "the cat" is not "the dog".
_SMALL_WORDS = frozenset(
    {
        "a",
        "an",
        "and",
        "are",
        "at",
        "by",
        "do",
        "does",
        "for",
        "from",
        "in",
        "is",
        "it",
        "of",
        "on",
        "or",
        "than",
        "the",
    }
)


def find_copy(pair: CheckedPair) -> str | None:
    """Return that the pair is a copy of an original one."""
    question, answer = split_words(pair.question), split_words(pair.answer)
    for original in pair.originals:
        if not is_near_copy(answer, split_words(original.answer)):
            continue
        # Questions about captions ("Describe the image.") say nothing that could be kept.
        if pair.is_preserved or pair.family == "caption" or is_near_copy(question, split_words(original.question)):
            return f"question and answer are the original's, or nearly: {pair.answer[:60]!r}"
    return None


def is_near_copy(words: Sequence[str], original_words: Sequence[str]) -> bool:
    """Return whether two lists of words are the same, or nearly."""
    if words == original_words or _drop_fillers(words) == _drop_fillers(original_words):
        return True
    n_words, n_original = len(words), len(original_words)
    n_allowed = max(1, int(MAX_CHANGED_SHARE * max(n_words, n_original)))
    if abs(n_words - n_original) > n_allowed:
        return False
    differing = Counter(words)
    differing.subtract(original_words)
    changed = [word for word, n in differing.items() if n]
    if any(char.isdigit() for word in changed for char in word):
        return False
    n_added = sum(n for n in differing.values() if n > 0)
    if n_allowed == 1 and not _SMALL_WORDS.issuperset(changed):
        return False
    return max(n_added, n_added - n_words + n_original) <= n_allowed


def _drop_fillers(words: Sequence[str]) -> list[str]:
    return [word for word in words if word not in _FILLERS] or list(words)
