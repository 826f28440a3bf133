"""The partition map knows which fragments hold a partition's rows, also of a table that was made anew."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from lance.fragment import FragmentMetadata

from mvl_assets.lake.lake import Lake
from tests.lake.rows import pages


def test_a_table_made_anew_under_the_same_name_is_read_anew(lake: Lake) -> None:
    table = lake.get_table("category/ocr")
    for source in "ab":
        table.publish([pages(source, "x", range(3))], source)
    assert (table.count(partition_key="a"), table.list_partitions()) == (3, ["a", "b"])
    shutil.rmtree(Path(table.uri))
    other = Lake(lake.root).get_table("category/ocr")
    for source, n_rows in (("b", 4), ("c", 5), ("d", 6)):
        other.publish([pages(source, "x", range(n_rows))], source)
    assert [table.count(partition_key=source) for source in "abcd"] == [0, 4, 5, 6]
    assert table.list_partitions() == ["b", "c", "d"]


def test_a_partition_is_found_without_asking_for_the_files_of_every_fragment(
    lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = lake.get_table("category/ocr")
    for number in range(20):
        table.publish([pages(f"s{number}", "x", range(2))], f"s{number}")
    assert table.count(partition_key="s1") == 2
    from_json = FragmentMetadata.__init__
    n_read = 0

    def count_read(self: FragmentMetadata, *args: object, **kwargs: object) -> None:
        nonlocal n_read
        n_read += 1
        from_json(self, *args, **kwargs)

    monkeypatch.setattr(FragmentMetadata, "__init__", count_read)
    assert table.count(partition_key="s2") == 2
    assert n_read == 1
