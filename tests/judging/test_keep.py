"""The keep rule's small language, and P(yes)."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest

from mvl_assets.config.profile import KeepConfig
from mvl_assets.errors import MvlError
from mvl_assets.judging.keep import JudgedPair, format_keep_condition, parse_keep_rule
from mvl_assets.judging.verdict import Verdict, VerdictError, compute_p_yes, parse_verdict
from tests.rewriting.small_source import profile

CRITERIA = ("relevance", "consistency", "accuracy")


def judged(*p: float | None, agrees: bool | None = True) -> JudgedPair:
    verdicts = [Verdict(c, c, value is not None and value >= 0.5, value) for c, value in zip(CRITERIA, p, strict=True)]
    return JudgedPair(verdicts, agrees)


GOOD, WEAK, BAD = judged(0.9, 0.8, 0.7), judged(0.9, 0.8, 0.3), judged(0.1, 0.2, 0.3, agrees=False)


@pytest.mark.parametrize(
    ("rule", "reasons"),
    [
        ("all_yes", [None, "no_accuracy", "no_relevance"]),
        ("matches_reference", [None, None, "reference_mismatch"]),
        ("p_yes >= 0.5", [None, "low_p_yes", "low_p_yes"]),
        ("p_yes>=.25", [None, None, "low_p_yes"]),
        ("p_yes.accuracy >= 0.3", [None, None, None]),
        ("p_yes.accuracy >= 0.5", [None, "low_p_yes_accuracy", "low_p_yes_accuracy"]),
        ("matches_reference and p_yes >= 0.5", [None, "low_p_yes", "reference_mismatch"]),
        ("all_yes or matches_reference", [None, None, "no_relevance"]),
        ("all_yes or matches_reference and p_yes >= 0.25", [None, None, "no_relevance"]),
        ("true", [None, None, None]),
        ("false or false", ["rule_keeps_none"] * 3),
        ("(all_yes or matches_reference) and p_yes >= 0.5", [None, "low_p_yes", "no_relevance"]),
    ],
)
def test_a_rule_keeps_a_pair_or_names_the_reason(rule: str, reasons: list[str | None]):
    parsed = parse_keep_rule(rule, criteria=CRITERIA)
    assert [parsed.find_drop_reason(j) for j in (GOOD, WEAK, BAD)] == reasons


@pytest.mark.parametrize(
    ("rule", "reasons"),
    [
        ("label == good or (label != bad and (all_yes))", [None, "label_bad", None, None, "no_accuracy"]),
        ("all_yes and label != bad", [None, "label_bad", None, "no_accuracy", "no_accuracy"]),
        ("all_yes and label == none", ["label_good", "label_bad", "label_unsure", "no_accuracy", "no_accuracy"]),
        ("label == good", [None, "label_bad", "label_unsure", None, "label_none"]),
    ],
)
def test_a_rule_may_ask_what_people_say(rule: str, reasons: list[str | None]):
    pairs = [replace(GOOD, label=label) for label in ("good", "bad", "unsure")]
    pairs += [replace(WEAK, label="good"), WEAK]
    parsed = parse_keep_rule(rule, criteria=CRITERIA)
    assert parsed.uses_labels and [parsed.find_drop_reason(pair) for pair in pairs] == reasons


def test_labels_beat_the_rule_of_a_profile_that_says_so():
    labelled = profile(rule="all_yes").model_copy(update={"keep": KeepConfig(rule="all_yes", labels=True)})
    assert labelled.keep_rule == "label == good or (label != bad and (all_yes))"
    assert not parse_keep_rule(profile().keep_rule, CRITERIA).uses_labels


def test_a_line_break_in_a_rule_is_white_space():
    rule = parse_keep_rule("all_yes\n  or matches_reference\n")
    assert rule.find_drop_reason(WEAK) is None


def test_what_cannot_be_compared_is_neither_a_match_nor_a_contradiction():
    open_question, match, contradiction = (judged(0.9, 0.9, 0.9, agrees=agrees) for agrees in (None, True, False))
    rules = [
        parse_keep_rule(rule) for rule in ("matches_reference", "no_reference", "matches_reference or no_reference")
    ]
    assert [[rule.find_drop_reason(pair) for pair in (open_question, match, contradiction)] for rule in rules] == [
        ["no_reference", None, "reference_mismatch"],
        [None, "matches_reference", "reference_mismatch"],
        [None, None, "reference_mismatch"],
    ]


@pytest.mark.parametrize(
    ("p_yes", "agrees", "reason"),
    [
        ((0.6, 0.6, 0.6), True, None),
        ((0.6, 0.4, 0.6), True, "no_consistency"),
        ((0.99, 0.99, 0.99), False, "reference_mismatch"),
        ((0.8, 0.9, 0.85), None, None),
        ((0.9, 0.79, 0.9), None, "low_p_yes"),
        ((0.4, 0.9, 0.9), None, "no_relevance"),
    ],
)
def test_the_default_rule_asks_for_evidence_of_every_pair(
    p_yes: tuple[float, ...], agrees: bool | None, reason: str | None
):
    rule = parse_keep_rule(profile(rule=None).keep_rule)
    assert rule.find_drop_reason(judged(*p_yes, agrees=agrees)) == reason
    unknown = JudgedPair([Verdict("accuracy", "k", True, None)], agrees)
    assert rule.find_drop_reason(unknown) == {True: None, False: "reference_mismatch", None: "no_p_yes"}[agrees]


def test_paper_parity_has_the_papers_rule_unless_the_profile_names_one():
    parity = profile(rule=None).model_copy(update={"paper_parity": True})
    assert (parity.keep_rule, parity.n_votes, parity.gives_reference) == ("all_yes", 1, False)
    assert profile(rule="p_yes >= 0.5").model_copy(update={"paper_parity": True}).keep_rule == "p_yes >= 0.5"


def test_a_criterion_that_a_family_lacks_is_not_held_against_it():
    rule = parse_keep_rule("p_yes.steps >= 0.9", ("accuracy", "steps"))
    assert rule.find_drop_reason(judged(0.1, 0.1, 0.1)) is None


def test_an_unknown_p_yes_passes_no_threshold():
    assert parse_keep_rule("p_yes >= 0").find_drop_reason(judged(0.9, None, 0.9)) == "no_p_yes"


@pytest.mark.parametrize(
    ("rule", "problem"),
    [
        ("", "is empty"),
        ("all_yess", "all_yess"),
        ("p_yes", "needs `>=`"),
        ("both_yes", "no_reference, p_yes or label, found 'both_yes'"),
        ("label", "label needs `==` or `!=` and one of good, bad, unsure, none"),
        ("label == fine", "label needs"),
        ("label >= good", "label needs"),
        ("label == good == good", "label needs"),
        ("p_yes >= high", "needs `>=`"),
        ("p_yes >= 1.5", "1.5 is not a probability"),
        ("p_yes.truth >= 0.5", "relevance, consistency, accuracy"),
        ("all_yes matches_reference", "invalid syntax at character 9"),
        ("(all_yes", "'(' was never closed at character 1"),
        ("all_yes; import os", "invalid syntax at character 8"),
        ("all_yes or", "invalid syntax at character 11"),
        ("not all_yes", "found 'not all_yes'"),
        ("p_yes > 0.5", "needs `>=`"),
        ("0.5 >= p_yes", "found '0.5 >= p_yes'"),
        ("p_yes >= 0.2 >= 0.1", "needs `>=`"),
        ("p_yes >= True", "needs `>=`"),
        ("p_yes.accuracy", "needs `>=`"),
        ("__import__('os')", "found"),
        ("(" * 10_000 + "all_yes", "keep rule"),
    ],
)
def test_a_wrong_rule_is_explained(rule: str, problem: str):
    with pytest.raises(MvlError, match="keep rule") as caught:
        parse_keep_rule(rule, criteria=CRITERIA)
    assert problem in str(caught.value)


def test_p_yes_sums_the_spellings_of_each_word():
    result = {"Yes": math.log(0.3), " yes": math.log(0.1), "ĠYES": math.log(0.1), "No": math.log(0.25), "Maybe": -1.0}
    assert compute_p_yes(json.dumps(result)) == pytest.approx(0.5 / 0.75)
    assert compute_p_yes(json.dumps({"Yes": -0.1})) == 1.0
    assert compute_p_yes(json.dumps({"No": -0.1, "The": -3.0})) == 0.0
    assert compute_p_yes(json.dumps({"The": -0.1})) is None
    assert compute_p_yes(None) is None
    # Answers stored by whoever was less careful: NaN says nothing, and no logarithm of a probability is above 0.
    assert compute_p_yes('{"Yes": NaN}') is None
    assert compute_p_yes('{"Yes": NaN, "No": -0.1}') == 0.0
    assert compute_p_yes('{"Yes": 1e9, "No": 0.0}') == 0.5


def test_a_verdict_is_one_of_the_two_words():
    assert parse_verdict("accuracy", "k", " Yes\n", "stop", None) == Verdict("accuracy", "k", True, None)
    assert parse_verdict("accuracy", "k", "No", "length", None).is_yes is False
    for text, finish, error in [("Yes and no", "stop", "no_verdict"), ("Yes", "content_filter", "not_finished")]:
        with pytest.raises(VerdictError) as caught:
            parse_verdict("accuracy", "k", text, finish, None)
        assert caught.value.code == error


@pytest.mark.parametrize(("text", "is_yes"), [("**Yes.**", True), ("No, the sign", False), ("Yesterday", None)])
def test_without_a_constraint_the_first_word_is_the_verdict(text: str, is_yes: bool | None) -> None:
    with pytest.raises(VerdictError):
        parse_verdict("accuracy", "k", text, "length", None)
    if is_yes is None:
        with pytest.raises(VerdictError):
            parse_verdict("accuracy", "k", text, "length", None, is_constrained=False)
    else:
        assert parse_verdict("accuracy", "k", text, "length", None, is_constrained=False).is_yes is is_yes


def test_a_rule_becomes_a_condition_over_columns_but_for_single_criteria() -> None:
    rule = "all_yes and (matches_reference\n or (no_reference and p_yes >= .8))"
    wanted = "all_yes and (matches_reference or ((matches_reference IS NULL) and p_yes >= .8))"
    assert format_keep_condition(rule) == wanted
    with pytest.raises(MvlError, match="single criteria"):
        format_keep_condition("p_yes.accuracy >= 0.5")
    with pytest.raises(MvlError, match="expected all_yes"):
        format_keep_condition("1 >= 1")
