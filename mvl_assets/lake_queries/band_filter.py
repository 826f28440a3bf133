"""Which of very many stored hashes share a band with one of a few new ones: 10 ns a band, where a join takes far more.

A database would look every stored hash up in a table of the new ones. Here it is a byte in a table that the processor's
cache holds, which says no of most bands; the few others are looked up among the sorted new ones.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from mvl_assets.common.id_array import decode_ids

MIN_BITS, MAX_BITS = 16, 22
"""Logarithms of the entries of a band's table: 32 for each new hash, as long as that is within 4 MB."""

HASH_BANDS = 16
"""Bands of 16 bits in a PDQ hash."""

_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)
_BAND_STEP = 0x632BE59BD9B4E019
_ROWS_AT_ONCE = 4096


class BandFilter:
    """The bands of some hashes; the same number in another band is something else.

    Args:
        n_hashes: How many will be added, about.
        n_bands: Bands of each.
    """

    def __init__(self, n_hashes: int, n_bands: int) -> None:
        n_bits = min(MAX_BITS, max(MIN_BITS, (32 * n_hashes).bit_length()))
        self._shift = np.uint64(64 - n_bits)
        self._bands = np.arange(n_bands)
        self._offsets = np.array([nth * _BAND_STEP % (1 << 64) for nth in range(n_bands)], dtype=np.uint64)
        self._is_used = np.zeros((n_bands, 1 << n_bits), dtype=bool)
        self._added: list[np.ndarray] = []
        self._sorted: np.ndarray | None = None

    def add(self, hashes: np.ndarray) -> None:
        """Add hashes: integers of shape (hashes, bands)."""
        keys = self._fold(hashes)
        self._is_used[self._bands, keys >> self._shift] = True
        self._added.append(keys.reshape(-1))
        self._sorted = None

    def find(self, hashes: np.ndarray) -> np.ndarray:
        """Return which hashes share a band with one that was added."""
        shares_band = np.zeros(len(hashes), dtype=bool)
        if not self._added:
            return shares_band
        if self._sorted is None:
            self._sorted = np.unique(np.concatenate(self._added))
        added = self._sorted
        keys = self._fold(hashes)
        rows, bands = np.nonzero(self._is_used[self._bands, keys >> self._shift])
        candidates = keys[rows, bands]
        positions = np.minimum(np.searchsorted(added, candidates), len(added) - 1)
        shares_band[rows[added[positions] == candidates]] = True
        return shares_band

    def _fold(self, hashes: np.ndarray) -> np.ndarray:
        """Return a number of 64 bits for each band: within one, different numbers stay different."""
        return (hashes.astype(np.uint64) + self._offsets) * _MULTIPLIER


class NearHashFilter:
    """New PDQ hashes, among which those are looked for that share a band with a stored one and differ in few bits.

    Of random hashes, half share a band with one of 3,000, so bands alone would pass most of what is stored.

    Args:
        hashes: The new hashes, as `split_hashes` returns them.
        max_distance: Bits that may differ.
        max_bucket: What shares a band with more of the new hashes passes without a look at its bits.
    """

    def __init__(self, hashes: np.ndarray, max_distance: int, max_bucket: int) -> None:
        self._max_distance = max_distance
        self._max_bucket = max_bucket
        self._words = _join_bands(hashes)
        keys = self._build_keys(hashes).reshape(-1)
        self._owners = np.argsort(keys, kind="stable") // HASH_BANDS
        counts = np.bincount(keys, minlength=HASH_BANDS << 16)
        self._starts = np.concatenate([[0], np.cumsum(counts)])

    def find(self, hashes: np.ndarray) -> np.ndarray:
        """Return which of the stored hashes are near a new one."""
        parts = [
            self._find_part(hashes[start : start + _ROWS_AT_ONCE]) for start in range(0, len(hashes), _ROWS_AT_ONCE)
        ]
        return np.concatenate([np.empty(0, dtype=bool), *parts])

    def _find_part(self, hashes: np.ndarray) -> np.ndarray:
        keys = self._build_keys(hashes)
        counts = self._starts[keys + 1] - self._starts[keys]
        is_near = (counts > self._max_bucket).any(axis=1)
        rows, bands = np.nonzero((counts > 0) & ~is_near[:, None])
        bucket_sizes, first = counts[rows, bands], self._starts[keys[rows, bands]]
        ends = np.cumsum(bucket_sizes)
        within = np.arange(ends[-1] if len(ends) else 0) - np.repeat(ends - bucket_sizes, bucket_sizes)
        owners = self._owners[np.repeat(first, bucket_sizes) + within]
        pair_rows = np.repeat(rows, bucket_sizes)
        differing = np.bitwise_count(_join_bands(hashes)[pair_rows] ^ self._words[owners]).sum(axis=1, dtype=np.int64)
        is_near[pair_rows[differing <= self._max_distance]] = True
        return is_near

    def _build_keys(self, hashes: np.ndarray) -> np.ndarray:
        return hashes.astype(np.int64) + (np.arange(HASH_BANDS) << 16)


def _join_bands(hashes: np.ndarray) -> np.ndarray:
    """Return hashes as words of 64 bits, of shape (hashes, 4)."""
    return np.ascontiguousarray(hashes, dtype=np.uint16).view(np.uint64)


def split_hashes(hashes: pa.StringArray) -> np.ndarray:
    """Return the bands of PDQ hashes, without nulls, as integers of shape (hashes, `HASH_BANDS`)."""
    return np.frombuffer(decode_ids(hashes, 2 * HASH_BANDS), dtype=">u2").reshape(-1, HASH_BANDS)
