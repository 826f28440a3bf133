"""Counting the rows that a publish added, changed and removed, by key and row hash."""

from __future__ import annotations

from mvl_assets.lake.durability.spill import open_duckdb, stream_table
from mvl_assets.lake.schemas.table_spec import ROW_HASH_COLUMN
from mvl_assets.lake.table_reader import TableReader

MAX_ROWS_IN_MEMORY = 10_000
"""Opening a database takes longer than comparing so many."""


def compute_row_difference(
    before: TableReader, after: TableReader, partition_key: str | None = None
) -> tuple[int, int, int]:
    """Return how many rows of a partition are new, have other content, and are gone.

    Args:
        before: Snapshot before the publish.
        after: Snapshot after it.
        partition_key: The partition; None compares whole tables.
    """
    n_before, n_after = before.count(None, partition_key), after.count(None, partition_key)
    if not n_before or not n_after:
        return n_after, 0, n_before
    key = before.spec.key_column
    columns = [key, ROW_HASH_COLUMN]
    if n_before + n_after <= MAX_ROWS_IN_MEMORY:
        old, new = (_read_hashes(reader, columns, partition_key) for reader in (before, after))
        n_changed = sum(old[common] != new[common] for common in old.keys() & new.keys())
        return len(new.keys() - old.keys()), n_changed, len(old.keys() - new.keys())
    with (
        open_duckdb() as con,
        stream_table(con, "old_rows", before, columns, None, partition_key),
        stream_table(con, "new_rows", after, columns, None, partition_key),
    ):
        ((n_added, n_changed, n_removed),) = con.execute(
            f"""SELECT count(*) FILTER (o.key IS NULL),
                       count(*) FILTER (o.row_hash <> n.row_hash),
                       count(*) FILTER (n.key IS NULL)
                FROM (SELECT {key}::UUID AS key, row_hash::UUID AS row_hash FROM new_rows) n
                FULL JOIN (SELECT {key}::UUID AS key, row_hash::UUID AS row_hash FROM old_rows) o USING (key)"""  # noqa: S608 - names of our specs
        ).fetchall()
    return n_added, n_changed, n_removed


def _read_hashes(reader: TableReader, columns: list[str], partition_key: str | None) -> dict[str, str]:
    batches = reader.scan(columns, None, MAX_ROWS_IN_MEMORY, partition_key=partition_key)
    return {
        key: row_hash
        for batch in batches
        for key, row_hash in zip(*(column.to_pylist() for column in batch.columns), strict=True)
    }
