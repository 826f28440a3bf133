"""Questions from held-out rows whose reference answer is short enough to compare, and a balanced selection."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from mvl_assets.common.digest import compute_digest
from mvl_assets.lake_queries.holdout import MAX_ANSWER_CHARS

# Defaults of the suite: questions of each category, and tokens of an answer.
QUESTIONS_PER_CATEGORY, DEFAULT_MAX_NEW_TOKENS = 8, 32

# Questions that a checkpoint's page in the UI shows with their images.
PREVIEW_COUNT = 4

# Longer answers are descriptions and derivations, which an exact match would always call wrong.
MAX_ANSWER_WORDS = 6

_MEDIA_MARKER = re.compile(r"<(?:image|video)>[ \t]*\n?")


@dataclass(frozen=True, slots=True)
class HeldOutQuestion:
    """One question with its reference answer.

    `text` has no image markers; the images go before it, in order. `question_id` is the digest of the whole
    question, so an edited row is a new question.
    """

    question_id: str
    sample_id: str
    source: str
    category: str
    image_ids: tuple[str, ...]
    text: str
    reference: str

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON; `from_dict` reads them."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> HeldOutQuestion:
        """Build a question from the values of `to_dict`."""
        return cls(**{**data, "image_ids": tuple(data["image_ids"])})


def build_question(row: Mapping[str, Any]) -> HeldOutQuestion | None:
    """Return the first exchange of a row as a question; None if its answer is empty or too long to compare.

    Later turns are left out: they refer to answers that the checkpoint did not give.

    Args:
        row: With sample_id, source, category, conversations [{from, value}] and image_ids.
    """
    turns = [turn for turn in row["conversations"] if turn["from"] != "system"]
    if len(turns) < 2 or turns[0]["from"] != "human" or turns[1]["from"] != "gpt":
        return None
    text = _MEDIA_MARKER.sub("", turns[0]["value"]).strip()
    reference = turns[1]["value"].strip()
    if not text or not reference or len(reference) > MAX_ANSWER_CHARS or len(reference.split()) > MAX_ANSWER_WORDS:
        return None
    image_ids = tuple(row["image_ids"] or ())
    return HeldOutQuestion(
        question_id=compute_digest("question", row["sample_id"], image_ids, text, reference),
        sample_id=row["sample_id"],
        source=row["source"],
        category=row["category"],
        image_ids=image_ids,
        text=text,
        reference=reference,
    )


def select_questions(rows: Iterable[Mapping[str, Any]], *, per_category: int) -> list[HeldOutQuestion]:
    """Return at most `per_category` questions of each category, ordered by category, then id.

    Those with the smallest ids are taken, so a selection of 10 is part of a selection of 100. Memory holds about
    twice as many at most.
    """
    selected: dict[str, dict[str, HeldOutQuestion]] = {}
    for row in rows:
        question = build_question(row)
        if question is None:
            continue
        category_questions = selected.setdefault(question.category, {})
        category_questions[question.question_id] = question
        if len(category_questions) > 2 * per_category:
            selected[question.category] = _select_smallest(category_questions, per_category)
    return [
        question
        for category in sorted(selected)
        for question in _select_smallest(selected[category], per_category).values()
    ]


def _select_smallest(questions_by_id: Mapping[str, HeldOutQuestion], limit: int) -> dict[str, HeldOutQuestion]:
    return {question_id: questions_by_id[question_id] for question_id in sorted(questions_by_id)[:limit]}


def compute_suite_hash(questions: Iterable[HeldOutQuestion], **settings: object) -> str:
    """Return a digest of the questions and settings; scores with the same digest are comparable."""
    return compute_digest("suite", [question.question_id for question in questions], settings)
