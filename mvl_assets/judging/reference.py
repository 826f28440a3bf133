"""The source's own answers: compared with those of a rewrite, and as a judge gets them."""

from __future__ import annotations

from collections.abc import Sequence

from mvl_assets.answer_matching.brevity import strip_brevity_request
from mvl_assets.answer_matching.matching import matches_reference
from mvl_assets.answer_matching.normalize import normalize_answer
from mvl_assets.model_stage.dialogue import QAPair, strip_markers

# A source may have hundreds of short answers about an image; this is about a thousand tokens.
MAX_REFERENCE_CHARS = 4000


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


def find_reference(pair: QAPair, references: Sequence[QAPair]) -> QAPair | None:
    """Return the source's pair whose question a rewritten pair has kept; None where it has a question of its own."""
    question = _normalize_question(pair)
    return next((reference for reference in references if _normalize_question(reference) == question), None)


def format_reference(rewritten: Sequence[QAPair], references: Sequence[QAPair]) -> str:
    """Return the source's questions and answers for a judge: those that the rewrite kept first, then the others.

    As many whole pairs as `MAX_REFERENCE_CHARS` allow; a single longer pair is cut.
    """
    kept_questions = {_normalize_question(pair) for pair in rewritten}
    ordered = sorted(references, key=lambda pair: _normalize_question(pair) not in kept_questions)
    lines: list[str] = []
    remaining_chars = MAX_REFERENCE_CHARS
    for pair in ordered:
        text = f"Source's question: {strip_markers(pair.question)}\nSource's answer: {strip_markers(pair.answer)}"
        if lines and len(text) > remaining_chars:
            break
        lines.append(text[:MAX_REFERENCE_CHARS])
        remaining_chars -= len(text)
    return "\n".join(lines)


def _normalize_question(pair: QAPair) -> str:
    return normalize_answer(strip_brevity_request(strip_markers(pair.question)))
