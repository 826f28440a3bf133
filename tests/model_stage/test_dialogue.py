"""Pairs and picture markers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mvl_assets.model_stage.dialogue import QAPair, attach_image_markers, extract_qa_pairs, strip_markers

TURNS = [
    {"from": "system", "value": "Be kind."},
    {"from": "human", "value": "<image>\nWhat is it?"},
    {"from": "gpt", "value": "A cat."},
    {"from": "human", "value": "Left without an answer."},
    {"from": "human", "value": "What colour?"},
    {"from": "gpt", "value": "Grey."},
]


def test_pairs_are_the_answered_questions():
    assert extract_qa_pairs(TURNS) == [QAPair("<image>\nWhat is it?", "A cat."), QAPair("What colour?", "Grey.")]


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("<image>\nWhat is it?", "What is it?"),
        ("What is it?\n<image>", "What is it?"),
        ("<image><image>\nCompare them.", "Compare them."),
        ("Is <image> like <image>?", "Is [picture 1] like [picture 2]?"),
        ("<image>\nIs it like <image> here?", "Is it like [picture 2] here?"),
        ("<video>\nWhat happens?", "What happens?"),
        ("<image>", ""),
    ],
)
def test_outer_markers_go_and_inner_ones_are_counted(text: str, read: str):
    assert strip_markers(text) == read


def test_a_question_that_kept_its_markers_stays_as_it_was():
    asked = "Is <image> like <image>?"
    assert attach_image_markers([QAPair(asked, "Yes.")], 2, has_video=False)[0]["value"] == asked


def test_a_new_question_gets_all_image_markers_in_front():
    turns = attach_image_markers([QAPair("Which is older?", "The left."), QAPair("Why?", "Rust.")], 2, has_video=False)
    assert [t["value"] for t in turns] == ["<image>\n<image>\nWhich is older?", "The left.", "Why?", "Rust."]
    assert (
        attach_image_markers([QAPair("What happens?", "Rain.")], 8, has_video=True)[0]["value"]
        == "<video>\nWhat happens?"
    )


@given(st.lists(st.tuples(st.text(), st.text()), min_size=1, max_size=4), st.integers(0, 5), st.booleans())
def test_a_dialogue_always_holds_one_marker_per_image(pairs: list[tuple[str, str]], n_images: int, video: bool):
    pairs = [(q.replace("<", ""), a.replace("<", "")) for q, a in pairs]
    turns = attach_image_markers([QAPair(q, a) for q, a in pairs], n_images, video)
    whole = "".join(t["value"] for t in turns)
    assert (whole.count("<video>"), whole.count("<image>")) == ((1, 0) if video else (0, n_images))
    assert [t["from"] for t in turns] == ["human", "gpt"] * len(pairs)
