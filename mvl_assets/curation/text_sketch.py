"""Sketches of texts: 16 numbers by which the database finds rows that may have the same words.

Rows with images are compared only with rows that show the same images, so their sketch may be loose: one MinHash of
the set of words in each number. Rows without images meet all others: each number is a band of four hashes of pairs of
words, which rows with half of their pairs in common share with a chance of 6 %, and those with four fifths with 41 %.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np

from mvl_assets.common.markers import IMAGE_MARKER, VIDEO_MARKER
from mvl_assets.curation.text_overlap import CJK, FUNCTION_WORDS, MAX_CHARS

SKETCH_LENGTH = 16
"""Numbers in a sketch."""

BAND_HASHES = 4
SEED = 1
"""Hashes in a band, and the seed of them all: sketches of other seeds cannot be compared."""

_WORD = re.compile(r"[^\W_]+")

Conversation = Sequence[Mapping[str, str]]


def compute_word_sketches(conversations: Sequence[Conversation]) -> np.ndarray:
    """Return the sketches of rows with images, as an int64 array of shape (rows, `SKETCH_LENGTH`)."""
    return _compute_hashes([list(set(_list_words(c))) for c in conversations], SKETCH_LENGTH).astype(np.int64)


def compute_word_pair_sketches(conversations: Sequence[Conversation]) -> np.ndarray:
    """Return the sketches of rows without images, in the same shape."""
    token_sets = []
    for conversation in conversations:
        words = _list_words(conversation)
        token_sets.append([f"{a} {b}" for a, b in pairwise(words)] or words)
    hashes = _compute_hashes(token_sets, SKETCH_LENGTH * BAND_HASHES).reshape(-1, SKETCH_LENGTH, BAND_HASHES)
    bands = np.zeros(hashes.shape[:2], dtype=np.uint64)
    for nth in range(BAND_HASHES):
        bands = (bands ^ hashes[:, :, nth]) * np.uint64(0x9E3779B97F4A7C15)
        bands ^= bands >> np.uint64(29)
    return bands.view(np.int64)


def _list_words(conversation: Conversation) -> list[str]:
    """Return the words that say something, in order. A single letter may be the label of an option."""
    text = "\n".join([turn["value"] for turn in conversation])[:MAX_CHARS]
    if "<" in text:
        text = text.replace(IMAGE_MARKER, " ").replace(VIDEO_MARKER, " ")
    if not text.isascii():
        text = CJK.sub(r" \g<0> ", text.casefold())
    return [
        word
        for word in _WORD.findall(text.lower())
        if word not in FUNCTION_WORDS and (len(word) > 1 or not "a" <= word <= "z")
    ]


def _compute_hashes(token_sets: list[list[str]], n_hashes: int) -> np.ndarray:
    import rensa  # compiled: only where rows are compared

    if not token_sets:
        return np.empty((0, n_hashes), dtype=np.uint64)
    matrix = rensa.RMinHash.digest_matrix_from_token_sets(token_sets, n_hashes, SEED)
    return np.array(matrix.to_rows(), dtype=np.uint64)
