"""The even choice of frames equals what each caller computed before it was shared: pixels may not change."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mvl_assets.common.pick_evenly import pick_evenly, pick_exactly


@pytest.mark.parametrize("n_picked", [1, 2, 15, 32, 64])
def test_nearest_equals_the_rounding_of_numpy(n_picked: int) -> None:
    for n in range(n_picked + 1, 700):
        assert pick_evenly(n, n_picked) == np.linspace(0, n - 1, n_picked).round().astype(int).tolist()


def test_nearest_equals_exact_rounding_for_frame_folders() -> None:
    for n in range(33, 5000):
        assert pick_evenly(n, 32) == [round(i * (n - 1) / 31) for i in range(32)]


@pytest.mark.parametrize("n_picked", [1, 2, 15, 32, 64])
def test_down_equals_the_truncation_of_llava_onevision(n_picked: int) -> None:
    for n in range(n_picked + 1, 700):
        assert pick_evenly(n, n_picked, "down") == np.linspace(0, n - 1, n_picked, dtype=np.int64).tolist()


@pytest.mark.parametrize("rounding", ["nearest", "down"])
def test_all_are_picked_when_there_are_at_most_as_many_as_requested(rounding: str) -> None:
    for n in range(6):
        assert pick_evenly(n, 5, rounding) == list(range(n))  # type: ignore[arg-type]


@given(st.integers(0, 500), st.integers(1, 64), st.sampled_from(["nearest", "down"]))
def test_choice_is_in_order_without_repeats_and_keeps_both_ends(n_available: int, n_picked: int, rounding: str) -> None:
    picked = pick_evenly(n_available, n_picked, rounding)  # type: ignore[arg-type]
    assert len(picked) == min(n_available, n_picked)
    assert picked == sorted(set(picked))
    if n_picked > 1 and n_available > 1:
        assert (picked[0], picked[-1]) == (0, n_available - 1)


@given(st.integers(1, 500), st.integers(1, 64))
def test_spread_gives_the_same_as_picking_and_repeats_what_is_too_little(n_available: int, n_picked: int) -> None:
    spread = pick_exactly(n_available, n_picked)
    assert len(spread) == n_picked and spread == sorted(spread)
    if n_available >= n_picked:
        assert spread == pick_evenly(n_available, n_picked, "down")
    else:
        assert set(spread) == set(range(n_available))


def test_nothing_is_spread_of_nothing() -> None:
    assert pick_exactly(0, 4) == []
