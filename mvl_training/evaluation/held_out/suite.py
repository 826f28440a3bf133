"""The suite `held_out`: questions that no mixture may take, asked of every stage's checkpoint.

Belongs here: which questions, bringing answers together, scoring them, the table `evaluation/held_out`. Does not: how a
checkpoint is asked (`local`, `served`), how scores are shown (`mvl_training.orchestration.report`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import pyarrow as pa

from mvl_assets.common.digest import digest_hex
from mvl_assets.errors import MvlError
from mvl_assets.lake.lake import Lake
from mvl_assets.lake_queries.holdout import held_out_rows
from mvl_training.evaluation.held_out.local_worker import Asked
from mvl_training.evaluation.held_out.questions import Question, choose, suite_hash
from mvl_training.evaluation.scoring import Outcome, Score, is_correct, score
from mvl_training.runs.stage_run import Checkpoint

SUITE = "held_out"
TABLE = f"evaluation/{SUITE}"

# Raised when the same answers may be scored differently, so that scores of two versions are not compared.
SCORING_VERSION = 3


class NothingHeldOut(MvlError):
    """No held-out row has a short answer, so there is nothing to ask."""


@dataclass(frozen=True, slots=True)
class Asking:
    """One checkpoint with what it said. `via` is "runner" or "server"."""

    checkpoint: Checkpoint
    via: str
    answers: Mapping[str, Asked]


@dataclass(frozen=True, slots=True)
class Report:
    """What the suite found. `scores` by stage, in the order asked; `data_version` is the digest of the scores."""

    settings_hash: str
    questions: Sequence[Question]
    askings: Sequence[Asking]
    scores: Mapping[str, Sequence[Score]]
    data_version: str


def held_out_questions(lake: Lake, categories: Sequence[str], share: float, *, per_category: int) -> list[Question]:
    """Up to `per_category` questions of each category, in a stable order.

    Videos are left out: neither the runner nor a chat request shows frames as training does.
    """
    return choose(_rows(lake, categories, share), per_category=per_category)


def _rows(lake: Lake, categories: Sequence[str], share: float) -> Iterator[dict[str, Any]]:
    for category in categories:
        sources: set[str] = set()
        for batch in lake.table(f"category/{category}").scan(["source"], batch_size=8192):
            sources.update(batch.column(0).unique().to_pylist())
        for row in held_out_rows(lake, category, sorted(sources), share):
            if not row["video"]:
                yield row


def settings_hash(questions: Sequence[Question], *, max_new_tokens: int) -> str:
    return suite_hash(questions, max_new_tokens=max_new_tokens, scoring=SCORING_VERSION)


def require(questions: Sequence[Question]) -> None:
    """Raises `NothingHeldOut` when there are no questions."""
    if not questions:
        raise NothingHeldOut(
            "no held-out row has a short answer, so there is nothing to ask",
            hint="set `holdout` above 0 in the profile, or ingest a source with short answers",
        )


def publish(
    lake: Lake, questions: Sequence[Question], askings: Sequence[Asking], *, max_new_tokens: int, run_id: str
) -> Report:
    """Scores what was said and makes it the content of `evaluation/held_out`, one commit per checkpoint.

    Raises `NothingHeldOut` without questions, `KeyError` when a checkpoint was not asked one of them.
    """
    require(questions)
    hashed = settings_hash(questions, max_new_tokens=max_new_tokens)
    scores: dict[str, Sequence[Score]] = {}
    for asking in askings:
        rows = [_row(question, asking, hashed, run_id) for question in questions]
        schema = lake.table(TABLE).spec.columns
        lake.table(TABLE).publish([pa.Table.from_pylist(rows, schema=schema)], where=asking.checkpoint.stage)
        scores[asking.checkpoint.stage] = score([_outcome(row) for row in rows])
    return Report(
        settings_hash=hashed,
        questions=questions,
        askings=askings,
        scores=scores,
        data_version=_version(hashed, askings, scores),
    )


def _row(question: Question, asking: Asking, settings: str, run_id: str) -> dict[str, Any]:
    said = asking.answers[question.question_id]
    answer, blank = said.answer or "", said.blank_answer
    return {
        "result_id": digest_hex("result", SUITE, asking.checkpoint.stage, question.question_id),
        "checkpoint": asking.checkpoint.stage,
        "checkpoint_version": asking.checkpoint.version,
        "suite": SUITE,
        "settings_hash": settings,
        "question_id": question.question_id,
        "source": question.source,
        "category": question.category,
        "question": question.text,
        "expected": question.expected,
        "answer": answer,
        "correct": is_correct(answer, question.expected),
        "blank_answer": blank,
        "blank_correct": None if blank is None else is_correct(blank, question.expected),
        "loss": said.loss,
        "blank_loss": said.blank_loss,
        "via": asking.via,
        "run_id": run_id,
    }


def _outcome(row: Mapping[str, Any]) -> Outcome:
    return Outcome(
        category=row["category"],
        expected=row["expected"],
        correct=row["correct"],
        blank_correct=row["blank_correct"],
        loss=row["loss"],
        blank_loss=row["blank_loss"],
    )


def _version(settings: str, askings: Sequence[Asking], scores: Mapping[str, Sequence[Score]]) -> str:
    """Losses are rounded: the last bits of a sum over threads are not a new result."""
    rounded = {
        stage: [
            {name: round(value, 4) if isinstance(value, float) else value for name, value in asdict(one).items()}
            for one in listed
        ]
        for stage, listed in scores.items()
    }
    return digest_hex("scores", settings, [asking.checkpoint.version for asking in askings], rounded)
