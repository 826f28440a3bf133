"""The held-out suite: questions, scores, and the table that keeps both."""

from __future__ import annotations

from pathlib import Path

import pytest

from mvl_assets.lake.lake import Lake
from mvl_training.evaluation.held_out import suite
from mvl_training.evaluation.held_out.local_worker import ModelAnswer
from mvl_training.evaluation.held_out.questions import HeldOutQuestion
from mvl_training.evaluation.held_out.suite import (
    CheckpointAnswers,
    NoHeldOutQuestionsError,
    publish_report,
    select_held_out_questions,
)
from mvl_training.orchestration.report import render_category_table, render_preview_table, render_summary_table
from mvl_training.runs.training_run import Checkpoint

# As the fixture `lake` fills it.
CATEGORIES, ROWS = ("general", "chart", "language"), 12
STAGES = ("alignment", "one_vision")


def _answer_correctly(question: HeldOutQuestion) -> ModelAnswer:
    return ModelAnswer(question.question_id, question.reference, "red" if question.image_ids else None, 0.5, 2.0)


def _answer_red(question: HeldOutQuestion) -> ModelAnswer:
    return ModelAnswer(question.question_id, "red", "red" if question.image_ids else None, 2.0, 2.0)


def _build_checkpoint_answers(questions: list[HeldOutQuestion], version: str = "v1") -> list[CheckpointAnswers]:
    first, last = (Checkpoint(stage, Path("/nowhere"), version, 512) for stage in STAGES)  # type: ignore[arg-type]
    return [
        CheckpointAnswers(first, "local", {q.question_id: _answer_red(q) for q in questions}),
        CheckpointAnswers(last, "server", {q.question_id: _answer_correctly(q) for q in questions}),
    ]


def test_questions_come_only_from_held_out_rows_of_the_given_categories(lake: Lake) -> None:
    every = select_held_out_questions(lake, CATEGORIES, 0.999999, per_category=100)
    assert len(every) == len(CATEGORIES) * ROWS
    some = select_held_out_questions(lake, ["chart"], 0.5, per_category=100)
    assert 0 < len(some) < ROWS
    assert {question.category for question in some} == {"chart"}
    assert set(some) <= set(every)
    assert select_held_out_questions(lake, CATEGORIES, 0.0, per_category=100) == []
    assert select_held_out_questions(lake, ["no_such_table"], 0.5, per_category=100) == []


def test_scores_include_baselines_and_the_blank_image_control(lake: Lake) -> None:
    questions = select_held_out_questions(lake, CATEGORIES, 0.999999, per_category=100)
    report = publish_report(lake, questions, _build_checkpoint_answers(questions), max_new_tokens=8, run_id="r1")
    always_red, correct = (report.scores[stage][-1] for stage in STAGES)
    assert (correct.accuracy, always_red.accuracy) == (1.0, 0.25)
    assert (always_red.majority_baseline, always_red.random_baseline) == (0.25, 0.25)
    assert (correct.with_image_accuracy, correct.blank_image_accuracy) == (1.0, 0.25)
    assert correct.n_with_images == 2 * ROWS
    rows = list(lake.get_table(suite.TABLE).iter_rows())
    assert len(rows) == 2 * 3 * ROWS
    rows_without_images = [row for row in rows if row["category"] == "language" and row["backend"] == "local"]
    assert rows_without_images and all(row["blank_image_correct"] is None for row in rows_without_images)


def test_publishing_the_same_answers_again_changes_neither_table_nor_data_version(lake: Lake) -> None:
    questions = select_held_out_questions(lake, CATEGORIES, 0.999999, per_category=5)
    first = publish_report(lake, questions, _build_checkpoint_answers(questions), max_new_tokens=8, run_id="r1")
    version = lake.get_table(suite.TABLE).version
    again = publish_report(lake, questions, _build_checkpoint_answers(questions), max_new_tokens=8, run_id="r2")
    assert again.data_version == first.data_version
    assert lake.get_table(suite.TABLE).version == version
    other = publish_report(lake, questions, _build_checkpoint_answers(questions, "v2"), max_new_tokens=8, run_id="r3")
    assert other.data_version != first.data_version


def test_questions_removed_from_the_suite_leave_the_table(lake: Lake) -> None:
    many = select_held_out_questions(lake, CATEGORIES, 0.999999, per_category=6)
    publish_report(lake, many, _build_checkpoint_answers(many), max_new_tokens=8, run_id="r1")
    few = select_held_out_questions(lake, CATEGORIES, 0.999999, per_category=2)
    publish_report(lake, few, _build_checkpoint_answers(few), max_new_tokens=8, run_id="r2")
    kept = {row["question_id"] for row in lake.get_table(suite.TABLE).iter_rows(["question_id"])}
    assert kept == {question.question_id for question in few}


def test_a_suite_without_questions_is_an_error_with_a_hint(lake: Lake) -> None:
    with pytest.raises(NoHeldOutQuestionsError, match="set `holdout_fraction` above 0"):
        publish_report(lake, [], [], max_new_tokens=8, run_id="r1")


def test_tables_list_every_checkpoint_and_category_and_the_preview_fits_into_an_event(lake: Lake) -> None:
    questions = select_held_out_questions(lake, CATEGORIES, 0.999999, per_category=100)
    report = publish_report(lake, questions, _build_checkpoint_answers(questions), max_new_tokens=8, run_id="r1")
    summary = render_summary_table(report)
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in summary.splitlines()]
    shown = {row[0]: dict(zip(rows[0][1:], row[1:], strict=True)) for row in rows[2:]}
    assert shown["correct"]["alignment"] == "9 of 36" and shown["accuracy"]["alignment"] == "25.0 % ± 7.3"
    assert shown["same, grey"]["alignment"] == shown["guessing"]["alignment"] == "25.0 %"
    assert shown["backend"]["one_vision"] == "server" and shown["accuracy"]["one_vision"] == "100.0 % ± 0.0"
    assert [line.split(" | ")[0] for line in render_category_table(report.scores).splitlines()[2:]] == [
        "| chart",
        "| general",
        "| language",
        "| all",
    ]
    preview = render_preview_table(
        lake, questions, {a.checkpoint.stage: a.answers for a in report.answers_of_checkpoints}
    )
    assert preview.count("data:image/jpeg;base64,") >= 2
    assert len(preview) < 60_000
    assert len({line.count(" | ") for line in preview.splitlines() if "base64" in line}) == 1


def test_markup_in_an_answer_cannot_break_the_preview_table(lake: Lake) -> None:
    (question, *_) = select_held_out_questions(lake, ["general"], 0.999999, per_category=1)
    hostile = ModelAnswer(question.question_id, "a | b\n\n# head <img src=x>", None, None, None)
    preview = render_preview_table(lake, [question], {"alignment": {question.question_id: hostile}})
    assert len(preview.splitlines()) == 3
    assert "a &#124; b &#35; head &#60;img src=x&#62;" in preview
