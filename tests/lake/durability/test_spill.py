"""The temporary database for sorting and grouping: all rows are in it, and it is gone afterwards."""

from __future__ import annotations

import random
from pathlib import Path

import pyarrow as pa
import pytest

from mvl_assets.lake.durability.spill import iter_arrow_batches, spill_to_duckdb

SCHEMA = pa.schema([("name", pa.string()), ("size", pa.int64())])


@pytest.fixture
def temp_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MVL_SCRATCH", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize("n_rows", [0, 1, 6, 7, 8])
def test_rows_become_batches_of_at_most_the_size_asked_for(n_rows: int) -> None:
    rows = [{"name": f"n{n}", "size": n} for n in range(n_rows)]
    batches = list(iter_arrow_batches(iter(rows), SCHEMA, 3))
    assert [row for batch in batches for row in batch.to_pylist()] == rows
    assert all(0 < len(batch) <= 3 and batch.schema == SCHEMA for batch in batches)


def test_all_rows_can_be_sorted_and_grouped(temp_dir: Path) -> None:
    rows = [{"name": f"n{n % 7}", "size": n} for n in range(1000)]
    random.Random(1).shuffle(rows)
    tables = list(iter_arrow_batches(rows, SCHEMA, 64))
    batches: list[pa.Table | pa.RecordBatch] = [*tables[:5], *(b for t in tables[5:] for b in t.to_batches())]
    with spill_to_duckdb(iter(batches), SCHEMA) as con:
        assert con.execute("SELECT size FROM rows ORDER BY size").fetchall() == [(n,) for n in range(1000)]
        totals = con.execute("SELECT name, count(*) FROM rows GROUP BY name ORDER BY name").fetchall()
        assert totals == [(f"n{k}", 143 if k < 6 else 142) for k in range(7)]


def test_a_spill_without_rows_is_an_empty_table(temp_dir: Path) -> None:
    with spill_to_duckdb((), SCHEMA) as con:
        assert con.execute("SELECT count(*) FROM rows").fetchone() == (0,)


def test_the_database_is_removed_also_after_an_error(temp_dir: Path) -> None:
    with pytest.raises(ValueError, match="wrong"), spill_to_duckdb((), SCHEMA):
        assert any(temp_dir.iterdir())
        raise ValueError("wrong")
    assert not any(temp_dir.iterdir())


def test_an_error_of_the_stream_passes_through_and_leaves_nothing(temp_dir: Path) -> None:
    def fail():
        yield SCHEMA.empty_table()
        raise KeyError("missing")

    with pytest.raises(KeyError), spill_to_duckdb(fail(), SCHEMA):
        pass
    assert not any(temp_dir.iterdir())
