"""Which differences between two conversations count."""

from __future__ import annotations

import numpy as np
import pytest

from mvl_assets.config.duplicate_rules import DuplicateRules
from mvl_assets.curation.text_overlap import ComparableText, build_comparable_text, compare_texts
from mvl_assets.curation.text_sketch import compute_word_pair_sketches, compute_word_sketches

RULES = DuplicateRules()
Conversation = list[dict[str, str]]
OPTIONS = "Which animal barks?\n(A) cat\n(B) dog\n(C) red fox"
SHUFFLED = "Which animal barks?\nA. red fox\nB. cat\nC. dog\nAnswer with the letter."


def talk(question: str, answer: str) -> Conversation:
    return [{"from": "human", "value": question}, {"from": "gpt", "value": answer}]


def read(question: str, answer: str) -> ComparableText:
    return build_comparable_text(talk(question, answer))


def is_same(one: tuple[str, str], other: tuple[str, str]) -> bool:
    scores = compare_texts(read(*one), read(*other))
    return scores.overlap >= RULES.min_text_overlap and scores.containment >= RULES.min_text_containment


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (("What is the highest value?", "42"), ("<image>\nPlease tell me: what is the highest value?", "42.")),
        (("What is the highest value?", "42"), ("### Question\n- What is the **highest** value?", "<p>42.</p>")),
        ((OPTIONS, "B"), (SHUFFLED, "C")),
        ((OPTIONS, "It lives with people.\nAnswer: B"), (SHUFFLED, "It lives with people.\n**Answer:** C")),
        (("Compute $5+3$.", "**8**"), ("Compute 5 + 3", "8")),
        (("Describe it.", "A cat on a mat."), ("What do you see?", "a cat on a mat")),
        (("这是什么?", "一只猫"), ("这是什么？", "一只猫。")),
    ],
)
def test_wording_markup_and_order_of_options_do_not_count(one: tuple[str, str], other: tuple[str, str]) -> None:
    assert is_same(one, other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (("What is the highest value?", "42"), ("What is the lowest value?", "42")),
        (("What colour is the cat?", "red"), ("What colour is the dog?", "red")),
        (("Is the cat left of the dog?", "yes"), ("Is the dog left of the cat?", "yes")),
        (("Is the cat black?", "yes"), ("Is the cat black?", "no")),
        ((OPTIONS, "B"), (SHUFFLED, "B")),
        (("Compute 5 + 3", "8"), ("Compute 5 - 3", "8")),
        (("Sales in 2010?", "8"), ("Sales in 2011?", "8")),
        (("这是什么?", "一只猫"), ("这是什么?", "一只狗")),
        (("", ""), ("", "")),
    ],
)
def test_another_question_or_answer_counts(one: tuple[str, str], other: tuple[str, str]) -> None:
    assert not is_same(one, other)


def test_sketches_of_similar_texts_share_numbers() -> None:
    words = "river hills counties sea harbour town lighthouse boats night year stone bridge mill field".split()
    text, other = " ".join(words), " ".join(reversed(words[:7]))
    for compute in (compute_word_sketches, compute_word_pair_sketches):
        a, b, c = compute([talk(text, "four"), talk(f"Please answer: {text}", "four"), talk(other, "nine")])
        assert (a == b).all()
        assert np.sum(a == c) < 12
    assert compute_word_sketches([]).shape == (0, 16)
