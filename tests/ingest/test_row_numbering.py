"""Ids of rows: stable, unique, and the limit's choice grows by adding."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mvl_assets.common.digest import compute_digest
from mvl_assets.ingest import row_numbering
from mvl_assets.ingest.row_numbering import RowNumbering, compute_row_key, select_rows
from mvl_assets.readers.format import RowKey

NAMES = st.lists(st.one_of(st.none(), st.sampled_from(["a", "b", "c"]), st.text(max_size=3)), max_size=40)


def rows(names: list[str | None]) -> list[RowKey]:
    """Two files, the first with two thirds of the rows."""
    cut = 2 * len(names) // 3
    return [RowKey("x.json", n, name) for n, name in enumerate(names[:cut])] + [
        RowKey("y.json", n, name) for n, name in enumerate(names[cut:])
    ]


def assign(names: list[str | None], source: str = "s") -> list[str]:
    return RowNumbering(source).generate_ids(rows(names))


@settings(deadline=None)
@given(NAMES)
def test_sample_ids_are_unique_although_native_ids_repeat(names: list[str | None]) -> None:
    assert len(set(assign(names))) == len(names)


@settings(deadline=None)
@given(NAMES, st.text(min_size=1, max_size=3))
def test_row_with_a_native_id_keeps_its_sample_id_when_others_move(names: list[str | None], own: str) -> None:
    unique = [n for n in names if n is not None and n != own]
    assert assign([*unique, own])[-1] == assign([own, *reversed(unique)])[0]


def test_repeated_native_ids_are_numbered_by_occurrence() -> None:
    (once,) = assign(["a"])
    twice = assign(["a", "b", "a"])
    assert twice[0] == once != twice[2]


def test_sample_ids_differ_between_sources_and_between_ids_and_positions() -> None:
    assert assign(["a"], "s") != assign(["a"], "t")
    assert compute_row_key("x", 0, None) != compute_row_key("x", 0, '["x",0]')


@pytest.mark.parametrize("recent_keys", [1, 7, 65_536])
def test_sample_ids_are_the_digest_of_source_key_and_occurrence_in_batches_of_any_size(
    monkeypatch: pytest.MonkeyPatch, recent_keys: int
) -> None:
    monkeypatch.setattr(row_numbering, "RECENT_KEYS", recent_keys)
    names = random.Random(0).choices(["a", "b", "c", None, *"defghijklm"], k=200)
    numbering = RowNumbering("s")
    ids, seen, start = [], [], 0
    for size in (1, 2, 50, 0, 147):
        ids += numbering.generate_ids(rows(names)[start : start + size])
        start += size
    expected = []
    for row in rows(names):
        key = compute_row_key(*row)
        expected.append(compute_digest(b"s", key, seen.count(key).to_bytes(8, "little")))
        seen.append(key)
    assert ids == expected and numbering.n_rows == 200


@settings(deadline=None)
@given(NAMES, st.integers(0, 45), st.integers(0, 45))
def test_a_larger_limit_contains_a_smaller_one(names: list[str | None], one: int, other: int) -> None:
    chosen = []
    for limit in sorted((one, other)):
        selection = select_rows("s", rows(names), limit)
        chosen.append({n for n, sample_id in enumerate(assign(names)) if selection.contains(sample_id)})
        assert len(chosen[-1]) == selection.n_rows == min(limit, len(names))
    assert chosen[0] <= chosen[1]


def test_a_selection_from_several_batches_is_that_of_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    names: list[str | None] = [f"n{n}" for n in range(50)]
    whole = select_rows("s", rows(names), 5)
    monkeypatch.setattr(row_numbering, "SELECTION_ROWS", 3)
    assert select_rows("s", rows(names), 5) == whole


def test_rows_of_a_file_must_come_together_and_in_order() -> None:
    for places in ([("x", 1)], [("x", 0), ("y", 0), ("x", 1)], [("x", 0), ("x", 0)]):
        with pytest.raises(AssertionError, match="contiguous"):
            RowNumbering("s").generate_ids([RowKey(file, position, None) for file, position in places])
