"""Reasoned answers against references, as judging compares them; options and numbers in them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mvl_assets.answer_matching.matching import matches_reference
from mvl_assets.answer_matching.numbers import parse_numbers
from mvl_assets.answer_matching.options import match_option, parse_options

LETTERED = "Is the function linear?\n(A) linear\n(B) nonlinear"


@pytest.mark.parametrize(
    ("answer", "reference", "is_match"),
    [
        ("We add.\nAnswer: 10", "10", True),
        ("We add.\nAnswer: 10 pounds", "10", True),
        ("We add.\nAnswer: 11", "10", False),
        ("We add.\n**Answer:** 10.", "10", True),
        ("The final answer is: 10", "10 pounds", True),
        ("First 7, then 3.\nThe total is 3 + 7 = 10.", "10", True),
        ("Answer: $1,234.00", "1234", True),
        ("Answer: 1.234", "1,234", False),
        ("Answer: 12%", "12", True),
        ("Answer: 12%", "0.12", True),
        ("Answer: 12%", "0.13", False),
        ("Answer: 0.5", r"\frac{1}{2}", True),
        (r"So it is \boxed{\frac{1}{2}}.", "0.5", True),
        (r"So it is $\boxed{x = 5}$", "5", True),
        ("Answer: 2 3/4", "2.75", True),
        ("Answer: 3.14", "3.14159", True),
        ("Answer: 3.2", "3.14159", False),
        ("Answer: 10.4", "10", False),
        ("Answer: -5", "5", False),
        ("Answer: −5", "-5", True),
        ("Answer: 3 million", "3,000,000", True),
        ("Answer: There are two.", "2", True),
        ("Answer: 1, 2 and 3", "1, 2, 3", True),
        ("Answer: 1, 3 and 2", "1, 2, 3", False),
        ("Answer: 8:30 P.M.", "8:30 A.M.", False),
        ("It starts at 8:30 A.M.", "8:30 A.M.", True),
        ("Answer: 5 cm", "5 m", False),
        ("Answer: 50 mm", "5 cm", True),
        ("Answer: 2 hours", "120 min", True),
        ("Answer: 5 m²", "5 cm²", True),
        ("Answer: 5 m", "5", True),
        ("Answer: 10^3", "1000", True),
        (r"Answer: 3 \times 10^{-2}", "0.03", True),
        ("Answer: 2 x 10 = 20", "20", True),
        ("Answer: Twenty one apples", "21", True),
        (r"Answer: $90^\circ$", "90°", True),
        (r"Answer: $25\pi$ cm²", r"25\pi", True),
        ("Answer: red, blue and green", "red, blue, green", True),
        ("Answer: blue, red", "red, blue", False),
        ("答案：B", "B", True),
        ("答案是 12元", "12", True),
        ("Answer: Yes, it is.", "yes", True),
        ("Answer: No.", "Yes", False),
        ("Answer: the Red ball", "red ball", True),
        ("Answer: not linear", "linear", False),
        ("Answer: nonlinear", "linear", False),
        ("I cannot tell.", "10", False),
        ("", "10", False),
        ("Answer: \\sqrt{3}", "3", False),
        (r"\boxed{3\sqrt{2}}", r"\sqrt{2}", False),
        (r"\boxed{x=2 \text{ or } x=3}", "x = 2 or x = 3", True),
        ("Answer: 3", r"\sqrt{3}", False),
        (r"Answer: 5\pi", "5", False),
        ("Answer: 5x", "5y", False),
        (r"Answer: \frac{x}{2}", r"\frac{y}{2}", False),
        ("Answer: x > 5", "x < 5", False),
        (r"Answer: \sin 30", r"\cos 30", False),
        ("Answer: 5 m", "5 s", False),
        ("Answer: 1, 2, 3", "3", False),
        ("Answer: not 5", "5", False),
        (r"Answer: \text{about } 5", "5", True),
        ("Answer：B", "B", True),
        ("Answer: either 3 or 5", "5", False),
        ("Answer: 3 or 5 apples", "3", False),
        ("Answer: 5 or 5.0", "5", True),
        ("Answer: red or blue", "blue", False),
        ("Answer: red or blue", "red or blue", True),
        ("Answer: he is not wearing a hat", "hat", False),
        ("Answer: it isn't a big hat", "hat", False),
        ("Answer: not red but blue", "blue", True),
        ("Answer: 10", "Count them all.\nAnswer: 10", True),
        (
            "Answer: a cat on a sofa",
            "A cat lies on a red sofa in a bright room with two doors and a lamp.",
            None,
        ),
        ("Answer: 10", "", None),
    ],
)
def test_an_answer_matches_its_reference_in_any_notation(answer: str, reference: str, is_match: bool | None):
    assert matches_reference(answer, reference) is is_match


@pytest.mark.parametrize(
    ("answer", "reference", "is_match"),
    [
        ("Answer: B", "nonlinear", True),
        ("Answer: (B) nonlinear", "B", True),
        ("Answer: (A)", "B", False),
        ("The rate changes.\nThe function is nonlinear.", "nonlinear", True),
        ("The function is linear.", "(B) nonlinear", False),
        ("Answer: C", "B", False),
    ],
)
def test_an_option_matches_by_letter_or_by_text(answer: str, reference: str, is_match: bool):
    assert matches_reference(answer, reference, LETTERED) is is_match


@pytest.mark.parametrize(
    "question",
    [
        "Pick one.\nA. red\nB. dark red\nC. blue",
        "Pick one. (A) red (B) dark red (C) blue",
        "Pick: A: red, B: dark red, C: blue",
    ],
)
def test_options_are_parsed_in_their_usual_forms(question: str):
    options = parse_options(question)
    assert options == {"A": "red", "B": "dark red", "C": "blue"}
    assert match_option("It is dark red.", options) == "B"
    assert match_option("red or blue", options) is None


def test_a_long_run_of_separators_is_matched_without_backtracking():
    assert matches_reference(f"Answer: 1, 2{',' * 2000}x", "3") is False


@given(st.integers(-(10**9), 10**9), st.sampled_from(["{:,}", "{}", "${:,}", "{} km", "about {:,} people"]))
def test_a_whole_number_is_parsed_in_every_notation(value: int, form: str):
    text = form.format(abs(value))
    assert [n.value for n in parse_numbers(text)] == [abs(value)]
    assert matches_reference(f"Answer: {text}", str(abs(value))) is True
    assert matches_reference(f"Answer: {text}", str(abs(value) + 1)) is False


@given(st.text(), st.text(max_size=60), st.text())
def test_no_text_makes_the_comparison_fail(answer: str, reference: str, question: str):
    assert matches_reference(answer, reference, question) in (True, False, None)
    parse_numbers(answer)
