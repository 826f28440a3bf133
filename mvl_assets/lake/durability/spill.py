"""A temporary DuckDB database on disk, for joins, sorts and groups of more rows than memory holds."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pyarrow as pa

from mvl_assets.common.batches import keep_producer_errors
from mvl_assets.lake.durability.scratch import create_scratch_dir
from mvl_assets.lake.errors import to_disk_error

if TYPE_CHECKING:
    import duckdb
    import lance

    from mvl_assets.lake.table_reader import TableReader

MEMORY_LIMIT = "800MB"
MAX_THREADS = 4
"""DuckDB's own memory; what does not fit goes to the scratch folder. Each thread needs a share of it."""

BATCH_ROWS = 65_536


@contextmanager
def open_duckdb() -> Iterator[duckdb.DuckDBPyConnection]:
    """Yield a connection to an empty database in a scratch folder, within `MEMORY_LIMIT` whatever the rows.

    Ids are best kept as `UUID`, in 16 bytes each; `common.id_array.format_ids` makes results of them. Joins are made as
    written, so that a stream can stay on the left: of the right side memory holds all.

    Raises:
        DiskError: The disk of the scratch folder is full.
    """
    import duckdb  # takes as long to import as a small source to ingest

    config: dict[str, str | bool | int | float | list[str]] = {
        "memory_limit": MEMORY_LIMIT,
        "threads": min(MAX_THREADS, os.cpu_count() or 1),
        # Otherwise every query would hold its rows back until it knows their order.
        "preserve_insertion_order": False,
        "arrow_lossless_conversion": True,
        # DuckDB does not know how many rows a stream has, and would take it for the smaller side of a join.
        "disabled_optimizers": "join_order,build_side_probe_side",
    }
    with create_scratch_dir("duckdb") as folder:
        try:
            with duckdb.connect(f"{folder}/rows.duckdb", config=config | {"temp_directory": f"{folder}/spill"}) as con:
                con.execute("SET enable_progress_bar = false")
                yield con
        except duckdb.Error as error:
            if (translated := to_disk_error(error, str(folder))) is not None:
                raise translated from error
            raise


@contextmanager
def stream_batches(
    con: duckdb.DuckDBPyConnection, view: str, batches: Iterable[pa.RecordBatch], schema: pa.Schema
) -> Iterator[None]:
    """Offer batches as a view that one query can read, once, batch by batch. Errors of the stream pass through."""
    with keep_producer_errors(batches) as guarded:
        con.register(view, pa.RecordBatchReader.from_batches(schema, guarded))
        try:
            yield
        finally:
            con.unregister(view)


@contextmanager
def stream_table(
    con: duckdb.DuckDBPyConnection,
    view: str,
    table: TableReader,
    columns: Sequence[str],
    filter: str | None = None,
    partition_key: str | None = None,
    fragments: Sequence[lance.LanceFragment] | None = None,
) -> Iterator[None]:
    """Offer columns of a table's rows as a view that one query can read, once. A missing table has no rows.

    Args:
        con: The database.
        view: Name of the view.
        table: The table.
        columns: Columns to read.
        filter: SQL condition, evaluated inside Lance's scanner.
        partition_key: Read this partition only; None for the whole table.
        fragments: Read these fragments only, rather than those of a partition.
    """
    schema = pa.schema([table.schema.field(name) for name in columns])
    batches = table.scan(columns, filter, BATCH_ROWS, partition_key=partition_key, fragments=fragments)
    with stream_batches(con, view, batches, schema):
        yield
