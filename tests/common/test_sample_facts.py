"""Facts of a sample: what counts as the same words, and which columns follow from the content."""

from __future__ import annotations

import re

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mvl_assets.common import words
from mvl_assets.common.digest import compute_digest
from mvl_assets.common.image_properties import ImageProperties
from mvl_assets.common.sample_facts import (
    WITHDRAWN_FACTS,
    FlatConversations,
    build_fact_columns,
    compute_fingerprint,
    compute_holdout_hash,
)
from mvl_assets.lake.schemas.data_tables import SAMPLES

PICTURE = "a" * 32
PIECES = ["<image>", "<video>", "<ima", "ge>", " ", "\n", "\u00a0", "\x85", ".", ",", "?!", "a", "B", "ß", "3.5", "-5"]


def fingerprint(text: str) -> str:
    return compute_fingerprint([{"from": "human", "value": text}], [])


@given(st.lists(st.sampled_from(PIECES), max_size=12).map("".join))
def test_words_are_text_without_markers_case_spaces_and_punctuation_after_words(text: str) -> None:
    unmarked = re.sub("<image>|<video>", "", text)
    words = re.sub(r"\s+", " ", re.sub(r"[.,;:!?]+(?=\s|$)", "", unmarked)).strip().casefold()
    assert fingerprint(text) == compute_digest([], [f"human:{words}"])


@given(
    st.lists(st.text(st.sampled_from("aB .?\0\xa0ßé<") | st.characters(codec="utf-8"), max_size=9)), st.integers(1, 9)
)
def test_words_of_many_texts_are_those_of_each(texts: list[str], chunk_chars: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(words, "CHUNK_CHARS", chunk_chars)
        normalized = words.normalize_texts(texts)
    assert normalized == [
        " ".join(w for word in text.split() if (w := word.rstrip(".,;:!?"))).casefold() for text in texts
    ]


@pytest.mark.parametrize("name", ["a.png", None, "bad\udcff.png"])
def test_columns_of_a_version_with_an_image(name: str | None) -> None:
    turns = [{"from": "human", "value": "<image>\nWhat?"}, {"from": "gpt", "value": "A cat."}]
    properties = {PICTURE: ImageProperties(9, "PNG", 32, 24, 1, "RGB", None, sharpness=7.0)}
    said = FlatConversations([2], [turn["from"] for turn in turns], [turn["value"] for turn in turns])
    columns = build_fact_columns(["1" * 32], said, [[PICTURE]], [[name]], properties)
    facts = {name: pa.array(column)[0].as_py() for name, column in columns.items()}
    assert set(facts) == set(WITHDRAWN_FACTS) == SAMPLES.derived_columns
    assert facts["fingerprint"] == facts["similar_fingerprint"] == compute_fingerprint(turns, [PICTURE])
    assert facts["holdout_hash"] == compute_holdout_hash(PICTURE) == int(compute_digest("holdout", PICTURE)[:8], 16)
    assert facts["sharpness"] == 7.0
    stored = SAMPLES.columns.field("image_properties").type
    assert [field.name for field in stored.value_type] == list(facts["image_properties"][0])
    (facts["image_properties"][0]["name"] or "").encode()
