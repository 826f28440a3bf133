"""Rewritten dialogues against the answers of their source."""

from __future__ import annotations

from mvl_assets.judging.answer_match import matches_all_references
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
