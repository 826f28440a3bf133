"""Lessons are in the words of the prompts, and their answers follow from the drawing."""

from random import Random

from mvl_assets.config.prompts import Prompt
from mvl_assets.small_world.lessons import SUBJECTS, build_lesson, iter_lessons


def test_a_lesson_depends_on_its_seed_and_number_alone(prompts: dict[str, Prompt]):
    from_start = list(iter_lessons(prompts, 0, 0, 6))
    assert [lesson.turns for lesson in iter_lessons(prompts, 0, 3, 6)] == [lesson.turns for lesson in from_start[3:]]
    assert [lesson.turns for lesson in iter_lessons(prompts, 1, 0, 6)] != [lesson.turns for lesson in from_start]


def test_a_lesson_of_verdicts_has_no_reasons_that_would_give_them_away(prompts: dict[str, Prompt]):
    n_verdicts = {"Yes": 0, "No": 0}
    for number in range(80):
        for subject in SUBJECTS:
            lesson = build_lesson(prompts, Random(number), subject, number)
            is_verdict = [answer in n_verdicts for _, answer in lesson.turns]
            assert len(set(is_verdict)) == 1
            for _, answer in lesson.turns:
                if answer in n_verdicts:
                    n_verdicts[answer] += 1
    # Neither word can be guessed from how often it is right.
    assert 0.4 < n_verdicts["Yes"] / sum(n_verdicts.values()) < 0.6


def test_lessons_of_some_subjects_are_those_of_all(prompts: dict[str, Prompt]):
    of_all = [lesson for lesson in iter_lessons(prompts, 0, 0, 40) if lesson.subject in ("signs", "shapes")]
    of_some = list(iter_lessons(prompts, 0, 0, 40, ("signs", "shapes")))
    assert of_some and [lesson.turns for lesson in of_some] == [lesson.turns for lesson in of_all]
