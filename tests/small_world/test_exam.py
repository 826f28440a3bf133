"""The exam asks about other drawings than the lessons, and counts what is right."""

from mvl_assets.small_world.exam import compute_shares, iter_questions
from mvl_assets.small_world.lessons import SUBJECTS


def test_the_right_replies_are_all_right_and_a_grey_image_leaves_the_words(prompts):
    questions = list(iter_questions(prompts, 2))
    shares = compute_shares(questions, [question.reply for question in questions])
    assert shares == {subject: {"explain": 1.0, "answer": 1.0} for subject in SUBJECTS}
    grey = list(iter_questions(prompts, 2, grey=True))
    assert [(q.request, q.reply) for q in grey] == [(q.request, q.reply) for q in questions]
    assert {q.image for q in grey}.isdisjoint(q.image for q in questions)


def test_a_missing_reply_is_wrong(prompts):
    questions = list(iter_questions(prompts, 1))
    assert compute_shares(questions, [None] * len(questions))["charts"] == {"explain": 0.0, "answer": 0.0}
