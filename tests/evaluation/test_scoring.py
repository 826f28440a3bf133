"""What counts as right, and the numbers a score is read beside."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mvl_training.evaluation.scoring import (
    ScoredAnswer,
    compute_category_scores,
    compute_standard_error,
    is_correct,
    normalize_answer,
)


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("Red", "red."),
        ("  The  red circle ", "red circle"),
        ("1,200", "1200.0"),
        ("$5.00", "5"),
        ("-3", "-3.0"),
        ("Half the bars are taller, so the answer is 7.", "7"),
        ("We add 3 and 4.\nAnswer: 7", "7"),
        ("First I thought the answer is 6. But no: the answer is 7", "7"),
        ("B", "(B) dog"),
        ("(b) dog", "B. dog"),
        ("dog", "(B) dog"),
        ("A", "A"),
        ("a", "(A) dog"),
        ("The answer is A", "A"),
        ("The answer is (A).", "A"),
        ("(B)", "B"),
        ("B.", "B"),
        ("B. dog", "B"),
        ("b) dog", "B"),
        ("**B**", "B"),
        ("The answer is B.", "B"),
        ("the", "The"),
        ("\u22125", "-5"),
        ("E. coli", "e. coli"),
        ("B. the big dog", "(B) dog"),
        ("5%", "5"),
        ("x>3", "X > 3."),
        ("`print`", "print"),
        ("red - blue", "red blue"),
        *((symbol, symbol) for symbol in "+-=<>%?∞→♥"),
    ],
)
def test_an_answer_that_says_the_same_in_other_letters_is_correct(answer: str, expected: str) -> None:
    assert is_correct(answer, expected)


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("", "red"),
        ("the", "a"),
        ("3", "-3"),
        ("0.5", "5"),
        ("red or blue", "red"),
        ("(C) dog", "(B) dog"),
        ("the answer is 6", "7"),
        ("there are 7 of them", "7"),
        ("B", "A"),
        ("(C) dog", "B"),
        ("a dog", "A"),
        ("the", "A"),
        ("The answer is C.", "A"),
        ("O-", "O+"),
        ("C#", "C++"),
        ("\u22125", "5"),
        ("√2", "2"),
        ("2²", "22"),
        ("<5", ">5"),
        ("x > 3", "x < 3"),
        ("5%", "$5"),
        ("E. faecalis", "E. coli"),
        ("A. Lincoln", "A. Johnson"),
    ],
)
def test_an_answer_that_says_something_else_or_hedges_is_wrong(answer: str, expected: str) -> None:
    assert not is_correct(answer, expected)


@given(st.text(max_size=40))
def test_normalising_twice_changes_nothing_more(text: str) -> None:
    once = normalize_answer(text)
    assert normalize_answer(once) == once


def test_chance_is_computed_per_category_and_the_total_weighs_categories_by_their_questions() -> None:
    outcomes = [
        ScoredAnswer("chart", "7", True),
        ScoredAnswer("chart", "7.0", False),
        ScoredAnswer("chart", "9", False),
        ScoredAnswer("chart", "8", False),
        ScoredAnswer("ocr", "stop", True),
        ScoredAnswer("ocr", "go", True),
    ]
    chart, ocr, total = compute_category_scores(outcomes)
    assert (chart.category, ocr.category, total.category) == ("chart", "ocr", "all")
    assert chart.majority_baseline == pytest.approx(2 / 4)
    assert chart.random_baseline == pytest.approx(1 / 3)
    assert (ocr.majority_baseline, ocr.random_baseline) == (0.5, 0.5)
    assert total.majority_baseline == pytest.approx((4 * 0.5 + 2 * 0.5) / 6)
    assert total.random_baseline == pytest.approx((4 / 3 + 2 / 2) / 6)
    assert total.accuracy == 0.5


def test_the_letter_a_is_an_answer_of_its_own_in_chance() -> None:
    options, _ = compute_category_scores([ScoredAnswer("options", letter, True) for letter in ("A", "The", "B", "A")])
    assert (options.majority_baseline, options.random_baseline) == (0.5, pytest.approx(1 / 3))


def test_the_blank_control_is_compared_over_the_same_questions_only() -> None:
    outcomes = [
        ScoredAnswer("general", "red", True, blank_image_correct=False, loss=1.0, blank_image_loss=3.0),
        ScoredAnswer("general", "blue", False, blank_image_correct=True, loss=2.0, blank_image_loss=2.0),
        # A question without a picture has no control and must not move it.
        ScoredAnswer("general", "42", True),
    ]
    general, _ = compute_category_scores(outcomes)
    assert (general.n_with_images, general.with_image_accuracy, general.blank_image_accuracy) == (2, 0.5, 0.5)
    assert (general.loss, general.blank_image_loss) == (1.5, 2.5)
    assert general.accuracy == pytest.approx(2 / 3)


def test_the_standard_error_needs_two_questions_and_matches_the_textbook() -> None:
    assert compute_standard_error(1, 1) is None
    assert compute_standard_error(5, 10) == pytest.approx(math.sqrt(0.25 / 9))
    assert compute_standard_error(10, 10) == 0.0


def test_no_outcomes_give_no_scores() -> None:
    assert compute_category_scores([]) == []
