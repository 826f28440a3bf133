"""The exam asks about other drawings than the lessons, and counts what is right."""

import pytest

from mvl_assets.small_world.exam import ExamVerdict, compute_aucs, compute_shares, iter_questions, iter_verdicts
from mvl_assets.small_world.faults import FAULTS
from mvl_assets.small_world.lessons import SUBJECTS
from tests.small_world.test_lessons import prompts

__all__ = ["prompts"]


def test_the_right_replies_are_all_right_and_a_grey_image_leaves_the_words(prompts):
    questions = list(iter_questions(prompts, 2))
    shares = compute_shares(questions, [question.reply for question in questions])
    assert set(shares) == {(subject, task) for subject in SUBJECTS for task in ("explain", "answer")}
    assert set(shares.values()) == {1.0}
    grey = list(iter_questions(prompts, 2, grey=True))
    assert [(q.request, q.reply) for q in grey] == [(q.request, q.reply) for q in questions]
    assert {q.image for q in grey}.isdisjoint(q.image for q in questions)


def test_half_of_the_verdicts_are_about_faulty_answers(prompts):
    verdicts = list(iter_verdicts(prompts, 3))
    assert sum(verdict.fault is None for verdict in verdicts) * 2 == len(verdicts)
    assert {verdict.fault for verdict in verdicts} - {None} <= set(FAULTS)


def test_the_auc_is_that_of_mann_and_whitney():
    verdicts = [ExamVerdict("shapes", fault, b"", "") for fault in (None, None, "wrong_colour", "wrong_colour")]
    assert compute_aucs(verdicts, [0.9, 0.4, 0.4, 0.1]) == {"wrong_colour": pytest.approx(3.5 / 4)}
