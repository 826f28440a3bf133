"""Comparison of a rewritten dialogue's answers with those of its source."""

from __future__ import annotations

from collections.abc import Sequence

from mvl_assets.answer_matching.matching import matches_reference
from mvl_assets.answer_matching.normalize import normalize_answer
from mvl_assets.model_stage.dialogue import QAPair, strip_markers


def matches_all_references(rewritten: Sequence[QAPair], references: Sequence[QAPair]) -> bool | None:
    """Return whether every comparable answer of a dialogue matches its original; None when none is comparable.

    A pair is comparable where the rewrite kept the question and the original has a short conclusion.
    """
    references_by_question = {_normalize_question(pair): pair for pair in references}
    matches = [
        matches_reference(pair.answer, reference_pair.answer, strip_markers(reference_pair.question))
        for pair in rewritten
        if (reference_pair := references_by_question.get(_normalize_question(pair))) is not None
    ]
    comparable = [is_match for is_match in matches if is_match is not None]
    return all(comparable) if comparable else None


def _normalize_question(pair: QAPair) -> str:
    return normalize_answer(strip_markers(pair.question))
