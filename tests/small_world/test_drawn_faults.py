"""Every planted fault makes a true answer untrue, in the way its name says."""

from random import Random

import pytest

from mvl_assets.small_world.drawn_faults import FAULTS, FaultContext, draw_fault
from mvl_assets.small_world.lessons import SUBJECTS
from mvl_assets.small_world.truth import is_true_answer


def build_contexts(name: str, n: int = 30) -> list[FaultContext]:
    contexts = []
    for number in range(n):
        rng = Random(f"{name} {number}")
        drawing, other = SUBJECTS[name].draw(rng, number), SUBJECTS[name].draw(rng, number)
        contexts.append(FaultContext(drawing, rng.choice(drawing.qa_pairs), other))
    return contexts


@pytest.mark.parametrize("subject", SUBJECTS)
def test_a_faulty_answer_is_not_true_of_the_drawing(subject: str):
    planted = 0
    for number, context in enumerate(build_contexts(subject)):
        fault = draw_fault(Random(number), context)
        if fault is None:
            continue
        planted += 1
        question = context.qa_pair.question
        assert is_true_answer(context.drawing.qa_pairs, question, context.qa_pair.detailed_answer)
        assert is_true_answer(context.drawing.qa_pairs, question, fault[1]) is False, fault
    assert planted >= 20


def test_each_fault_can_be_planted_somewhere():
    planted = {
        name
        for subject in SUBJECTS
        for number, context in enumerate(build_contexts(subject))
        for name, plant in FAULTS.items()
        if plant(Random(number), context) is not None
    }
    assert planted == set(FAULTS)


def test_swapped_values_keep_every_number():
    context = build_contexts("charts")[0]
    faulty = FAULTS["swapped_values"](Random(0), context)
    assert faulty is not None
    assert sorted(faulty) == sorted(context.qa_pair.detailed_answer)
    assert faulty != context.qa_pair.detailed_answer
