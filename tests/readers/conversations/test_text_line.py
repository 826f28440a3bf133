"""The short way of reading a line: it gives what the general way gives, or nothing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mvl_assets.readers.conversations.text_line import parse_text_line
from mvl_assets.readers.formats.llava_json import to_llava_sample
from mvl_assets.readers.parsers.json_stream import parse_line
from mvl_assets.readers.rows import build_sample, to_rows
from mvl_assets.readers.sample import RejectedRow, Sample

TEXTS = st.sampled_from(["Why?", "Because: so.", " ", "", "a < b", "<image>\nWhat?", '"id":', "é", "\ud800", "\\"])
TURNS = st.fixed_dictionaries(
    {"from": st.sampled_from(["human", "gpt", "system", "user"]), "value": TEXTS | st.none()},
    optional={"weight": st.integers()},
)
ROWS = st.fixed_dictionaries(
    {"conversations": st.lists(TURNS, max_size=4) | st.none()},
    optional={"id": st.sampled_from(["a", "", 7, 7.0, None, True, [1], "x" * 513]), "image": st.none(), "x:": TEXTS},
)


def read_generally(line: bytes) -> Sample | RejectedRow:
    (row,) = to_rows("a.jsonl", [parse_line(line, 3)], "id")
    return build_sample(row, lambda row: to_llava_sample(Path("/nowhere"), row))


@given(ROWS, st.booleans())
def test_a_line_is_read_as_in_the_general_way_or_not_at_all(row: dict[str, object], ascii: bool) -> None:
    line = json.dumps(row, ensure_ascii=ascii).encode(errors="surrogatepass")
    sample = parse_text_line("a.jsonl", 3, line)
    assert sample is None or sample == read_generally(line)


@pytest.mark.parametrize("row_id", [{"id": "1"}, {"id": 1}, {"id": None}, {}])
def test_a_plain_line_is_read(row_id: dict[str, object]) -> None:
    turns = [{"from": "human", "value": 'Why: "so"?'}, {"from": "gpt", "value": "Because."}]
    line = json.dumps({**row_id, "conversations": turns}).encode()
    sample = parse_text_line("a.jsonl", 3, line)
    assert sample is not None and sample == read_generally(line) and len(sample.turns) == 2


def test_a_key_that_is_given_twice_is_left_to_the_general_way() -> None:
    turns = '[{"from": "human", "value": "Why?"}, {"from": "gpt", "value": "No.", "value": "Yes."}]'
    line = f'{{"id": "1", "conversations": {turns}}}'.encode()
    assert parse_text_line("a.jsonl", 3, line) is None
    assert isinstance(rejected := read_generally(line), RejectedRow) and rejected.error == "duplicate_key"
