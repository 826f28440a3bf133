"""Contents that depend on each other: whatever pairs link, over any number of them."""

from __future__ import annotations

import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from mvl_assets.lake_queries.connected_contents import find_connected

LETTERS = st.sampled_from("abcdefgh")


@given(pairs=st.lists(st.tuples(LETTERS, LETTERS)), start=st.sets(LETTERS))
def test_ids_are_connected_over_any_number_of_pairs(pairs: list[tuple[str, str]], start: set[str]) -> None:
    expected = set(start)
    for _ in range(8):
        expected.update(letter for pair in pairs if expected & set(pair) for letter in pair)
    columns = [pa.array([pair[nth] for pair in pairs], pa.string()) for nth in range(2)]
    connected = find_connected(pa.table(columns, ["a", "b"]), pa.array(sorted(start), pa.string()))
    assert sorted(connected.to_pylist()) == sorted(expected)
