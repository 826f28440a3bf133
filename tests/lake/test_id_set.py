"""Sets of ids in 16 bytes each, against Python's sets of strings."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from mvl_assets.lake.id_set import IdSet

# Ids that end with zero bytes, which numpy drops from a single item, are frequent here.
IDS = st.binary(min_size=16, max_size=16).map(bytes.hex) | st.sampled_from(
    ["00" * 16, "01" + "00" * 15, "01" * 15 + "00", "ff" * 16]
)
BATCHES = st.lists(st.lists(IDS, max_size=6), max_size=5)


def flatten(batches: list[list[str]]) -> set[str]:
    return {item for batch in batches for item in batch}


@given(BATCHES)
def test_a_set_holds_each_id_once_and_sorted(batches: list[list[str]]) -> None:
    ids = IdSet(iter(batches))
    assert list(ids) == sorted(flatten(batches)) == ids.to_arrow().to_pylist()
    assert len(ids) == len(flatten(batches)) and bool(ids) == bool(flatten(batches))


@given(BATCHES, st.lists(IDS))
def test_contains_answers_for_each_id_in_order(batches: list[list[str]], queries: list[str]) -> None:
    assert IdSet(batches).contains(queries).tolist() == [query in flatten(batches) for query in queries]


@given(BATCHES, BATCHES)
def test_difference_keeps_the_ids_of_no_batch_and_leaves_the_set_as_it_was(
    batches: list[list[str]], removed: list[list[str]]
) -> None:
    ids = IdSet(batches)
    assert list(ids.difference(iter(removed))) == sorted(flatten(batches) - flatten(removed))
    assert len(ids) == len(flatten(batches))
