"""How a loss curve moved, down to a stage of one step."""

from __future__ import annotations

import pytest

from mvl_training.runs.training_run import (
    compute_loss_trend,
)


def test_a_loss_trend_compares_both_ends_of_the_curve_beyond_noise() -> None:
    falling = compute_loss_trend([3.0, 3.1, 2.9, 1.0, 1.1, 0.9])
    assert (falling.first_mean, falling.last_mean) == (pytest.approx(3.0), pytest.approx(1.0))
    assert falling.has_fallen
    assert compute_loss_trend([1.0, 1.1, 0.9, 3.0, 3.1, 2.9]).has_risen


def test_the_loss_of_a_single_step_neither_fell_nor_rose() -> None:
    single = compute_loss_trend([2.5])
    assert (single.first_mean, single.last_mean, single.standard_error) == (2.5, 2.5, 0.0)
    assert not single.has_fallen
    assert not single.has_risen
    with pytest.raises(ValueError, match="needs at least one step"):
        compute_loss_trend([])
