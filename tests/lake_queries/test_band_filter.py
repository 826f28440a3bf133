"""Hashes that share a band with a new one, and no others."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from mvl_assets.lake_queries.band_filter import HASH_BANDS, BandFilter, NearHashFilter, split_hashes


def test_only_hashes_that_share_a_band_are_passed_on() -> None:
    generator = np.random.default_rng(0)
    for low, high in ((-(1 << 63), (1 << 63) - 1), (0, 1 << 16), (0, 40)):
        new, stored = (generator.integers(low, high, (n, 4)) for n in (50, 3000))
        stored[:20, 1] = new[:20, 1]
        stored[20:40, 2] = new[:20, 1]
        bands = BandFilter(50, 4)
        for half in np.split(new, 2):
            bands.add(half)
        expected = np.array([bool((row == new).any()) for row in stored])
        np.testing.assert_array_equal(bands.find(stored), expected)


def test_nothing_shares_a_band_with_nothing() -> None:
    assert not BandFilter(0, 4).find(np.zeros((3, 4), dtype=np.int64)).any()


def test_hash_is_near_one_with_the_same_band_and_few_other_bits() -> None:
    generator = np.random.default_rng(0)
    new, stored = (generator.integers(0, 1 << 16, (n, HASH_BANDS)) for n in (400, 6000))
    for row in range(200):
        stored[row] = new[row]
        for bit in generator.choice(256, row % 80, replace=False):
            stored[row, bit // 16] ^= 1 << (bit % 16)
    expected = np.array(
        [
            bool(((row == new).any(axis=1) & (np.bitwise_count(row ^ new).sum(axis=1) <= 48)).any())
            for row in stored.astype(np.uint16)
        ]
    )
    np.testing.assert_array_equal(NearHashFilter(new.astype(">u2"), 48, 256).find(stored.astype(">u2")), expected)
    assert 40 < expected.sum() < 200
    shares_band = (stored[:, None] == new[None]).any(axis=(1, 2))
    np.testing.assert_array_equal(NearHashFilter(new, 48, 0).find(stored), shares_band)
    assert len(NearHashFilter(new[:0], 48, 256).find(stored)) == len(stored)


def test_hashes_of_another_length_are_refused() -> None:
    assert split_hashes(pa.array([None, "0102" * HASH_BANDS])).tolist() == [[0x0102] * HASH_BANDS]
    with pytest.raises(ValueError, match="64 digits"):
        split_hashes(pa.array(["0102"]))
