"""Checks of rewritten pairs: what each one finds, and what it lets pass."""

from __future__ import annotations

import json
from typing import get_args

import pytest

from mvl_assets.config.profile import CheckName
from mvl_assets.config.settings import PROJECT_ROOT
from mvl_assets.model_stage.dialogue import QAPair
from mvl_assets.rewriting.checks.pair import CheckedPair
from mvl_assets.rewriting.checks.table import CHECKS, find_drop
from tests.rewriting.small_source import profile

OPTIONS = "What comes directly after evaporation?\n(A) water\n(B) condensation\n(C) rain"
CAPTION = "A grey photograph of grass seen from above, with thin blades and small white flowers in it."
PROSE = (
    "The chart compares four cities over ten years. Berlin starts at 3.4 million people and grows in every year but"
    " one. Madrid ends ahead of it, which the legend marks in dark blue"
)


def pair(
    question: str, answer: str, original: tuple[str, str] = ("How many are there?", "12"), family: str = "chart"
) -> CheckedPair:
    return CheckedPair(question, answer, [QAPair(*original)], family in ("math", "code"), family)


FAULTS: list[tuple[str, CheckedPair]] = [
    ("refusal", pair("What is in it?", "I'm sorry, but I can't see the image you mention.")),
    ("refusal", pair("What is in it?", "As an AI language model, I have no eyes.")),
    ("refusal", pair("What is in it?", "No image was provided, so I describe a typical chart.")),
    ("json_debris", pair("How many are left?", "3},{")),
    ("json_debris", pair("How many are left?", 'It is 3." } ]')),
    ("json_debris", pair("How many are left?", '{"question": "What?", "answer": "3"}')),
    ("broken_markup", pair("What is x?", r"We have \begin{aligned} x &= 3.", family="math")),
    ("broken_markup", pair("What is x?", r"So \( x = 3 and that is all.", family="math")),
    ("broken_markup", pair("What is x?", "```python\nx = 3", family="code")),
    ("broken_markup", pair("What is x?", "It is 3.<|im_end|>")),
    ("repetition", pair("What is it?", "The a a a a a")),
    ("repetition", pair("What is it?", "A circle is the most colorful image. " * 3)),
    ("repetition", pair("What is it?", "one two three four five six seven eight nine ten, " * 12)),
    ("ends_in_middle", pair("Who is on it?", "The human is at the left of the meadow with a [")),
    ("ends_in_middle", pair("Who is on it?", "To the right of the tree stands the")),
    ("ends_in_middle", pair("Who is on it?", PROSE)),
    ("unchanged", pair("What do all values add up to?", "135.", ("What do all values add up to?", "135"))),
    ("unchanged", pair("Which is the share for Bob?", "A quarter", ("Which is the share of Bob?", "a quarter"))),
    ("unchanged", pair("What is shown?", CAPTION, ("Describe the image.", CAPTION), "caption")),
    ("unchanged", pair("What is x?", "The answer is 12.", ("What is x?", "12"), "math")),
    ("options_lost", pair("What comes directly after evaporation?", "condensation", (OPTIONS, "B"), "domain")),
    ("options_lost", pair("Look at the cycle. Which of the following is next?", "It is rain.", (OPTIONS, "B"))),
    ("options_lost", pair("Which step follows when water has evaporated?", "B", (OPTIONS, "B"))),
    ("reference_contradicted", pair("What is x?", "3 + 4 = 8, so it is.\nAnswer: 8", ("What is x?", "7"), "math")),
    ("reference_contradicted", pair("Is it even?", "It ends in 3.\nAnswer: No", ("Is it even?", "Yes"), "math")),
    ("reference_contradicted", pair(OPTIONS, "It cools.\nAnswer: (C)", (OPTIONS, "B"), "math")),
    (
        "reference_contradicted",
        pair("What is x?", r"By Pythagoras. \boxed{3\sqrt{2}}", ("What is x?", r"2\sqrt{3}"), "math"),
    ),
    ("caption_talk", pair("What colour is the car?", "According to the caption, the car by the road is red.")),
    ("caption_talk", pair("What does the image description say about cars?", "It says that they are red.")),
    ("other_language", pair("图中有多少个苹果?", "图中一共有十二个苹果,它们都放在桌子上的一个大篮子里面。")),
    (
        "other_language",
        pair(
            "What is on the table?",
            "Auf dem Tisch liegt ein Apfel und das ist nicht alles, denn im Korb auf der Bank sind noch mehr davon und"
            " die werden mit dem Messer von der Bank für den Kuchen geschält.",
        ),
    ),
]

SOUND: list[CheckedPair] = [
    pair("What is x?", "First 3 + 4 = 7.\nAnswer: 7", ("What is x?", "7"), "math"),
    pair("What is x?", r"By Pythagoras. \boxed{\sqrt{12}}", ("What is x?", r"2\sqrt{3}"), "math"),
    pair("What is x?", "Half of it.\nAnswer: 0.5", ("What is x?", r"\frac{1}{2}"), "math"),
    pair("What is the weight?", "10 kg in all.\nAnswer: 10", ("What is the weight?", "10 kg"), "math"),
    pair("Who is it?", "She wears red.\nAnswer: the woman in red", ("Who is it?", "a lady"), "math"),
    pair(OPTIONS, "It cools first.\nAnswer: condensation", (OPTIONS, "B"), "math"),
    pair(OPTIONS, "Vapour cools. B", (OPTIONS, "B"), "domain"),
    pair("What happens to vapour that cools?", "It condenses to water.", (OPTIONS, "B"), "domain"),
    pair("How many apples and pears are there?", "12", ("How many are there?", "12")),
    pair("How many are there?", "There are 7 red and 5 green ones, 12 in all.", ("How many are there?", "12")),
    pair("What is 3 plus 5?", "8", ("What is 3 plus 4?", "7")),
    pair("What is listed?", "- a red car\n- a car and a\n- two more cars"),
    pair("Which values are in the column?", "2, 2, 2, 2, 2, 2, 2 and 4"),
    pair("What stands in the table?", "| a | b |\n|---|---|\n| 1 | 2 |\n| 1 | 2 |\n| 1 | 2 |"),
    pair("What does it cost?", "It costs $5, and not $6."),
    pair("Write the page.", '<div class="a">\n<p>{"a": 1}</p>\n</div>', family="code"),
    pair("Which script writes it?", 'It is `{"question": 1}`, as the box shows.'),
    pair("What does the clerk say?", 'The clerk says "we are closed on Sundays, I am sorry."'),
    pair("What can be read?", "It reads 我爱你, which is Chinese for a declaration of love to somebody."),
    pair("Can it be read?", "I cannot see any text that could be read.", ("Can it be read?", "unanswerable")),
    pair("Which title does the figure have?", "The caption says Figure 3.", ("What does the caption say?", "Figure 3")),
    pair(
        "Quelle est la couleur du chat et de la table dans la cuisine?",
        "Le chat est noir.",
        ("Couleur du chat?", "noir"),
    ),
    pair("What is x?", r"\begin{aligned} a &= b \\[2pt] c &= d \end{aligned}", family="math"),
]


def find_reason(checked: CheckedPair) -> str | None:
    drop = find_drop(
        CHECKS,
        0,
        [QAPair(checked.question, checked.answer)],
        checked.originals,
        is_preserved=checked.is_preserved,
        family=checked.family,
    )
    return None if drop is None else drop.reason


@pytest.mark.parametrize(("reason", "checked"), FAULTS)
def test_each_fault_has_its_reason(reason: str, checked: CheckedPair) -> None:
    assert find_reason(checked) == reason


@pytest.mark.parametrize("checked", SOUND)
def test_sound_pairs_pass(checked: CheckedPair) -> None:
    assert find_reason(checked) is None


def test_worked_solutions_of_real_problems_pass() -> None:
    path = PROJECT_ROOT.parent / "shared/data/tabmwp/problems.json"
    if not path.is_file():
        pytest.skip("needs ../shared/data")
    reasons = []
    for problem in json.loads(path.read_text(encoding="utf-8")).values():
        letters = [f"({chr(65 + n)}) {choice}" for n, choice in enumerate(problem["choices"] or ())]
        question = "\n".join([problem["question"], *letters])
        answer = f"{problem['solution']}\nAnswer: {problem['answer']}"
        reasons.append(find_reason(pair(question, answer, (question, problem["answer"]), "math")))
    assert set(reasons) == {None}


def test_a_conversation_is_dropped_for_one_turn() -> None:
    turns = [QAPair("What is it?", "A sign at the door."), QAPair("What does it say?", '3},{"')]
    drop = find_drop(CHECKS, 2, turns, [], is_preserved=False, family="ocr")
    assert drop is not None
    assert (drop.ordinal, drop.reason, drop.message.partition(":")[0]) == (2, "json_debris", "turn 2")


def test_a_profile_switches_checks_off() -> None:
    assert profile().list_checks() == list(CHECKS) == list(get_args(CheckName))
    changed = profile().model_copy(update={"checks": {"unchanged": False}})
    assert set(CHECKS) - set(changed.list_checks()) == {"unchanged"}
    parity = profile().model_copy(update={"paper_parity": True})
    assert parity.list_checks() == []
    assert parity.model_copy(update={"checks": {"refusal": True}}).list_checks() == ["refusal"]


@pytest.mark.parametrize(
    "text", ["", " ", "\\" * 3000, "{" * 3000, "a " * 3000, "(A) " * 500, "[,{" * 1000, "$" * 3001]
)
def test_hostile_text_is_checked_at_once(text: str) -> None:
    for family in ("math", "chart", "code", "caption"):
        find_reason(pair(text, text, (text, text[::-1] + "x"), family))
        find_reason(pair(text, f"Answer: {text}", (text, "9" * 50), family))
