"""Which of very many stored hashes share a band with one of a few new ones: 10 ns a band, where a join takes far more.

A database would look every stored hash up in a table of the new ones. Here it is a byte in a table that the processor's
cache holds, which says no of most bands; the few others are looked up among the sorted new ones.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa

MIN_BITS, MAX_BITS = 16, 22
"""Logarithms of the entries of a band's table: 32 for each new hash, as long as that is within 4 MB."""

HASH_BANDS = 16
"""Bands of 16 bits in a PDQ hash."""

_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)
_BAND_STEP = 0x632BE59BD9B4E019


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


def split_hashes(hashes: pa.StringArray) -> np.ndarray:
    """Return the bands of PDQ hashes, without nulls, as integers of shape (hashes, `HASH_BANDS`)."""
    return np.frombuffer(bytes.fromhex("".join(hashes.drop_null().to_pylist())), dtype=">u2").reshape(-1, HASH_BANDS)
