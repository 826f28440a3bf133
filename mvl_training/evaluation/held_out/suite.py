"""The suite `held_out`: its questions, and its scores in the table `evaluation/held_out`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from mvl_assets.answer_matching.matching import is_correct
from mvl_assets.common.digest import compute_digest
from mvl_assets.errors import MvlError
from mvl_assets.lake.lake import Lake
from mvl_assets.lake_queries.holdout import iter_held_out_rows
from mvl_training.evaluation.held_out.local_worker import ModelAnswer
from mvl_training.evaluation.held_out.questions import HeldOutQuestion, compute_suite_hash, select_questions
from mvl_training.evaluation.scoring import CategoryScore, ScoredAnswer, compute_category_scores
from mvl_training.runs.training_run import Checkpoint, build_kept_checkpoint
from mvl_training.trainer.run_files import parse_step

SUITE = "held_out"
TABLE = f"evaluation/{SUITE}"

# Increased when the same answers may be scored differently, so that scores of two versions are not compared.
SCORING_VERSION = 4


class NoHeldOutQuestionsError(MvlError):
    """No held-out row has a short reference answer."""


@dataclass(frozen=True, slots=True)
class CheckpointAnswers:
    """One checkpoint with its answers by question id. `backend` is `local` or `server`."""

    checkpoint: Checkpoint
    backend: str
    answers: Mapping[str, ModelAnswer]


@dataclass(frozen=True, slots=True)
class HeldOutReport:
    """Result of the suite. `scores` are by name of the checkpoint; `data_version` is the digest of the scores."""

    settings_hash: str
    questions: Sequence[HeldOutQuestion]
    answers_of_checkpoints: Sequence[CheckpointAnswers]
    scores: Mapping[str, Sequence[CategoryScore]]
    data_version: str


def select_held_out_questions(
    lake: Lake, categories: Sequence[str], holdout_fraction: float, *, per_category: int
) -> list[HeldOutQuestion]:
    """Return up to `per_category` questions of each category, in a stable order.

    Rows with videos are left out.

    Args:
        lake: The lake.
        categories: The categories.
        holdout_fraction: The profile's share of image groups that are held out, from 0 to 1.
        per_category: Largest number of questions of a category.
    """
    return select_questions(_iter_held_out_rows(lake, categories, holdout_fraction), per_category=per_category)


def _iter_held_out_rows(lake: Lake, categories: Sequence[str], holdout_fraction: float) -> Iterator[dict[str, Any]]:
    for category in categories:
        sources: set[str] = set()
        for batch in lake.get_table(f"category/{category}").scan(["source"], batch_size=8192):
            sources.update(batch.column(0).unique().to_pylist())
        for row in iter_held_out_rows(lake, category, sorted(sources), holdout_fraction):
            if not row["video"]:
                yield row


def compute_settings_hash(questions: Sequence[HeldOutQuestion], *, max_new_tokens: int) -> str:
    """Return the suite hash of these questions with the current scoring."""
    return compute_suite_hash(questions, max_new_tokens=max_new_tokens, scoring=SCORING_VERSION)


def require_questions(questions: Sequence[HeldOutQuestion]) -> None:
    """Raise `NoHeldOutQuestionsError` if `questions` is empty."""
    if not questions:
        raise NoHeldOutQuestionsError(
            "no held-out row has a short answer, so there is nothing to ask",
            hint="set `holdout_fraction` above 0 in the profile, or ingest a source with short answers",
        )


def publish_report(
    lake: Lake,
    questions: Sequence[HeldOutQuestion],
    answers_of_checkpoints: Sequence[CheckpointAnswers],
    *,
    max_new_tokens: int,
    run_id: str,
) -> HeldOutReport:
    """Score the answers and publish them as `evaluation/held_out`, one commit per checkpoint.

    Args:
        lake: The lake.
        questions: What all checkpoints were asked.
        answers_of_checkpoints: Answers to all questions, by checkpoint.
        max_new_tokens: Longest answer, in tokens; part of the settings hash.
        run_id: Stored with every row.

    Raises:
        NoHeldOutQuestionsError: `questions` is empty.
        KeyError: A checkpoint has no answer to a question.
    """
    require_questions(questions)
    settings_digest = compute_settings_hash(questions, max_new_tokens=max_new_tokens)
    scores: dict[str, Sequence[CategoryScore]] = {}
    for checkpoint_answers in answers_of_checkpoints:
        rows = [_build_row(question, checkpoint_answers, settings_digest, run_id) for question in questions]
        schema = lake.get_table(TABLE).spec.columns
        lake.get_table(TABLE).publish(
            [pa.Table.from_pylist(rows, schema=schema)], partition_key=checkpoint_answers.checkpoint.name
        )
        scores[checkpoint_answers.checkpoint.name] = compute_category_scores([_to_scored_answer(row) for row in rows])
    return HeldOutReport(
        settings_hash=settings_digest,
        questions=questions,
        answers_of_checkpoints=answers_of_checkpoints,
        scores=scores,
        data_version=_compute_data_version(settings_digest, answers_of_checkpoints, scores),
    )


def remove_earlier_scores(lake: Lake, checkpoint: Checkpoint) -> None:
    """Remove the scores of checkpoints that were kept in an earlier training of a finished stage.

    Their names say stage and step only, so they would pass for checkpoints of this training.
    """
    table = lake.get_table(TABLE)
    for name in table.list_partitions():
        if name.startswith(f"{checkpoint.stage}/"):
            kept = build_kept_checkpoint(checkpoint, parse_step(Path(name)))
            rows = table.iter_rows(["checkpoint_version"], partition_key=name)
            if any(row["checkpoint_version"] != kept.version for row in rows):
                table.publish([], partition_key=name)


def _build_row(
    question: HeldOutQuestion, checkpoint_answers: CheckpointAnswers, settings_digest: str, run_id: str
) -> dict[str, Any]:
    model_answer = checkpoint_answers.answers[question.question_id]
    answer, blank_image_answer = model_answer.answer or "", model_answer.blank_image_answer
    return {
        "result_id": compute_digest("result", SUITE, checkpoint_answers.checkpoint.name, question.question_id),
        "checkpoint": checkpoint_answers.checkpoint.name,
        "checkpoint_version": checkpoint_answers.checkpoint.version,
        "suite": SUITE,
        "settings_hash": settings_digest,
        "question_id": question.question_id,
        "sample_id": question.sample_id,
        "source": question.source,
        "category": question.category,
        "question": question.text,
        "reference": question.reference,
        "answer": answer,
        "correct": is_correct(answer, question.reference),
        "blank_image_answer": blank_image_answer,
        "blank_image_correct": None
        if blank_image_answer is None
        else is_correct(blank_image_answer, question.reference),
        "loss": model_answer.loss,
        "blank_image_loss": model_answer.blank_image_loss,
        "backend": checkpoint_answers.backend,
        "run_id": run_id,
    }


def _to_scored_answer(row: Mapping[str, Any]) -> ScoredAnswer:
    return ScoredAnswer(
        category=row["category"],
        reference=row["reference"],
        correct=row["correct"],
        blank_image_correct=row["blank_image_correct"],
        loss=row["loss"],
        blank_image_loss=row["blank_image_loss"],
    )


def _compute_data_version(
    settings_digest: str,
    answers_of_checkpoints: Sequence[CheckpointAnswers],
    scores: Mapping[str, Sequence[CategoryScore]],
) -> str:
    """Digest the scores; numbers are rounded, because the last bits of a sum over threads are not a new result."""
    rounded = {
        stage: [
            {
                name: round(value, 4) if isinstance(value, float) else value
                for name, value in asdict(category_score).items()
            }
            for category_score in stage_scores
        ]
        for stage, stage_scores in scores.items()
    }
    return compute_digest(
        "scores",
        settings_digest,
        [checkpoint_answers.checkpoint.version for checkpoint_answers in answers_of_checkpoints],
        rounded,
    )
