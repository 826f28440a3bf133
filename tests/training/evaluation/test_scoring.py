"""Accuracy, its standard error, and the baselines it is compared with."""

from __future__ import annotations

import math

import pytest

from mvl_training.evaluation.scoring import (
    ScoredAnswer,
    compute_category_scores,
    compute_standard_error,
)


def test_baselines_are_per_category_and_the_total_weighs_categories_by_questions() -> None:
    scored_answers = [
        ScoredAnswer("chart", "7", True),
        ScoredAnswer("chart", "7.0", False),
        ScoredAnswer("chart", "9", False),
        ScoredAnswer("chart", "8", False),
        ScoredAnswer("ocr", "stop", True),
        ScoredAnswer("ocr", "go", True),
    ]
    chart, ocr, total = compute_category_scores(scored_answers)
    assert (chart.category, ocr.category, total.category) == ("chart", "ocr", "all")
    assert chart.majority_baseline == pytest.approx(2 / 4)
    assert chart.random_baseline == pytest.approx(1 / 3)
    assert (ocr.majority_baseline, ocr.random_baseline) == (0.5, 0.5)
    assert total.majority_baseline == pytest.approx((4 * 0.5 + 2 * 0.5) / 6)
    assert total.random_baseline == pytest.approx((4 / 3 + 2 / 2) / 6)
    assert total.accuracy == 0.5


def test_the_letter_a_is_a_distinct_reference_in_baselines() -> None:
    options, _ = compute_category_scores([ScoredAnswer("options", letter, True) for letter in ("A", "The", "B", "A")])
    assert (options.majority_baseline, options.random_baseline) == (0.5, pytest.approx(1 / 3))


def test_the_blank_image_control_uses_only_questions_with_images() -> None:
    scored_answers = [
        ScoredAnswer("general", "red", True, blank_image_correct=False, loss=1.0, blank_image_loss=3.0),
        ScoredAnswer("general", "blue", False, blank_image_correct=True, loss=2.0, blank_image_loss=2.0),
        # A question without a picture has no control and must not move it.
        ScoredAnswer("general", "42", True),
    ]
    general, _ = compute_category_scores(scored_answers)
    assert (general.n_with_images, general.with_image_accuracy, general.blank_image_accuracy) == (2, 0.5, 0.5)
    assert (general.loss, general.blank_image_loss) == (1.5, 2.5)
    assert general.accuracy == pytest.approx(2 / 3)


def test_the_standard_error_needs_two_questions_and_matches_its_formula() -> None:
    assert compute_standard_error(1, 1) is None
    assert compute_standard_error(5, 10) == pytest.approx(math.sqrt(0.25 / 9))
    assert compute_standard_error(10, 10) == 0.0


def test_no_answers_give_no_scores() -> None:
    assert compute_category_scores([]) == []
