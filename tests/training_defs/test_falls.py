"""How a loss curve moved, down to a stage of one step."""

from __future__ import annotations

import pytest

from mvl_training.runs.stage_run import fall_of


def test_both_ends_of_a_curve_are_compared_beyond_noise() -> None:
    fell = fall_of([3.0, 3.1, 2.9, 1.0, 1.1, 0.9])
    assert (fell.first, fell.last) == (pytest.approx(3.0), pytest.approx(1.0))
    assert fell.fell
    assert fall_of([1.0, 1.1, 0.9, 3.0, 3.1, 2.9]).rose


def test_one_step_alone_neither_fell_nor_rose() -> None:
    alone = fall_of([2.5])
    assert (alone.first, alone.last, alone.noise) == (2.5, 2.5, 0.0)
    assert not alone.fell
    assert not alone.rose
    with pytest.raises(ValueError, match="needs a step"):
        fall_of([])
