"""Which of very many stored hashes share a band with one of a few new ones: 10 ns a band, where a join takes far more.

A database would look every stored hash up in a table of the new ones. Here it is a bit in a table that the processor's
cache holds; what passes, little more than what does share a band, is then joined.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa

MIN_BITS, MAX_BITS = 16, 22
"""Logarithms of the entries of a band's table: 16 for each new hash, as long as that is within 4 MB."""

HASH_BANDS = 16
"""Bands of 16 bits in a PDQ hash."""

_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)


class BandFilter:
    """The bands of some hashes; the same number in another band is something else.

    Args:
        n_hashes: How many will be added, about.
        n_bands: Bands of each.
    """

    def __init__(self, n_hashes: int, n_bands: int) -> None:
        n_bits = min(MAX_BITS, max(MIN_BITS, (16 * n_hashes).bit_length()))
        self._shift = np.uint64(64 - n_bits)
        self._bands = np.arange(n_bands)
        self._is_used = np.zeros((n_bands, 1 << n_bits), dtype=bool)

    def add(self, hashes: np.ndarray) -> None:
        """Add hashes: integers of shape (hashes, bands)."""
        self._is_used[self._bands, self._fold(hashes)] = True

    def find(self, hashes: np.ndarray) -> np.ndarray:
        """Return which hashes may share a band with one that was added: all that do, and few others."""
        return self._is_used[self._bands, self._fold(hashes)].any(axis=1)

    def _fold(self, hashes: np.ndarray) -> np.ndarray:
        return (hashes.astype(np.uint64) * _MULTIPLIER) >> self._shift


def split_hashes(hashes: pa.StringArray) -> np.ndarray:
    """Return the bands of PDQ hashes, without nulls, as integers of shape (hashes, `HASH_BANDS`)."""
    return np.frombuffer(bytes.fromhex("".join(hashes.drop_null().to_pylist())), dtype=">u2").reshape(-1, HASH_BANDS)
