"""Held-out questions, what checkpoints said to them, and the table that keeps both."""

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
from mvl_training.runs.stage_run import Checkpoint

# As the fixture `lake` fills it.
CATEGORIES, ROWS = ("general", "chart", "language"), 12
STAGES = ("alignment", "one_vision")


def _knowing(question: HeldOutQuestion) -> ModelAnswer:
    return ModelAnswer(question.question_id, question.reference, "red" if question.image_ids else None, 0.5, 2.0)


def _blind(question: HeldOutQuestion) -> ModelAnswer:
    return ModelAnswer(question.question_id, "red", "red" if question.image_ids else None, 2.0, 2.0)


def _askings(questions: list[HeldOutQuestion], version: str = "v1") -> list[CheckpointAnswers]:
    first, last = (Checkpoint(stage, Path("/nowhere"), version, 512) for stage in STAGES)  # type: ignore[arg-type]
    return [
        CheckpointAnswers(first, "local", {q.question_id: _blind(q) for q in questions}),
        CheckpointAnswers(last, "server", {q.question_id: _knowing(q) for q in questions}),
    ]


def test_questions_come_from_held_out_rows_of_the_asked_categories_only(lake: Lake) -> None:
    every = select_held_out_questions(lake, CATEGORIES, 0.999999, per_category=100)
    assert len(every) == len(CATEGORIES) * ROWS
    some = select_held_out_questions(lake, ["chart"], 0.5, per_category=100)
    assert 0 < len(some) < ROWS
    assert {question.category for question in some} == {"chart"}
    assert set(some) <= set(every)
    assert select_held_out_questions(lake, CATEGORIES, 0.0, per_category=100) == []
    assert select_held_out_questions(lake, ["no_such_table"], 0.5, per_category=100) == []


def test_scores_stand_beside_chance_and_the_blank_control(lake: Lake) -> None:
    questions = select_held_out_questions(lake, CATEGORIES, 0.999999, per_category=100)
    report = publish_report(lake, questions, _askings(questions), max_new_tokens=8, run_id="r1")
    blind, knowing = (report.scores[stage][-1] for stage in STAGES)
    assert (knowing.accuracy, blind.accuracy) == (1.0, 0.25)
    assert (blind.majority_baseline, blind.random_baseline) == (0.25, 0.25)
    assert (knowing.with_image_accuracy, knowing.blank_image_accuracy) == (1.0, 0.25)
    assert knowing.n_with_images == 2 * ROWS
    rows = list(lake.get_table(suite.TABLE).iter_rows())
    assert len(rows) == 2 * 3 * ROWS
    pictureless = [row for row in rows if row["category"] == "language" and row["backend"] == "local"]
    assert pictureless and all(row["blank_image_correct"] is None for row in pictureless)


def test_asking_the_same_again_changes_neither_the_table_nor_the_data_version(lake: Lake) -> None:
    questions = select_held_out_questions(lake, CATEGORIES, 0.999999, per_category=5)
    first = publish_report(lake, questions, _askings(questions), max_new_tokens=8, run_id="r1")
    version = lake.get_table(suite.TABLE).version
    again = publish_report(lake, questions, _askings(questions), max_new_tokens=8, run_id="r2")
    assert again.data_version == first.data_version
    assert lake.get_table(suite.TABLE).version == version
    other = publish_report(lake, questions, _askings(questions, "v2"), max_new_tokens=8, run_id="r3")
    assert other.data_version != first.data_version


def test_questions_that_left_the_suite_leave_the_table(lake: Lake) -> None:
    many = select_held_out_questions(lake, CATEGORIES, 0.999999, per_category=6)
    publish_report(lake, many, _askings(many), max_new_tokens=8, run_id="r1")
    few = select_held_out_questions(lake, CATEGORIES, 0.999999, per_category=2)
    publish_report(lake, few, _askings(few), max_new_tokens=8, run_id="r2")
    kept = {row["question_id"] for row in lake.get_table(suite.TABLE).iter_rows(["question_id"])}
    assert kept == {question.question_id for question in few}


def test_without_held_out_rows_the_suite_says_what_to_do(lake: Lake) -> None:
    with pytest.raises(NoHeldOutQuestionsError, match="set `holdout_fraction` above 0"):
        publish_report(lake, [], [], max_new_tokens=8, run_id="r1")


def test_the_tables_show_every_checkpoint_and_category_and_the_preview_fits_into_an_event(lake: Lake) -> None:
    questions = select_held_out_questions(lake, CATEGORIES, 0.999999, per_category=100)
    report = publish_report(lake, questions, _askings(questions), max_new_tokens=8, run_id="r1")
    summary = render_summary_table(report)
    assert "| alignment | local | 9 of 36 | 25.0 % ± 7.3 | 25.0 % | 25.0 % | 25.0 % | 25.0 % |" in summary
    assert "| one_vision | server | 36 of 36 | 100.0 % ± 0.0 |" in summary
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


def test_an_answer_cannot_break_the_table_it_is_shown_in(lake: Lake) -> None:
    (question, *_) = select_held_out_questions(lake, ["general"], 0.999999, per_category=1)
    hostile = ModelAnswer(question.question_id, "a | b\n\n# head <img src=x>", None, None, None)
    preview = render_preview_table(lake, [question], {"alignment": {question.question_id: hostile}})
    assert len(preview.splitlines()) == 3
    assert "a &#124; b &#35; head &#60;img src=x&#62;" in preview
