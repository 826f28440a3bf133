"""Answers that repeat themselves: the loops of small models and of greedy decoding.

Working through a table repeats phrases, so only the same word five times in a row, the same sentence three times, or a
long answer of which most stretches of four words come several times count as a loop.
"""

from __future__ import annotations

import re
from collections import Counter
from itertools import pairwise

from mvl_assets.rewriting.checks.pair import CheckedPair, split_words

MAX_EQUAL_SENTENCES = 2
MIN_SENTENCE_WORDS = 5
MIN_LOOP_WORDS, MIN_DISTINCT_SHARE = 80, 0.35
MAX_EQUAL_WORDS = 4
_LETTERS = re.compile(r"[^\W\d_]{2,}")
_SENTENCE = re.compile(r"(?<=[.!?])\s+|\n+")


def find_repetition(pair: CheckedPair) -> str | None:
    """Return what the answer repeats."""
    words = split_words(pair.answer)
    if word := _find_repeated_word(words):
        return f"a word again and again: {word[:60]!r}"
    if pair.family == "code" or len(pair.answer) < 60:
        return None
    sentences = Counter(_SENTENCE.split(pair.answer))
    for sentence, n in sentences.items():
        if n > MAX_EQUAL_SENTENCES and len(_LETTERS.findall(sentence)) >= MIN_SENTENCE_WORDS and "|" not in sentence:
            return f"the same sentence {n} times: {sentence[:60]!r}"
    if len(words) >= MIN_LOOP_WORDS:
        share = len(set(zip(words, words[1:], words[2:], words[3:], strict=False))) / (len(words) - 3)
        if share < MIN_DISTINCT_SHARE:
            return f"only {share:.0%} of its stretches of four words differ"
    return None


def _find_repeated_word(words: list[str]) -> str | None:
    """Return a word, not a number, that comes more than `MAX_EQUAL_WORDS` times in a row."""
    n_equal = 1
    for word, next_word in pairwise(words):
        n_equal = n_equal + 1 if word == next_word else 1
        if n_equal > MAX_EQUAL_WORDS and word.isalpha():
            return word
    return None
