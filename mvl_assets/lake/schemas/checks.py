"""Checks of a table, or of one partition, against its schema. Dagster runs them as blocking asset checks."""

from __future__ import annotations

from dataclasses import dataclass

import duckdb
import pyarrow as pa

from mvl_assets.common.digest import compute_row_hashes
from mvl_assets.lake.schemas.tables import ROW_HASH_COLUMN
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
    """Count duplicate keys and missing row hashes, and recompute the hash of the first `HASH_SAMPLE_SIZE` rows.

    Opening the table has already compared its columns and the protection of its key with the schema.
    """
    if not table.exists():
        return TableCheckResult(0, [f"{table.uri} does not exist"])
    spec = table.spec
    condition = table.build_partition_filter(partition_key)
    columns = [spec.key_column, ROW_HASH_COLUMN] if spec.has_row_hash else [spec.key_column]
    keys = pa.Table.from_batches(
        table.scan(columns, condition, 65536), pa.schema([table.schema.field(c) for c in columns])
    )
    problems = []
    with duckdb.connect() as con:
        con.register("keys", keys)
        n_duplicates_row = con.execute(f"SELECT count(*) - count(DISTINCT {spec.key_column}) FROM keys").fetchone()  # noqa: S608
    if n_duplicates_row and n_duplicates_row[0]:
        problems.append(f"{n_duplicates_row[0]} rows share a key")
    if spec.has_row_hash:
        if keys.column(ROW_HASH_COLUMN).null_count:
            problems.append(f"{keys.column('row_hash').null_count} rows have no row hash")
        problems.extend(_check_row_hashes(table, condition))
    return TableCheckResult(len(keys), problems)


def _check_row_hashes(table: TableReader, condition: str | None) -> list[str]:
    for batch in table.scan(None, condition, HASH_SAMPLE_SIZE):
        computed_hashes = compute_row_hashes(batch, table.spec.content_columns)
        n_wrong = sum(a != b for a, b in zip(computed_hashes, batch.column(ROW_HASH_COLUMN).to_pylist(), strict=True))
        return [f"{n_wrong} of {len(batch)} rows do not match their row hash"] if n_wrong else []
    return []
