"""Sorting and grouping more rows than memory holds, in a temporary DuckDB database on disk."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import duckdb
import pyarrow as pa

from mvl_assets.common.batches import iter_batches
from mvl_assets.lake.durability.scratch import create_scratch_dir
from mvl_assets.lake.errors import translate_disk_errors

MEMORY_LIMIT = "1GB"


@contextmanager
def open_duckdb() -> Iterator[duckdb.DuckDBPyConnection]:
    """Yield a connection without a file that spills to a scratch folder above `MEMORY_LIMIT`."""
    with create_scratch_dir("duckdb") as folder, duckdb.connect() as con:
        con.execute(f"SET memory_limit = '{MEMORY_LIMIT}'")
        con.execute(f"SET temp_directory = '{folder}/spill'")
        with translate_disk_errors(str(folder)):
            yield con


@contextmanager
def spill_to_duckdb(
    batches: Iterable[pa.RecordBatch | pa.Table], schema: pa.Schema
) -> Iterator[duckdb.DuckDBPyConnection]:
    """Yield a connection whose table `rows` holds all batches. Memory stays below 1 GB whatever their number."""
    with create_scratch_dir("spill") as folder, duckdb.connect(f"{folder}/rows.duckdb") as con:
        con.execute("SET memory_limit = '1GB'")
        con.execute(f"SET temp_directory = '{folder}/spill'")
        con.register("empty", schema.empty_table())
        con.execute("CREATE TABLE rows AS SELECT * FROM empty")
        with translate_disk_errors(str(folder)):
            for batch in batches:
                con.register("batch", pa.table(batch) if isinstance(batch, pa.RecordBatch) else batch)
                con.execute("INSERT INTO rows SELECT * FROM batch")
                con.unregister("batch")
        yield con


def iter_arrow_batches(rows: Iterable[dict], schema: pa.Schema, batch_size: int = 4096) -> Iterator[pa.Table]:
    """Yield dictionaries as Arrow tables of at most `batch_size` rows."""
    for batch in iter_batches(rows, batch_size):
        yield pa.Table.from_pylist(batch, schema=schema)
