"""Held-out questions, what checkpoints said to them, and the table that keeps both."""

from __future__ import annotations

from pathlib import Path

import pytest

from mvl_assets.lake.lake import Lake
from mvl_training.evaluation.held_out import suite
from mvl_training.evaluation.held_out.local_worker import Asked
from mvl_training.evaluation.held_out.questions import Question
from mvl_training.evaluation.held_out.suite import Asking, NothingHeldOut, held_out_questions, publish
from mvl_training.orchestration.report import category_table, preview_table, summary_table
from mvl_training.runs.stage_run import Checkpoint

# As the fixture `lake` fills it.
CATEGORIES, ROWS = ("general", "chart", "language"), 12
STAGES = ("alignment", "one_vision")


def _knowing(question: Question) -> Asked:
    return Asked(question.question_id, question.expected, "red" if question.image_ids else None, 0.5, 2.0)


def _blind(question: Question) -> Asked:
    return Asked(question.question_id, "red", "red" if question.image_ids else None, 2.0, 2.0)


def _askings(questions: list[Question], version: str = "v1") -> list[Asking]:
    first, last = (Checkpoint(stage, Path("/nowhere"), version, 512) for stage in STAGES)  # type: ignore[arg-type]
    return [
        Asking(first, "runner", {q.question_id: _blind(q) for q in questions}),
        Asking(last, "server", {q.question_id: _knowing(q) for q in questions}),
    ]


def test_questions_come_from_held_out_rows_of_the_asked_categories_only(lake: Lake) -> None:
    every = held_out_questions(lake, CATEGORIES, 0.999999, per_category=100)
    assert len(every) == len(CATEGORIES) * ROWS
    some = held_out_questions(lake, ["chart"], 0.5, per_category=100)
    assert 0 < len(some) < ROWS
    assert {question.category for question in some} == {"chart"}
    assert set(some) <= set(every)
    assert held_out_questions(lake, CATEGORIES, 0.0, per_category=100) == []
    assert held_out_questions(lake, ["no_such_table"], 0.5, per_category=100) == []


def test_scores_stand_beside_chance_and_the_blank_control(lake: Lake) -> None:
    questions = held_out_questions(lake, CATEGORIES, 0.999999, per_category=100)
    report = publish(lake, questions, _askings(questions), max_new_tokens=8, run_id="r1")
    blind, knowing = (report.scores[stage][-1] for stage in STAGES)
    assert (knowing.accuracy, blind.accuracy) == (1.0, 0.25)
    assert (blind.majority, blind.uniform) == (0.25, 0.25)
    assert (knowing.sighted, knowing.blank) == (1.0, 0.25)
    assert knowing.with_pictures == 2 * ROWS
    rows = list(lake.table(suite.TABLE).rows())
    assert len(rows) == 2 * 3 * ROWS
    pictureless = [row for row in rows if row["category"] == "language" and row["via"] == "runner"]
    assert pictureless and all(row["blank_correct"] is None for row in pictureless)


def test_asking_the_same_again_changes_neither_the_table_nor_the_data_version(lake: Lake) -> None:
    questions = held_out_questions(lake, CATEGORIES, 0.999999, per_category=5)
    first = publish(lake, questions, _askings(questions), max_new_tokens=8, run_id="r1")
    version = lake.table(suite.TABLE).version
    again = publish(lake, questions, _askings(questions), max_new_tokens=8, run_id="r2")
    assert again.data_version == first.data_version
    assert lake.table(suite.TABLE).version == version
    other = publish(lake, questions, _askings(questions, "v2"), max_new_tokens=8, run_id="r3")
    assert other.data_version != first.data_version


def test_questions_that_left_the_suite_leave_the_table(lake: Lake) -> None:
    many = held_out_questions(lake, CATEGORIES, 0.999999, per_category=6)
    publish(lake, many, _askings(many), max_new_tokens=8, run_id="r1")
    few = held_out_questions(lake, CATEGORIES, 0.999999, per_category=2)
    publish(lake, few, _askings(few), max_new_tokens=8, run_id="r2")
    kept = {row["question_id"] for row in lake.table(suite.TABLE).rows(["question_id"])}
    assert kept == {question.question_id for question in few}


def test_without_held_out_rows_the_suite_says_what_to_do(lake: Lake) -> None:
    with pytest.raises(NothingHeldOut, match="set `holdout` above 0"):
        publish(lake, [], [], max_new_tokens=8, run_id="r1")


def test_the_tables_show_every_checkpoint_and_category_and_the_preview_fits_into_an_event(lake: Lake) -> None:
    questions = held_out_questions(lake, CATEGORIES, 0.999999, per_category=100)
    report = publish(lake, questions, _askings(questions), max_new_tokens=8, run_id="r1")
    summary = summary_table(report)
    assert "| alignment | runner | 9 of 36 | 25.0 % ± 7.3 | 25.0 % | 25.0 % | 25.0 % | 25.0 % |" in summary
    assert "| one_vision | server | 36 of 36 | 100.0 % ± 0.0 |" in summary
    assert [line.split(" | ")[0] for line in category_table(report.scores).splitlines()[2:]] == [
        "| chart",
        "| general",
        "| language",
        "| all",
    ]
    preview = preview_table(lake, questions, {a.checkpoint.stage: a.answers for a in report.askings})
    assert preview.count("data:image/jpeg;base64,") >= 2
    assert len(preview) < 60_000
    assert len({line.count(" | ") for line in preview.splitlines() if "base64" in line}) == 1


def test_an_answer_cannot_break_the_table_it_is_shown_in(lake: Lake) -> None:
    (question, *_) = held_out_questions(lake, ["general"], 0.999999, per_category=1)
    hostile = Asked(question.question_id, "a | b\n\n# head <img src=x>", None, None, None)
    preview = preview_table(lake, [question], {"alignment": {question.question_id: hostile}})
    assert len(preview.splitlines()) == 3
    assert "a \\| b # head \\<img src=x\\>" in preview
