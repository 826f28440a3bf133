"""The current version of every sample: the newest one, unless it is withdrawn.

Only samples with more than one version, and withdrawn ones, have to be looked at, usually few; all others have
revision 1 alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from mvl_assets.common.id_array import concatenate_ids, find_ids, pack_id_column
from mvl_assets.lake.durability.spill import BATCH_ROWS, stream_table
from mvl_assets.lake.lake import Lake

if TYPE_CHECKING:
    import duckdb
    import lance

HAS_VERSIONS = "(revision > 1 OR withdrawn)"


class CurrentSamples:
    """The current samples of a source. Memory holds 20 bytes for each sample with more than one version."""

    def __init__(self, lake: Lake, source: str) -> None:
        self._table = lake.get_table("samples")
        self._source = source
        columns = ["sample_id", "revision", "withdrawn"]
        batches = list(self._table.scan(columns, HAS_VERSIONS, BATCH_ROWS, partition_key=source))
        ids = concatenate_ids(pack_id_column(batch.column(0)) for batch in batches)
        revisions = np.concatenate([np.empty(0, np.int32), *(batch.column(1).to_numpy() for batch in batches)])
        is_withdrawn = [np.empty(0, bool), *(batch.column(2).to_numpy(zero_copy_only=False) for batch in batches)]
        order = np.lexsort((revisions, ids))
        order = order[np.append(ids[order][1:] != ids[order][:-1], True)] if len(order) else order
        self._ids = ids[order]
        # No version has revision 0: of a withdrawn sample none is current.
        self._revisions = np.where(np.concatenate(is_withdrawn)[order], 0, revisions[order])

    def scan(self, columns: Sequence[str], batch_size: int = BATCH_ROWS) -> Iterator[pa.RecordBatch]:
        """Yield columns of `samples`, in batches of at most `batch_size` rows."""
        if not len(self._ids):
            yield from self._table.scan(columns, None, batch_size, partition_key=self._source)
            return
        all_columns = list(dict.fromkeys([*columns, "sample_id", "revision"]))
        for batch in self._table.scan(all_columns, "NOT withdrawn", batch_size, partition_key=self._source):
            positions, has_versions = find_ids(self._ids, pack_id_column(batch.column("sample_id")))
            current_revisions = np.where(has_versions, self._revisions[positions], 1)
            is_current = pa.array(batch.column("revision").to_numpy() == current_revisions)
            yield batch.filter(is_current).select(list(columns))

    def count(self) -> int:
        """Count them, which reads nothing more where every sample has one version."""
        if not len(self._ids):
            return self._table.count(None, self._source)
        return sum(len(batch) for batch in self.scan(["sample_id"]))


def load_current_revisions(
    con: duckdb.DuckDBPyConnection, lake: Lake, fragments: Sequence[lance.LanceFragment] | None = None
) -> None:
    """Create `current_revisions`: the newest revision of each sample with more than one version, 0 if withdrawn."""
    columns = ["sample_id", "revision", "withdrawn"]
    with stream_table(con, "versions", lake.get_table("samples"), columns, HAS_VERSIONS, fragments=fragments):
        con.execute(
            """CREATE OR REPLACE TEMP TABLE current_revisions AS
               SELECT sample_id::UUID AS sample_id, if(arg_max(withdrawn, revision), 0, max(revision)) AS revision
               FROM versions GROUP BY ALL"""
        )


@contextmanager
def stream_current_samples(
    con: duckdb.DuckDBPyConnection,
    lake: Lake,
    columns: Sequence[str],
    filter: str | None = None,
    fragments: Sequence[lance.LanceFragment] | None = None,
) -> Iterator[None]:
    """Offer the current samples of all sources as the view `current_samples`, which one query can read, once.

    Args:
        con: A database of `open_duckdb`.
        lake: The lake.
        columns: Columns of `samples`.
        filter: SQL condition on rows of `samples`, evaluated inside Lance's scanner.
        fragments: Those to read, if no other one has a newer version of a sample; None for all.
    """
    table = lake.get_table("samples")
    load_current_revisions(con, lake, fragments)
    if not con.execute("SELECT 1 FROM current_revisions LIMIT 1").fetchall():
        with stream_table(con, "current_samples", table, columns, filter, fragments=fragments):
            yield
        return
    stream_columns = list(dict.fromkeys([*columns, "sample_id", "revision"]))
    condition = "NOT withdrawn" if filter is None else f"({filter}) AND NOT withdrawn"
    with stream_table(con, "all_samples", table, stream_columns, condition, fragments=fragments):
        con.execute(
            f"""CREATE OR REPLACE TEMP VIEW current_samples AS
                SELECT {", ".join(f"s.{name}" for name in columns)}
                FROM all_samples s LEFT JOIN current_revisions c ON c.sample_id = s.sample_id::UUID
                WHERE s.revision = coalesce(c.revision, 1)"""  # noqa: S608 - names of columns
        )
        yield
        con.execute("DROP VIEW current_samples")
