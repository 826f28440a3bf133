"""Bin packing: every sample in one pack, no pack too full, hardly any space left."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mvl_training.data.bin_packing import pack_bins
from mvl_training.data.packing import compute_max_tiles
from mvl_training.data.processing import SampleCost
from mvl_training.data.token_counts import PackableSample


def build_samples(counts: list[tuple[int, int]]) -> list[PackableSample]:
    """Samples of these (tokens, tiles), with their index as their id."""
    return [
        PackableSample(str(index), SampleCost(n_tokens, n_tiles, 1, 0, ""), "chart", "single_image")
        for index, (n_tokens, n_tiles) in enumerate(counts)
    ]


@given(st.lists(st.tuples(st.integers(1, 100), st.integers(0, 12)), max_size=60))
def test_every_sample_is_in_exactly_one_pack_and_no_pack_is_too_full(counts: list[tuple[int, int]]) -> None:
    packs = pack_bins(build_samples(counts), 100, 8)
    assert sorted(int(sample.row_id) for p in packs for sample in p) == list(range(len(counts)))
    for pack in packs:
        assert sum(sample.cost.n_tokens for sample in pack) <= 100
        assert (
            sum(sample.cost.n_tiles for sample in pack) <= 8
            or len([sample for sample in pack if sample.cost.n_tiles]) == 1
        )
    assert packs == pack_bins(build_samples(counts), 100, 8), "equal samples, equal packs"
    assert sum(map(len, packs)) == len(counts)


def test_packs_of_a_mixture_like_the_papers_are_full() -> None:
    """12 % text, the rest around 2,400 tokens."""
    rng = random.Random(0)
    counts = []
    for _ in range(20_000):
        tokens = rng.randint(50, 600) if rng.random() < 0.12 else round(min(4600, max(800, rng.gauss(2700, 700))))
        counts.append((tokens, tokens // 729))
    for length, min_fill in ((8192, 0.98), (16384, 0.995)):
        packs = pack_bins(build_samples(counts), length, compute_max_tiles(length, 27))
        fill = sum(t for t, _ in counts) / (len(packs) * length)
        assert fill > min_fill, (length, fill)


def test_a_pair_is_found_where_the_longest_that_fits_would_waste_the_rest() -> None:
    packs = pack_bins(build_samples([(50, 0), (30, 0), (25, 0), (25, 0), (40, 0), (30, 0)]), 100, 8)
    assert [[sample.cost.n_tokens for sample in p] for p in packs] == [[50, 25, 25], [40, 30, 30]]


def test_a_sample_over_the_tile_limit_shares_its_pack_with_text_only() -> None:
    packs = pack_bins(build_samples([(40, 20), (30, 0), (30, 1), (60, 7), (10, 1)]), 100, 8)
    assert [sorted(sample.row_id for sample in p) for p in packs] == [["2", "3"], ["0", "1"], ["4"]]


def test_among_samples_of_one_length_the_one_whose_tiles_fit_is_taken() -> None:
    packs = pack_bins(build_samples([(50, 1), (50, 7), (50, 7), (50, 1)]), 100, 8)
    assert [[sample.row_id for sample in p] for p in packs] == [["1", "0"], ["2", "3"]]


def test_a_sample_longer_than_a_pack_raises() -> None:
    with pytest.raises(ValueError, match="101 tokens does not fit into 100"):
        pack_bins(build_samples([(101, 0)]), 100, 8)
