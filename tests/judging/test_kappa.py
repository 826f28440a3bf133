"""Agreement beyond chance."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mvl_assets.judging.kappa import Confusion, compute_confusion


def test_kappa_of_a_textbook_table():
    # Two readers of 50 proposals: 20 both yes, 5 and 10 apart, 15 both no. Observed 0.7, by chance 0.5.
    result = Confusion(both_yes=20, first_only=5, second_only=10, both_no=15)
    assert result.observed_agreement == 0.7
    assert result.kappa == pytest.approx(0.4)
    assert result.standard_error == pytest.approx(math.sqrt(0.7 * 0.3 / 50) / 0.5)
    assert result.f1 == pytest.approx(40 / 55)


def test_kappa_is_undefined_without_items_or_with_a_single_label():
    assert (Confusion().kappa, Confusion().observed_agreement, Confusion().f1) == (None, None, None)
    assert compute_confusion([(True, True)] * 9).kappa is None
    assert compute_confusion([(True, True), (False, False)]).kappa == 1.0
    assert compute_confusion([(True, False), (False, True)]).kappa == -1.0


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1))
def test_kappa_is_the_same_seen_from_either_side_and_for_the_opposite_words(pairs: list[tuple[bool, bool]]):
    result = compute_confusion(pairs)
    assert result.n == len(pairs)
    for other in (compute_confusion((b, a) for a, b in pairs), compute_confusion((not a, not b) for a, b in pairs)):
        assert other.kappa == (None if result.kappa is None else pytest.approx(result.kappa))
    assert result.kappa is None or -1 <= result.kappa <= 1
