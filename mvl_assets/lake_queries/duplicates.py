"""Choice of the canonical row among duplicates: by keep priority, then by rank."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import pyarrow as pa

from mvl_assets.lake.durability.spill import spill_to_duckdb
from mvl_assets.lake.lake import Lake
from mvl_assets.lake.sql import equals

FINGERPRINT_SCHEMA = pa.schema(
    [
        ("fingerprint", pa.string()),
        ("sample_id", pa.string()),
        ("source", pa.string()),
        ("category", pa.string()),
        # The lowest is kept. Rank of the source: group C last, then the order of the catalog.
        ("rank", pa.int32()),
        # The lowest is kept, compared before the rank: 0 was canonical before, 1 was paid for, 2 neither.
        ("keep_priority", pa.int32()),
    ]
)


def iter_duplicates(batches: Iterable[pa.Table]) -> Iterator[pa.RecordBatch]:
    """Yield all rows of each fingerprint but the canonical one, with `canonical_sample_id` and `canonical_source`."""
    with spill_to_duckdb(batches, FINGERPRINT_SCHEMA) as con:
        yield from con.sql(
            """SELECT sample_id, source, category, fingerprint, canonical_sample_id, canonical_source FROM (
                 SELECT *, row_number() OVER w AS nth,
                        first_value(sample_id) OVER w AS canonical_sample_id,
                        first_value(source) OVER w AS canonical_source
                 FROM rows
                 WINDOW w AS (PARTITION BY fingerprint ORDER BY keep_priority, rank, sample_id))
               WHERE nth > 1 ORDER BY sample_id"""
        ).to_arrow_reader(4096)


def read_rewritten_ids(lake: Lake, category: str, source: str) -> set[str]:
    """Return the ids of a source's samples that have rewrites."""
    rows = lake.get_table(f"rewritten/{category}").iter_rows(["sample_id"], equals("source", source))
    return {row["sample_id"] for row in rows}
