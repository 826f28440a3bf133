"""Which rows become questions, and that their selection is stable."""

from __future__ import annotations

import random

from mvl_assets.common.digest import compute_digest
from mvl_training.evaluation.held_out.questions import (
    HeldOutQuestion,
    build_question,
    compute_suite_hash,
    select_questions,
)


def _row(number: int, *, category: str = "chart", question: str = "<image>\nHow many?", answer: str = "7") -> dict:
    return {
        "sample_id": compute_digest("row", number),
        "source": "drawn",
        "category": category,
        "conversations": [{"from": "human", "value": question}, {"from": "gpt", "value": answer}],
        "image_ids": [compute_digest("picture", number)],
    }


def test_markers_are_removed_from_the_question_and_images_keep_their_order() -> None:
    row = _row(1, question="<image> <image>\nWhich is larger?")
    row["image_ids"] = ["a" * 32, "b" * 32]
    question = build_question(row)
    assert question is not None
    assert question.text == "Which is larger?"
    assert question.image_ids == ("a" * 32, "b" * 32)


def test_rows_whose_answer_cannot_be_compared_give_no_question() -> None:
    assert build_question(_row(1, answer="A long description of the chart with many words in it.")) is None
    assert build_question(_row(1, answer="x" * 61)) is None
    assert build_question(_row(1, answer="  ")) is None
    assert build_question(_row(1, question="<image>")) is None
    unanswered = _row(1)
    unanswered["conversations"] = unanswered["conversations"][:1]
    assert build_question(unanswered) is None


def test_a_system_turn_is_not_taken_for_the_question() -> None:
    row = _row(1)
    row["conversations"].insert(0, {"from": "system", "value": "Be short."})
    question = build_question(row)
    assert question is not None and question.text == "How many?"


def test_selection_is_balanced_independent_of_order_and_grows_by_adding() -> None:
    rows = [_row(i, category="chart" if i % 3 else "ocr") for i in range(60)]
    small = select_questions(rows, per_category=5)
    assert [q.category for q in small] == ["chart"] * 5 + ["ocr"] * 5
    random.Random(3).shuffle(rows)
    assert select_questions(rows, per_category=5) == small
    assert set(small) <= set(select_questions(rows, per_category=12))


def test_an_edited_answer_changes_question_id_and_suite_hash() -> None:
    one, two = build_question(_row(1)), build_question(_row(1, answer="8"))
    assert one is not None and two is not None
    assert one.question_id != two.question_id
    assert compute_suite_hash([one], max_new_tokens=8) != compute_suite_hash([two], max_new_tokens=8)
    assert compute_suite_hash([one], max_new_tokens=8) != compute_suite_hash([one], max_new_tokens=9)
    assert compute_suite_hash([one], max_new_tokens=8) == compute_suite_hash([one], max_new_tokens=8)


def test_a_question_survives_to_dict_and_from_dict() -> None:
    question = build_question(_row(1))
    assert question is not None
    assert HeldOutQuestion.from_dict(question.to_dict()) == question
