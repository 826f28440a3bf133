"""Short answers against references, as evaluation compares them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mvl_assets.answer_matching.matching import is_correct
from mvl_assets.answer_matching.normalize import normalize_answer


@pytest.mark.parametrize(
    ("answer", "reference"),
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
        (r"So it is \boxed{B}.", "(B) dog"),
        ("Answer：B", "B"),
        ("B. the big dog", "(B) dog"),
        ("5%", "5"),
        ("x>3", "X > 3."),
        ("`print`", "print"),
        ("red - blue", "red blue"),
        *((symbol, symbol) for symbol in "+-=<>%?∞→♥"),
    ],
)
def test_an_answer_in_another_form_is_correct(answer: str, reference: str) -> None:
    assert is_correct(answer, reference)


@pytest.mark.parametrize(
    ("answer", "reference"),
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
def test_a_different_or_hedging_answer_is_wrong(answer: str, reference: str) -> None:
    assert not is_correct(answer, reference)


@given(st.text(max_size=40))
def test_normalizing_twice_changes_nothing(text: str) -> None:
    once = normalize_answer(text)
    assert normalize_answer(once) == once
