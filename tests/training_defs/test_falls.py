"""How a loss curve moved, down to a stage of one step."""

from __future__ import annotations

import pytest

from mvl_training.runs.stage_run import compute_loss_trend


def test_both_ends_of_a_curve_are_compared_beyond_noise() -> None:
    fell = compute_loss_trend([3.0, 3.1, 2.9, 1.0, 1.1, 0.9])
    assert (fell.first_mean, fell.last_mean) == (pytest.approx(3.0), pytest.approx(1.0))
    assert fell.has_fallen
    assert compute_loss_trend([1.0, 1.1, 0.9, 3.0, 3.1, 2.9]).has_risen


def test_one_step_alone_neither_fell_nor_rose() -> None:
    alone = compute_loss_trend([2.5])
    assert (alone.first_mean, alone.last_mean, alone.standard_error) == (2.5, 2.5, 0.0)
    assert not alone.has_fallen
    assert not alone.has_risen
    with pytest.raises(ValueError, match="needs a step"):
        compute_loss_trend([])
