"""Which questions are asked: held-out rows whose known answer is short enough to be compared.

Belongs here: turning rows that no mixture may take into questions, and choosing a stable, balanced number of them. Does
not: deciding what is held out (`mvl_assets.curation`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from mvl_assets.common.digest import digest_hex

# What a suite asks unless told otherwise: questions of a category, and tokens of an answer.
PER_CATEGORY, MAX_NEW_TOKENS = 8, 32

# How many of them a page shows with their pictures.
PREVIEWED = 4

# Longer answers are descriptions and derivations: an exact match would only ever say "wrong".
LONGEST_ANSWER_WORDS = 6
LONGEST_ANSWER = 60

_MARKER = re.compile(r"<(?:image|video)>[ \t]*\n?")


@dataclass(frozen=True, slots=True)
class Question:
    """One question with its known answer. `text` has no picture markers; pictures go before it, in order.

    `question_id` is the digest of everything that is asked, so an edited row is a new question.
    """

    question_id: str
    sample_id: str
    source: str
    category: str
    image_ids: tuple[str, ...]
    text: str
    expected: str

    def as_data(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_data(cls, data: Mapping[str, Any]) -> Question:
        return cls(**{**data, "image_ids": tuple(data["image_ids"])})


def question_of(row: Mapping[str, Any]) -> Question | None:
    """The first exchange of a row as a question; None when its answer is too long or too empty to compare.

    `row` has sample_id, source, category, conversations [{from, value}] and image_ids. Later turns are left out: they
    lean on answers that the checkpoint did not give.
    """
    turns = [turn for turn in row["conversations"] if turn["from"] != "system"]
    if len(turns) < 2 or turns[0]["from"] != "human" or turns[1]["from"] != "gpt":
        return None
    text = _MARKER.sub("", turns[0]["value"]).strip()
    expected = turns[1]["value"].strip()
    if not text or not expected or len(expected) > LONGEST_ANSWER or len(expected.split()) > LONGEST_ANSWER_WORDS:
        return None
    pictures = tuple(row["image_ids"] or ())
    return Question(
        question_id=digest_hex("question", row["sample_id"], pictures, text, expected),
        sample_id=row["sample_id"],
        source=row["source"],
        category=row["category"],
        image_ids=pictures,
        text=text,
        expected=expected,
    )


def choose(rows: Iterable[Mapping[str, Any]], *, per_category: int) -> list[Question]:
    """At most `per_category` questions of each category, those with the smallest ids: the choice of 10 is among the
    choice of 100. Ordered by category, then id; memory holds the chosen ones only."""
    chosen: dict[str, dict[str, Question]] = {}
    for row in rows:
        question = question_of(row)
        if question is None:
            continue
        group = chosen.setdefault(question.category, {})
        group[question.question_id] = question
        if len(group) > 2 * per_category:
            chosen[question.category] = _smallest(group, per_category)
    return [question for name in sorted(chosen) for question in _smallest(chosen[name], per_category).values()]


def _smallest(group: Mapping[str, Question], count: int) -> dict[str, Question]:
    return {key: group[key] for key in sorted(group)[:count]}


def suite_hash(questions: Iterable[Question], **settings: object) -> str:
    """What makes two score tables comparable: the questions, and the settings they were asked with."""
    return digest_hex("suite", [question.question_id for question in questions], settings)
