"""Copies of a row that several writers of a partition have stored."""

from __future__ import annotations

from mvl_assets.common.digest import compute_digest
from mvl_assets.lake.images import build_image_table
from mvl_assets.lake.lake import Lake
from mvl_assets.lake.repeated_keys import delete_repeated_keys
from mvl_assets.lake.schemas.rows import ImageRow


def append_images(lake: Lake, source: str, *contents: bytes) -> None:
    rows = [ImageRow(compute_digest(data), data, "PNG", 1, 1, 1, "RGB", None) for data in contents]
    table = lake.images.table
    table.append_fragments([table.write_fragments([build_image_table(rows, source)], source)])


def test_the_first_row_of_each_key_of_the_partition_stays(lake: Lake) -> None:
    append_images(lake, "a", b"1", b"2")
    append_images(lake, "b", b"1", b"2")
    append_images(lake, "a", b"2", b"3", b"1", b"4")
    append_images(lake, "a", b"3", b"4")
    images = lake.get_images("a")
    deleted = delete_repeated_keys(images.table, images.index, "a")
    assert sorted(deleted) == sorted(compute_digest(data) for data in (b"1", b"2", b"3", b"4"))
    assert sorted(r["image_id"] for r in images.table.iter_rows(["image_id"], partition_key="a")) == sorted(
        compute_digest(data) for data in (b"1", b"2", b"3", b"4")
    )
    assert images.table.count(partition_key="b") == 2
    ids = {compute_digest(data): data for data in (b"1", b"2", b"3", b"4")}
    assert images.read_images(ids) == ids
    version = images.table.version
    assert delete_repeated_keys(images.table, images.index, "a") == [] and images.table.version == version


def test_a_table_that_does_not_exist_has_no_repeated_keys(lake: Lake) -> None:
    images = lake.get_images("a")
    assert delete_repeated_keys(images.table, images.index, "a") == []
