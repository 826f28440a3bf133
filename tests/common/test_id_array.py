"""Packed ids and their binary search, against plain sets of strings."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mvl_assets.common.id_array import (
    ID_DTYPE,
    build_id_column,
    concatenate_ids,
    decode_ids,
    find_ids,
    pack_id_column,
    pack_ids,
    unpack_id,
)

# Few distinct bytes, many of them zero: numpy treats trailing zeros of a fixed-size string in its own way.
IDS = st.binary(min_size=16, max_size=16).map(bytes.hex) | st.sampled_from(
    ["00" * 16, "00" * 15 + "01", "01" + "00" * 15, "ff" * 16, "ab" + "00" * 14 + "ab"]
)


@given(st.lists(IDS))
def test_packing_and_unpacking_gives_the_ids_back(ids: list[str]) -> None:
    packed = pack_ids(ids)
    assert packed.dtype == ID_DTYPE and [unpack_id(item) for item in packed] == ids


@given(st.lists(st.none() | IDS), st.integers(0, 3))
def test_columns_of_ids_are_packed_and_built_without_their_nulls(ids: list[str | None], start: int) -> None:
    chunks = pa.chunked_array([ids, ids[start:]], pa.string())
    present = [i for i in [*ids, *ids[start:]] if i is not None]
    assert pack_id_column(chunks).tolist() == pack_ids(present).tolist()
    assert pack_id_column(chunks.chunk(0).slice(start)).tolist() == pack_ids(i for i in ids[start:] if i).tolist()
    assert build_id_column(decode_ids(chunks)).to_pylist() == present


def test_a_column_with_a_value_that_is_no_id_is_refused() -> None:
    with pytest.raises(ValueError, match="32 digits"):
        decode_ids(pa.array(["0" * 31, "0" * 33]))


@given(st.lists(IDS), st.lists(IDS))
def test_find_ids_agrees_with_a_set_of_strings(stored: list[str], queries: list[str]) -> None:
    sorted_ids = np.sort(pack_ids(stored))
    positions, is_result = find_ids(sorted_ids, pack_ids(queries))
    assert is_result.tolist() == [query in set(stored) for query in queries]
    assert all(
        unpack_id(sorted_ids[position]) == query
        for position, query, result in zip(positions, queries, is_result, strict=True)
        if result
    )


@given(st.lists(st.lists(IDS)))
def test_joining_arrays_keeps_their_order(batches: list[list[str]]) -> None:
    joined = concatenate_ids(pack_ids(batch) for batch in batches)
    assert [unpack_id(item) for item in joined] == [i for batch in batches for i in batch]
