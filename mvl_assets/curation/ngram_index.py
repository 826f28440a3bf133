"""Which items of benchmarks a text holds: runs of five words, weighted by how rare they are among the items.

The idea is that of `decon` (Allen AI): an item counts as held if the rare runs of its question and options are in the
text, since those of its template ("answer with the option's letter") are in many others, too. Weights are those of the
item's own benchmark, so that another benchmark changes none of them. Everything that grows with the texts is
vectorised; memory grows with the items alone.
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from mvl_assets.common.markers import IMAGE_MARKER, VIDEO_MARKER
from mvl_assets.curation.text_overlap import CJK

INDEX_VERSION = 1
"""Increased when the same items give other arrays."""

GRAM_LENGTH = 5

MIN_INDEXED_TOKENS = 13
"""Items with fewer tokens are not found by their text: too many texts hold them by chance."""

MIN_SEGMENT_TOKENS = 13
"""Tokens that question and options of some length must have for their order not to matter."""

MAX_GRAM_ITEMS = 256
"""A run that more items have proposes none of them; it counts where others have."""

MIN_STORED_OVERLAP = 0.5
"""Texts that hold less of an item are no match."""

MAX_TEXT_CHARS = 200_000
"""Characters of a text that are looked at."""

_SEGMENT_END = re.compile(r"\n|(?:^|(?<=\s))\(?[A-Ha-h](?:\)|\.|:)\s")
"""Ends of lines, and labels of options."""

_WORD = re.compile(r"[^\W_]+")
_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)


@dataclass(frozen=True, slots=True)
class IndexedItem:
    """An item by its number; `text` is its question with the options."""

    item: int
    source: str
    text: str


@dataclass(frozen=True, slots=True)
class TextMatch:
    """A text that holds an item.

    Attributes:
        text: Number of the text in its batch.
        item: Number of the item.
        n_tokens: Tokens of the item.
        overlap: Share of the item that the text holds.
    """

    text: int
    item: int
    n_tokens: int
    overlap: float


def split_tokens(text: str) -> list[str]:
    """Return the words and numbers of a text in lower case; each character of a script without spaces is one."""
    text = text[:MAX_TEXT_CHARS].lower()
    if "<" in text:
        text = text.replace(IMAGE_MARKER, " ").replace(VIDEO_MARKER, " ")
    if not text.isascii():
        text = CJK.sub(r" \g<0> ", text)
    return _WORD.findall(text)


def split_segments(text: str) -> list[list[str]]:
    """Return the tokens of an item in parts, over whose ends no run goes.

    Options may be in any order, so question and options are apart; but if the long ones among them say little, the
    whole text is one part.
    """
    segments = [split_tokens(segment) for segment in _SEGMENT_END.split(text)]
    if sum(len(tokens) for tokens in segments if len(tokens) >= GRAM_LENGTH) >= MIN_SEGMENT_TOKENS:
        return segments
    return [[token for tokens in segments for token in tokens]]


@dataclass(frozen=True, slots=True)
class IndexArrays:
    """What an index consists of, in the order of its items; it follows from the items alone.

    Attributes:
        words: The distinct words in UTF-8, one a line; the first is word 1. `uint8`.
        numbers: Number of each item. `int64`.
        n_tokens: Its tokens. `int64`.
        offsets: Where the runs of each begin, and where the last one ends. `int64` of one more.
        grams: Hashes of the distinct runs, item by item. `uint64`.
        weights: Weight of each in its item. `float64`.
        order: The runs by hash, then by item, as positions. `int64`.
        starts: Where each distinct hash begins in that order, if few items have it. `int64`.
        counts: How many items have it. `int64`.
    """

    words: np.ndarray
    numbers: np.ndarray
    n_tokens: np.ndarray
    offsets: np.ndarray
    grams: np.ndarray
    weights: np.ndarray
    order: np.ndarray
    starts: np.ndarray
    counts: np.ndarray


def build_index_arrays(items: Iterable[IndexedItem]) -> IndexArrays:
    """Return the index of the items that can be found by their text."""
    vocabulary: dict[str, int] = {}
    numbers, lengths, n_tokens, word_ids = array("q"), array("q"), array("q"), array("Q")
    sources: list[str] = []
    for item in items:
        segments = split_segments(item.text)
        n_item_tokens = sum(map(len, segments))
        if n_item_tokens < MIN_INDEXED_TOKENS:
            continue
        n_before = len(word_ids)
        for segment in segments:
            word_ids.extend(vocabulary.setdefault(token, len(vocabulary) + 1) for token in segment)
            word_ids.append(0)
        lengths.append(len(word_ids) - n_before)
        numbers.append(item.item)
        n_tokens.append(n_item_tokens)
        sources.append(item.source)
    hashes, starts = _compute_run_hashes(np.array(word_ids, dtype=np.uint64))
    owners = np.repeat(np.arange(len(numbers)), np.array(lengths))[starts]
    order = np.lexsort((hashes, owners))
    hashes, owners = hashes[order], owners[order]
    is_first = np.ones(len(hashes), dtype=bool)
    is_first[1:] = (hashes[1:] != hashes[:-1]) | (owners[1:] != owners[:-1])
    grams, owners = hashes[is_first], owners[is_first]
    order = np.lexsort((owners, grams))
    _, starts, counts = np.unique(grams[order], return_index=True, return_counts=True)
    is_rare = counts <= MAX_GRAM_ITEMS
    return IndexArrays(
        words=np.frombuffer("\n".join(vocabulary).encode(), dtype=np.uint8),
        numbers=np.array(numbers),
        n_tokens=np.array(n_tokens),
        offsets=np.searchsorted(owners, np.arange(len(numbers) + 1)),
        grams=grams,
        weights=_compute_weights(grams, owners, np.unique(sources, return_inverse=True)[1]),
        order=order,
        starts=starts[is_rare],
        counts=counts[is_rare],
    )


class NgramIndex:
    """Looks items up by the runs of texts."""

    def __init__(self, arrays: IndexArrays) -> None:
        self._vocabulary = {word: nth for nth, word in enumerate(arrays.words.tobytes().decode().split("\n"), start=1)}
        self._numbers, self._n_tokens, self._offsets = arrays.numbers, arrays.n_tokens, arrays.offsets
        self._grams, self._weights = arrays.grams, arrays.weights
        self._starts, self._counts = arrays.starts, arrays.counts
        n_items = len(self._numbers)
        owners = np.repeat(np.arange(n_items), np.diff(self._offsets))
        self._totals = np.bincount(owners, self._weights, minlength=n_items)
        self._keys = self._grams[arrays.order[self._starts]]
        self._posting_owners = owners[arrays.order]
        self._posting_weights = self._weights[arrays.order]
        rare_positions = _expand_ranges(self._starts, self._counts)
        rare_totals = np.bincount(
            self._posting_owners[rare_positions], self._posting_weights[rare_positions], minlength=n_items
        )
        self._common_totals = self._totals - rare_totals
        # Whether any key has these bits: most runs of a text end here, with one look-up.
        self._shift = np.uint64(64 - min(27, max(10, int(len(self._keys) * 8).bit_length())))
        self._may_contain = np.zeros(1 << (64 - int(self._shift)), dtype=bool)
        self._may_contain[self._keys >> self._shift] = True

    def iter_matches(self, texts: Sequence[str]) -> Iterator[TextMatch]:
        """Yield the items of which a text holds at least `MIN_STORED_OVERLAP`, by text and item."""
        if not len(self._keys):
            return
        word_ids = [self._list_word_ids(text) for text in texts]
        # A zero, an unknown word, ends each text: no run goes over it.
        flat = np.fromiter((word for ids in word_ids for word in ids), dtype=np.uint64)
        owners = np.repeat(np.arange(len(texts)), [len(ids) for ids in word_ids])
        hashes, positions = _compute_run_hashes(flat)
        candidates = np.flatnonzero(self._may_contain[hashes >> self._shift])
        hashes, text_numbers = hashes[candidates], owners[positions[candidates]]
        key_numbers = np.minimum(np.searchsorted(self._keys, hashes), len(self._keys) - 1)
        is_known = self._keys[key_numbers] == hashes
        pairs = np.unique(np.stack([text_numbers[is_known], key_numbers[is_known]], axis=1), axis=0)
        if not len(pairs):
            return
        counts = self._counts[pairs[:, 1]]
        postings = _expand_ranges(self._starts[pairs[:, 1]], counts)
        pair_keys = np.repeat(pairs[:, 0], counts) * len(self._numbers) + self._posting_owners[postings]
        unique_keys, inverse = np.unique(pair_keys, return_inverse=True)
        rare_sums = np.bincount(inverse, self._posting_weights[postings])
        item_numbers = unique_keys % len(self._numbers)
        is_possible = rare_sums + self._common_totals[item_numbers] >= MIN_STORED_OVERLAP * self._totals[item_numbers]
        text_ends = np.cumsum([len(ids) for ids in word_ids])
        for key in unique_keys[is_possible].tolist():
            text, owner = divmod(key, len(self._numbers))
            start = 0 if text == 0 else int(text_ends[text - 1])
            overlap = self._compute_overlap(flat[start : text_ends[text]], owner)
            if overlap >= MIN_STORED_OVERLAP:
                yield TextMatch(text, int(self._numbers[owner]), int(self._n_tokens[owner]), overlap)

    def _list_word_ids(self, text: str) -> list[int]:
        get = self._vocabulary.get
        return [*(get(token, 0) for token in split_tokens(text)), 0]

    def _compute_overlap(self, word_ids: np.ndarray, owner: int) -> float:
        span = slice(self._offsets[owner], self._offsets[owner + 1])
        is_held = np.isin(self._grams[span], _compute_run_hashes(word_ids)[0])
        return min(1.0, float(self._weights[span][is_held].sum() / self._totals[owner]))


def _compute_weights(grams: np.ndarray, owners: np.ndarray, source_numbers: np.ndarray) -> np.ndarray:
    """Return the weight of each run of each item: the logarithm of how few items of its benchmark have it."""
    weights = np.empty(len(grams))
    for source, n_items in enumerate(np.bincount(source_numbers)):
        is_member = (source_numbers == source)[owners]
        _, inverse, counts = np.unique(grams[is_member], return_inverse=True, return_counts=True)
        weights[is_member] = np.log1p(n_items / counts[inverse])
    return weights


def _compute_run_hashes(word_ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the hashes of all runs of known words, and where each begins."""
    n_runs = len(word_ids) - GRAM_LENGTH + 1
    if n_runs <= 0:
        return np.empty(0, dtype=np.uint64), np.empty(0, dtype=np.int64)
    hashes = np.zeros(n_runs, dtype=np.uint64)
    for nth in range(GRAM_LENGTH):
        hashes = (hashes ^ word_ids[nth : nth + n_runs]) * _MULTIPLIER
        hashes ^= hashes >> np.uint64(29)
    n_unknown = np.concatenate([[0], np.cumsum(word_ids == 0)])
    starts = np.flatnonzero(n_unknown[GRAM_LENGTH:] == n_unknown[:n_runs])
    return hashes[starts], starts


def _expand_ranges(starts: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Return the positions of all ranges, one after the other."""
    if not len(counts):
        return np.empty(0, dtype=np.int64)
    ends = np.cumsum(counts)
    return np.arange(ends[-1]) + np.repeat(starts - (ends - counts), counts)
