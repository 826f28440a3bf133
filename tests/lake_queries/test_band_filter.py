"""Hashes that share a band with a new one, and no others."""

from __future__ import annotations

import numpy as np

from mvl_assets.lake_queries.band_filter import BandFilter


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
