"""A table of an older schema version is upgraded when it is opened."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import lance
import pyarrow as pa
import pytest

from mvl_assets.common.digest import compute_row_hashes
from mvl_assets.lake.errors import DiskError, SchemaMismatch
from mvl_assets.lake.lake import Lake
from mvl_assets.lake.schemas.data_tables import JUDGED
from mvl_assets.lake.schemas.upgrade import read_schema_version, upgrade

ADDED = [name for names in JUDGED.added_columns for name in names]


def of_version_one(lake: Lake, rows: int = 3) -> list[dict[str, object]]:
    """`judged/chart` as it was before there were panels."""
    columns = [name for name in JUDGED.columns.names if name not in ADDED]
    schema = pa.schema(
        [JUDGED.schema.field(n) for n in [*columns, "key_scheme", "row_hash"]], {b"mvl:schema_version": b"1"}
    )
    listed = [
        {"judged_id": f"{n:032x}", "source": "drawn", "keep": True, "p_yes": 0.5, "key_scheme": 1} for n in range(rows)
    ]
    table = pa.Table.from_pylist(listed, schema=schema)
    hashes = compute_row_hashes(table, [n for n in [*columns, "key_scheme"] if n != "run_id"])
    table = table.set_column(table.schema.get_field_index("row_hash"), "row_hash", pa.array(hashes, pa.string()))
    lance.write_dataset(table, f"{lake.root}/judged/chart.lance", schema=schema)
    return table.to_pylist()


def test_reading_an_older_table_adds_its_columns_and_keeps_its_rows(lake: Lake):
    before = of_version_one(lake)
    rows = list(lake.get_table("judged/chart").iter_rows())
    assert [{k: v for k, v in row.items() if k not in ADDED} for row in rows] == before
    assert {row[name] for row in rows for name in ADDED} == {None}
    schema = lance.dataset(lake.get_table("judged/chart").uri).schema
    assert read_schema_version(schema) == JUDGED.schema_version > 1
    assert schema.field("judged_id").metadata == JUDGED.schema.field("judged_id").metadata
    version = lake.get_table("judged/chart").version
    assert Lake(lake.root).get_table("judged/chart").version == version


def test_an_upgraded_table_takes_rows_and_publishes_partitions(lake: Lake):
    of_version_one(lake)
    new = [{"judged_id": f"{n:032x}", "source": "drawn", "panel": [{"all_yes": n == 9}]} for n in (1, 9)]
    done = lake.get_table("judged/chart").publish([pa.Table.from_pylist(new, schema=JUDGED.columns)], "drawn")
    assert (done.n_rows, done.n_added, done.n_removed) == (2, 1, 2)
    rows = Lake(lake.root).get_table("judged/chart").iter_rows()
    result = {row["judged_id"]: row["panel"][0]["all_yes"] for row in rows}
    assert result == {f"{1:032x}": False, f"{9:032x}": True}


def test_a_killed_upgrade_is_continued(lake: Lake):
    of_version_one(lake)
    lance.dataset(f"{lake.root}/judged/chart.lance").add_columns([JUDGED.schema.field(name) for name in ADDED])
    assert [row["panel"] for row in lake.get_table("judged/chart").iter_rows()] == [None] * 3


def test_two_readers_can_upgrade_a_table_at_once(lake: Lake):
    of_version_one(lake)
    late = lance.dataset(f"{lake.root}/judged/chart.lance")
    assert lake.get_table("judged/chart").count() == 3
    assert upgrade(late, JUDGED)
    assert Lake(lake.root).get_table("judged/chart").count() == 3


def test_a_table_that_lacks_original_columns_is_refused(lake: Lake):
    schema = pa.schema([JUDGED.schema.field(n) for n in ("judged_id", "source", "row_hash")])
    lance.write_dataset(
        schema.empty_table(),
        f"{lake.root}/judged/chart.lance",
        schema=schema.with_metadata({b"mvl:schema_version": b"1"}),
    )
    with pytest.raises(SchemaMismatch, match="schema version"):
        lake.get_table("judged/chart").open()


def test_an_older_table_on_a_read_only_disk_is_reported(lake: Lake, monkeypatch: pytest.MonkeyPatch):
    of_version_one(lake)

    def refuse(*_: object) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(lance.LanceDataset, "add_columns", refuse)
    with pytest.raises(DiskError, match="read-only"):
        lake.get_table("judged/chart").open()


def test_many_readers_can_upgrade_a_table_at_the_same_moment(tmp_path: Path):
    with ThreadPoolExecutor(6) as readers:
        for number in range(10):
            lake = Lake(str(tmp_path / str(number)))
            of_version_one(lake)
            together = Barrier(6)

            def count(root: str = lake.root, together: Barrier = together) -> int:
                together.wait()
                return Lake(root).get_table("judged/chart").count()

            assert [done.result() for done in [readers.submit(count) for _ in range(6)]] == [3] * 6
