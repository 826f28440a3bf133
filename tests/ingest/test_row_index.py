"""Names of rows: stable, unique, and the limit's choice grows by adding."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from mvl_assets.ingest.row_index import build_row_index, compute_row_key
from mvl_assets.readers.format import RowKey

NAMES = st.lists(st.one_of(st.none(), st.sampled_from(["a", "b", "c"]), st.text(max_size=3)), max_size=40)


def rows(names: list[str | None]) -> list[RowKey]:
    """Two files, the first with two thirds of the rows."""
    cut = 2 * len(names) // 3
    return [RowKey("x.json", n, name) for n, name in enumerate(names[:cut])] + [
        RowKey("y.json", n, name) for n, name in enumerate(names[cut:])
    ]


@settings(deadline=None)
@given(NAMES)
def test_sample_ids_are_unique_although_native_ids_repeat(names: list[str | None]) -> None:
    census = build_row_index("s", rows(names), None)
    assert len({census.get_sample_id(n) for n in range(len(census))}) == len(census) == len(names)
    for n, row in enumerate(rows(names)):
        assert census.find_index(row.file, row.position) == n
        assert census.matches_key(n, compute_row_key(*row))


@settings(deadline=None)
@given(NAMES, st.text(min_size=1, max_size=3))
def test_row_with_a_native_id_keeps_its_sample_id_when_others_move(names: list[str | None], own: str) -> None:
    unique = [n for n in names if n is not None and n != own]
    before = build_row_index("s", rows([*unique, own]), None)
    after = build_row_index("s", rows([own, *reversed(unique)]), None)
    assert before.get_sample_id(len(unique)) == after.get_sample_id(0)


def test_repeated_native_ids_are_numbered_by_occurrence() -> None:
    once = build_row_index("s", [RowKey("x", 0, "a")], None)
    twice = build_row_index("s", [RowKey("x", 0, "a"), RowKey("x", 1, "b"), RowKey("x", 2, "a")], None)
    assert twice.get_sample_id(0) == once.get_sample_id(0) != twice.get_sample_id(2)


def test_sample_ids_differ_between_sources_and_between_ids_and_positions() -> None:
    row = [RowKey("x", 0, "a")]
    assert build_row_index("s", row, None).get_sample_id(0) != build_row_index("t", row, None).get_sample_id(0)
    assert compute_row_key("x", 0, None) != compute_row_key("x", 0, '["x",0]')


@settings(deadline=None)
@given(NAMES, st.integers(0, 45), st.integers(0, 45))
def test_a_larger_limit_contains_a_smaller_one(names: list[str | None], one: int, other: int) -> None:
    small, large = sorted((one, other))
    chosen = []
    for limit in (small, large):
        census = build_row_index("s", rows(names), limit)
        chosen.append({n for n in range(len(census)) if census.is_selected(n)})
        assert len(chosen[-1]) == min(limit, len(names))
    assert chosen[0] <= chosen[1]


def test_find_index_of_an_unknown_row_is_none() -> None:
    census = build_row_index("s", [RowKey("x", 0, "a"), RowKey("y", 0, "b")], None)
    assert census.find_index("x", 1) is None
    assert census.find_index("z", 0) is None
