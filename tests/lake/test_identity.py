"""Identity: equal things have equal ids, and different things different ones."""

from __future__ import annotations

import datetime as dt
import random

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mvl_assets.common.digest import (
    DigestSum,
    compute_digest,
    compute_id_digests,
    compute_row_hashes,
    encode_canonical_json,
    encode_plain_json,
)
from mvl_assets.lake import sql
from mvl_assets.lake.lake import Lake
from mvl_assets.lake.schemas.data_tables import CATEGORY
from mvl_assets.lake.schemas.tables import get_table_spec
from tests.lake.rows import pages, table_of

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(), lambda x: st.lists(x) | st.dictionaries(st.text(), x)
)


@settings(derandomize=True, database=None, max_examples=50, deadline=None)
@given(st.lists(VALUES, max_size=4), st.lists(VALUES, max_size=4))
def test_digests_are_equal_exactly_for_equal_parts(left: list, right: list) -> None:
    same = [encode_canonical_json(v) for v in left] == [encode_canonical_json(v) for v in right]
    assert (compute_digest(*left) == compute_digest(*right)) == same
    assert len(bytes.fromhex(compute_digest(*left))) == 16


@settings(derandomize=True, database=None, max_examples=200, deadline=None)
@given(VALUES)
def test_plain_values_are_encoded_alike_in_both_ways(value: object) -> None:
    assert encode_plain_json(value) == encode_canonical_json(value)


def test_every_character_is_encoded_alike_in_both_ways() -> None:
    text = "".join(chr(code) for code in range(0x110000) if not 0xD800 <= code < 0xE000)
    assert encode_plain_json({text: text}) == encode_canonical_json({text: text})


def test_digests_of_many_ids_are_those_of_each() -> None:
    ids = [f"{n:032x}" for n in range(3)]
    assert compute_id_digests(["one_vision", "original"], ids, [0]) == [
        compute_digest("one_vision", "original", key, 0) for key in ids
    ]
    assert compute_id_digests([], ids, []) == [compute_digest(key) for key in ids]


def test_a_digest_ignores_the_order_of_keys_but_not_the_cut_between_parts() -> None:
    assert compute_digest({"a": 1, "b": 2}) == compute_digest({"b": 2, "a": 1})
    assert compute_digest("ab", "c") != compute_digest("a", "bc")
    assert compute_digest(b"x") != compute_digest("x")
    assert compute_digest("\ud800") != compute_digest("\ud801"), "text that came broken still has an identity"
    with pytest.raises(ValueError, match="JSON"):
        compute_digest(float("nan"))


def test_digests_of_fixed_inputs_are_pinned() -> None:
    """A change of the digest would make every stored row unknown."""
    assert compute_digest("source", 1, {"b": [True, None], "a": "ü"}) == "4f1cca267aee1f78b82617605ed1ddac"


def test_a_row_hash_ignores_run_and_time() -> None:
    row = {"sample_id": compute_digest(1), "source": "a", "run_id": "one"}
    first, other_run, other_source = (
        compute_row_hashes(table_of(CATEGORY, [row | change]), CATEGORY.content_columns).to_pylist()
        for change in ({}, {"run_id": "two"}, {"source": "b"})
    )
    assert first == other_run != other_source


def test_a_row_hash_accepts_every_column_type() -> None:
    row = pa.table({"t": pa.array([dt.datetime(2024, 1, 1, tzinfo=dt.UTC)]), "l": [[{"x": None}]], "f": [0.1]})
    assert len(compute_row_hashes(row, row.column_names)[0].as_py()) == 32


def test_a_row_hash_is_the_digest_of_the_row_with_and_without_fractions() -> None:
    rows = [{"f": None, "l": [{"b": "\n", "a": None}], "n": -1}, {"f": 1e16, "l": [], "n": 2**40}]
    hashes = compute_row_hashes(pa.Table.from_pylist(rows), ["n", "l", "f"])
    assert hashes.to_pylist() == [compute_digest(row) for row in rows]


def test_a_sum_of_digests_ignores_order_and_counts_copies() -> None:
    hashes = [compute_digest(n) for n in range(20)]
    sums = []
    for order in (hashes, random.Random(0).sample(hashes, 20), [*hashes, hashes[0]]):
        digest = DigestSum()
        digest.add(pa.array(order))
        sums.append(digest.to_hex())
    assert sums[0] == sums[1] != sums[2]


@pytest.mark.parametrize("value", ["it's", 'say "no"', "100%", "a\\b", "`", "; DROP TABLE x", "日本", "\n"])
def test_a_filter_matches_any_string_value(lake: Lake, value: str) -> None:
    table = lake.get_table("category/ocr")
    table.publish([pages("plain", "x", [1])], "plain")
    table.publish([pages(value, "x", [1, 2])], value)
    assert table.count(sql.equals("source", value)) == 2
    assert table.count(sql.is_in("source", [value, "plain"])) == 3
    assert table.count(sql.is_in("source", [])) == 0
    table.publish([], value)
    assert table.count() == 1


def test_a_filter_value_with_nul_is_refused() -> None:
    with pytest.raises(ValueError, match="NUL"):
        sql.format_literal("a\x00b")


def test_every_table_has_a_key_that_lance_protects() -> None:
    names = ["images", "samples", "rejects", "curation/duplicates", "curation/contamination", "answers/rewritten/x"]
    names += [
        "category/ocr",
        "rewritten/ocr",
        "judged/ocr",
        "mixture/one_vision",
        "pack_plan/one_vision",
        "packed_rows/one_vision",
    ]
    for spec in map(get_table_spec, [*names, "evaluation/held_out"]):
        key = spec.schema.field(spec.key_column)
        assert key.type == pa.string()
        assert not key.nullable
        assert key.metadata == {b"lance-schema:unenforced-primary-key": b"true"}
        assert spec.partition_column is None or spec.partition_column in spec.columns.names
    with pytest.raises(KeyError):
        get_table_spec("no such table")
