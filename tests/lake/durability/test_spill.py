"""The temporary database: bounded, gone afterwards, and transparent for errors of the streams that it reads."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest

from mvl_assets.common.digest import compute_digest
from mvl_assets.common.id_array import format_ids
from mvl_assets.lake.durability.spill import open_duckdb, stream_batches, stream_table
from mvl_assets.lake.lake import Lake
from tests.lake.rows import put_category

SCHEMA = pa.schema([("name", pa.string()), ("size", pa.int64())])


@pytest.fixture
def temp_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MVL_SCRATCH", str(tmp_path))
    return tmp_path


def iter_batches() -> Iterator[pa.RecordBatch]:
    for start in range(0, 1000, 64):
        sizes = range(start, min(1000, start + 64))
        yield pa.RecordBatch.from_pylist([{"name": f"n{n % 7}", "size": n} for n in sizes], schema=SCHEMA)


def test_all_rows_of_a_stream_can_be_sorted_and_grouped(temp_dir: Path) -> None:
    with open_duckdb() as con:
        with stream_batches(con, "stream", iter_batches(), SCHEMA):
            con.execute("CREATE TABLE rows AS SELECT * FROM stream")
        assert con.execute("SELECT size FROM rows ORDER BY size").fetchall() == [(n,) for n in range(1000)]
        totals = con.execute("SELECT name, count(*) FROM rows GROUP BY name ORDER BY name").fetchall()
        assert totals == [(f"n{k}", 143 if k < 6 else 142) for k in range(7)]


def test_memory_is_limited_and_the_rest_goes_to_the_scratch_folder(temp_dir: Path) -> None:
    with open_duckdb() as con:
        settings = con.execute("SELECT current_setting('memory_limit'), current_setting('temp_directory')").fetchall()
        ((memory_limit, folder),) = settings
        assert memory_limit == "762.9 MiB"
        assert temp_dir in Path(folder).parents


def test_the_database_is_removed_also_after_an_error(temp_dir: Path) -> None:
    with pytest.raises(ValueError, match="wrong"), open_duckdb():
        assert any(temp_dir.iterdir())
        raise ValueError("wrong")
    assert not any(temp_dir.iterdir())


def test_an_error_of_the_stream_passes_through_and_leaves_nothing(temp_dir: Path) -> None:
    def fail() -> Iterator[pa.RecordBatch]:
        yield from iter_batches()
        raise KeyError("missing")

    with (
        pytest.raises(KeyError, match="missing"),
        open_duckdb() as con,
        stream_batches(con, "stream", fail(), SCHEMA),
    ):
        con.execute("CREATE TABLE rows AS SELECT * FROM stream")
    assert not any(temp_dir.iterdir())


def test_ids_of_a_table_go_through_the_database_in_sixteen_bytes(lake: Lake) -> None:
    put_category(lake, "ocr", "a", 5)
    put_category(lake, "ocr", "b", 3)
    table = lake.get_table("category/ocr")
    with open_duckdb() as con:
        with stream_table(con, "samples", table, ["sample_id", "source"], partition_key="b"):
            con.execute("CREATE TABLE ids AS SELECT sample_id::UUID AS sample_id, NULL::UUID AS other FROM samples")
        result = format_ids(con.sql("SELECT * FROM ids ORDER BY sample_id").to_arrow_table().to_batches()[0])
        with stream_table(con, "samples", lake.get_table("category/chart"), ["sample_id"]):
            assert con.execute("SELECT count(*) FROM samples").fetchall() == [(0,)]
    assert result["sample_id"].to_pylist() == sorted(compute_digest("b", n) for n in range(3))
    assert result["other"].to_pylist() == [None] * 3
    assert (
        format_ids(pa.RecordBatch.from_pydict({"id": pa.array([b"\x00" * 15 + b"\xab"] * 3, pa.uuid())}).slice(1))[
            "id"
        ].to_pylist()
        == ["00" * 15 + "ab"] * 2
    )
