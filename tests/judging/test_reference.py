"""Rewritten dialogues against the answers of their source."""

from __future__ import annotations

from mvl_assets.judging.reference import MAX_REFERENCE_CHARS, format_reference, matches_all_references
from mvl_assets.model_stage.dialogue import QAPair


def test_only_answers_to_kept_questions_are_compared():
    original = [QAPair("<image>\nHow many?", "10"), QAPair("What colour?", "red")]
    assert matches_all_references([QAPair("<image>\nHow many?", "Answer: 10")], original) is True
    assert matches_all_references([QAPair("<image>\nHow many?", "Answer: 9")], original) is False
    assert (
        matches_all_references([QAPair("What colour?", "Answer: red"), QAPair("How many?", "Answer: 9")], original)
        is False
    )
    assert matches_all_references([QAPair("Why is it so?", "Answer: 10")], original) is None
    assert matches_all_references([], original) is None


def test_a_question_is_kept_also_without_its_request_for_a_short_answer():
    options = "What comes after spring?\nA. summer\nB. winter"
    original = [QAPair(f"<image>\n{options}\nAnswer with the letter of the choice.", "A")]
    assert matches_all_references([QAPair(options, "The arrow leads there.\nAnswer: A. summer")], original) is True
    assert matches_all_references([QAPair(options, "The arrow leads there.\nAnswer: B. winter")], original) is False


def test_a_judge_gets_the_answers_to_kept_questions_first_and_no_more_than_fit():
    references = [QAPair(f"<image>\nQuestion {n}?", f"answer {n} " + "x" * 100) for n in range(100)]
    text = format_reference([QAPair("Question 90?", "reasons")], references)
    assert text.startswith("Source's question: Question 90?\nSource's answer: answer 90")
    assert "Question 0?" in text and "<image>" not in text
    assert len(text) <= MAX_REFERENCE_CHARS + 100
    assert len(format_reference([], [QAPair("Describe it.", "y" * 10_000)])) == MAX_REFERENCE_CHARS
