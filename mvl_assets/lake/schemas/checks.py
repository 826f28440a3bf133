"""Checks of a table, or of one partition, against its schema. Dagster runs them as blocking asset checks."""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow.compute as pc

from mvl_assets.common.digest import compute_row_hashes
from mvl_assets.lake.durability.spill import open_duckdb, stream_table
from mvl_assets.lake.schemas.table_spec import ROW_HASH_COLUMN
from mvl_assets.lake.table_reader import TableReader

HASH_SAMPLE_SIZE = 200


@dataclass(frozen=True, slots=True)
class TableCheckResult:
    """Result of `check_table`: each of `problems` is one sentence."""

    n_rows: int
    problems: list[str]

    @property
    def ok(self) -> bool:
        """Whether there are no problems."""
        return not self.problems


def check_table(table: TableReader, partition_key: str | None = None) -> TableCheckResult:
    """Count duplicate keys and missing row hashes, and recompute the digests of the first `HASH_SAMPLE_SIZE` rows.

    Opening the table has already compared its columns and the protection of its key with the schema.
    """
    if not table.exists():
        return TableCheckResult(0, [f"{table.uri} does not exist"])
    spec = table.spec
    columns = [spec.key_column, ROW_HASH_COLUMN] if spec.has_row_hash else [spec.key_column]
    n_unhashed = f"count(*) FILTER ({ROW_HASH_COLUMN} IS NULL)" if spec.has_row_hash else "0"
    with open_duckdb() as con, stream_table(con, "rows", table, columns, None, partition_key):
        ((n_rows, n_keys, n_missing_hashes),) = con.execute(
            f"""SELECT coalesce(sum(n_rows), 0)::BIGINT, count(*), coalesce(sum(n_unhashed), 0)::BIGINT FROM (
                  SELECT count(*) AS n_rows, {n_unhashed} AS n_unhashed FROM rows GROUP BY {spec.key_column}::UUID)"""  # noqa: S608 - names of our specs
        ).fetchall()
    problems = []
    if n_rows > n_keys:
        problems.append(f"{n_rows - n_keys} rows share a key")
    if n_missing_hashes:
        problems.append(f"{n_missing_hashes} rows have no row hash")
    if spec.has_row_hash:
        problems.extend(_check_digests(table, partition_key))
    return TableCheckResult(n_rows, problems)


def _check_digests(table: TableReader, partition_key: str | None) -> list[str]:
    spec = table.spec
    for batch in table.scan(None, None, HASH_SAMPLE_SIZE, partition_key=partition_key):
        columns_by_digest = {**spec.digested_columns, ROW_HASH_COLUMN: spec.content_columns}
        n_wrong_by_digest = {
            name: len(batch) - (pc.sum(pc.equal(compute_row_hashes(batch, columns), batch.column(name))).as_py() or 0)
            for name, columns in columns_by_digest.items()
        }
        return [
            f"{n_wrong} of {len(batch)} rows do not match their {name.replace('_', ' ')}"
            for name, n_wrong in n_wrong_by_digest.items()
            if n_wrong
        ]
    return []
