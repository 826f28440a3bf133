"""Gathering on disk says the same as a dictionary would, whatever fits into memory, and holds no more than it may."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mvl_assets.errors import InfrastructureError
from mvl_assets.readers.conversations import external_group_by as module
from mvl_assets.readers.conversations.external_group_by import group_by_external_sort

ROWS = st.lists(st.tuples(st.text(max_size=3), st.lists(st.none() | st.integers() | st.text(max_size=5), max_size=2)))


@settings(max_examples=60, deadline=None)
@given(rows=ROWS, run=st.sampled_from([1, 500, 1 << 20]))
def test_every_key_gets_its_values_in_their_order(rows: list[tuple[str, list[object]]], run: int) -> None:
    wanted: dict[str, list[object]] = {}
    for key, value in rows:
        wanted.setdefault(key, []).append(value)
    before, module.RUN_BYTES = module.RUN_BYTES, run
    try:
        result = [(key, list(values)) for key, values in group_by_external_sort(rows)]
    finally:
        module.RUN_BYTES = before
    assert result == sorted(wanted.items())


def peak(rows: int) -> int:
    """Bytes held at most while so many rows are gathered."""

    def numbered() -> Iterator[tuple[str, str]]:
        for number in range(rows):
            yield f"{number * 7919 % rows:08d}", "x" * 200

    tracemalloc.start()
    count = sum(1 for _ in group_by_external_sort(numbered()))
    held = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert count == rows
    return held


def test_memory_does_not_grow_with_the_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RUN_BYTES", 1 << 20)
    few, many = peak(5_000), peak(25_000)
    assert many < 1.5 * few < 25_000 * 200


def test_a_folder_that_cannot_be_written_is_an_error_with_a_way_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "RUN_BYTES", 1)
    (tmp_path / "file").touch()
    monkeypatch.setenv("MVL_SCRATCH", str(tmp_path / "file" / "below"))
    with pytest.raises(InfrastructureError, match="MVL_SCRATCH"):
        list(group_by_external_sort([("a", 1)]))


def test_an_error_of_the_source_stays_what_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    def rows() -> Iterator[tuple[str, int]]:
        yield "a", 1
        raise OSError("the source is gone")

    monkeypatch.setattr(module, "RUN_BYTES", 1)
    with pytest.raises(OSError, match="the source is gone"):
        list(group_by_external_sort(rows()))
