"""Counting the rows that a publish added, changed and removed, by key and row hash."""

from __future__ import annotations

from mvl_assets.lake.schemas.tables import ROW_HASH_COLUMN
from mvl_assets.lake.table_reader import TableReader


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
    from mvl_assets.lake.durability.spill import open_duckdb  # takes as long to import as a small source to ingest

    key = before.spec.key_column
    columns = [key, ROW_HASH_COLUMN]
    with open_duckdb() as con:
        con.register("old_rows", before.to_reader(columns, None, partition_key))
        con.register("new_rows", after.to_reader(columns, None, partition_key))
        counts_row = con.execute(
            f"""SELECT count(*) FILTER (o.{key} IS NULL),
                       count(*) FILTER (o.row_hash <> n.row_hash),
                       count(*) FILTER (n.{key} IS NULL)
                FROM new_rows n FULL JOIN old_rows o ON n.{key} = o.{key}"""  # noqa: S608 - names of our specs
        ).fetchone()
    assert counts_row is not None
    return int(counts_row[0]), int(counts_row[1]), int(counts_row[2])
