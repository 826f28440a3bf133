"""Is a table, or one partition of it, what its schema promises? The answers become Dagster's blocking checks."""

from __future__ import annotations

from dataclasses import dataclass

import duckdb
import pyarrow as pa

from mvl_assets.common.digest import row_hashes
from mvl_assets.lake import sql
from mvl_assets.lake.table import Table

SAMPLE = 200


@dataclass(frozen=True, slots=True)
class Finding:
    """`problems` is empty for a sound table; each entry is one sentence."""

    rows: int
    problems: list[str]

    @property
    def sound(self) -> bool:
        return not self.problems


def check_table(table: Table, where: str | None = None) -> Finding:
    """Counts duplicate keys and missing row hashes, and re-computes the hash of the first `SAMPLE` rows.

    Opening the table has already compared its columns and its key's protection with the schema.
    """
    if not table.exists():
        return Finding(0, [f"{table.uri} does not exist"])
    spec = table.spec
    condition = None if where is None else sql.equals(spec.partition or "", where)
    columns = [spec.key, "row_hash"] if spec.hashed else [spec.key]
    keys = pa.Table.from_batches(
        table.scan(columns, condition, 65536), pa.schema([table.schema.field(c) for c in columns])
    )
    problems = []
    with duckdb.connect() as con:
        con.register("keys", keys)
        found = con.execute(f"SELECT count(*) - count(DISTINCT {spec.key}) FROM keys").fetchone()  # noqa: S608
    if found and found[0]:
        problems.append(f"{found[0]} rows share a key")
    if spec.hashed:
        if keys.column("row_hash").null_count:
            problems.append(f"{keys.column('row_hash').null_count} rows have no row hash")
        problems.extend(_wrong_hashes(table, condition))
    return Finding(len(keys), problems)


def _wrong_hashes(table: Table, condition: str | None) -> list[str]:
    for batch in table.scan(None, condition, SAMPLE):
        expected = row_hashes(batch, table.spec.content_columns)
        wrong = sum(a != b for a, b in zip(expected, batch.column("row_hash").to_pylist(), strict=True))
        return [f"{wrong} of {len(batch)} rows do not match their row hash"] if wrong else []
    return []
