"""How two mixtures differ: shares by category, source and kind, and rows that only one of them has."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import pyarrow as pa

from mvl_assets.lake.durability.spill import open_duckdb, stream_batches, stream_table

if TYPE_CHECKING:
    import duckdb

    from mvl_assets.lake.table_reader import TableReader

Side = Literal["before", "after"]
_STORED_COLUMNS = ("category", "source", "kind", "version_id", "rewrite_id", "repeat_index")


@dataclass(frozen=True, slots=True)
class PartDifference:
    """The rows of one category, source and kind in two mixtures, A and B.

    Attributes:
        category: The category.
        source: The source.
        kind: original or rewritten.
        n_before: Rows in A.
        n_after: Rows in B.
        gained: Rows of B that A has not.
        lost: Rows of A that B has not.
    """

    category: str
    source: str
    kind: str
    n_before: int
    n_after: int
    gained: int
    lost: int


class MixtureComparison:
    """Two mixtures in one temporary database; a row is what it shows: a version of a sample, or one rewrite of it."""

    def __init__(self, connection: duckdb.DuckDBPyConnection) -> None:
        self._con = connection

    def load_planned(self, side: Side, rows: pa.RecordBatchReader) -> None:
        """Take the rows of `CandidatePool.read_selected` as one side."""
        with stream_batches(self._con, "rows", rows, rows.schema):
            self._create_side(side, "content_id")

    def load_stored(self, side: Side, table: TableReader) -> None:
        """Take the rows of a mixture's table as one side."""
        with stream_table(self._con, "rows", table, _STORED_COLUMNS):
            self._create_side(side, "coalesce(rewrite_id, version_id)")

    def _create_side(self, side: str, content_id: str) -> None:
        self._con.execute(
            f"""CREATE TABLE {side} AS
                SELECT category, source, kind, ({content_id})::UUID AS content_id, repeat_index FROM rows"""  # noqa: S608 - of ours
        )

    def compute_differences(self) -> list[PartDifference]:
        """Return the counts of every category, source and kind that one of both has, in this order."""
        rows = self._con.execute(
            """SELECT coalesce(a.category, b.category) AS category, coalesce(a.source, b.source) AS source,
                      coalesce(a.kind, b.kind) AS kind, count(a.kind), count(b.kind),
                      count(*) FILTER (a.kind IS NULL), count(*) FILTER (b.kind IS NULL)
               FROM before a FULL JOIN after b
                 ON a.content_id = b.content_id AND a.kind = b.kind AND a.repeat_index = b.repeat_index
                AND a.category = b.category AND a.source = b.source
               GROUP BY 1, 2, 3 ORDER BY 1, 2, 3"""
        ).fetchall()
        return [PartDifference(*row) for row in rows]


@contextmanager
def open_comparison() -> Iterator[MixtureComparison]:
    """Open an empty comparison."""
    with open_duckdb() as con:
        yield MixtureComparison(con)
