"""Samples with equal fingerprints, and which of them is kept."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import astuple, dataclass
from typing import TYPE_CHECKING

import pyarrow as pa

from mvl_assets.common.id_array import format_ids
from mvl_assets.lake.durability.spill import open_duckdb, stream_table
from mvl_assets.lake.lake import Lake
from mvl_assets.lake_queries.current_samples import stream_current_samples

if TYPE_CHECKING:
    import duckdb

BATCH_ROWS = 4096


@dataclass(frozen=True, slots=True)
class ComparedSource:
    """A source whose samples are compared.

    Attributes:
        source: Its slug.
        category: Its category.
        is_used: Whether a mixture may take its samples; one that is used is kept rather than one that is not.
        rank: Of equal samples from sources that are used alike, that of the lowest rank is kept.
    """

    source: str
    category: str
    is_used: bool
    rank: int


class DuplicateSearch:
    """The samples of a database that share their fingerprint with another; `n_compared` counts all."""

    def __init__(self, connection: duckdb.DuckDBPyConnection, n_compared: int) -> None:
        self.n_compared = n_compared
        self._con = connection

    def iter_duplicates(self) -> Iterator[pa.Table]:
        """Yield the rows of each fingerprint but the one that is kept, with `canonical_sample_id` and its source."""
        reader = self._con.sql(
            """SELECT sample_id, source, category, fingerprint, canonical_sample_id, canonical_source FROM (
                 SELECT c.sample_id, c.source, c.category, c.fingerprint, row_number() OVER w AS nth,
                        first_value(c.sample_id) OVER w AS canonical_sample_id,
                        first_value(c.source) OVER w AS canonical_source
                 FROM copies c LEFT JOIN kept k USING (sample_id) LEFT JOIN paid p USING (sample_id)
                 WINDOW w AS (
                   PARTITION BY c.fingerprint
                   ORDER BY c.is_used DESC, k.sample_id IS NULL, p.sample_id IS NULL, c.rank, c.sample_id))
               WHERE nth > 1 ORDER BY sample_id"""
        ).to_arrow_reader(BATCH_ROWS)
        yield from map(format_ids, reader)


@contextmanager
def compare_samples(lake: Lake, sources: Sequence[ComparedSource]) -> Iterator[DuplicateSearch]:
    """Read the fingerprints of the current samples of all sources, and what decides which of equal ones is kept.

    After whether it is used, that is: whether it was kept before; whether it was rewritten, and so paid for; its rank.
    """
    with open_duckdb() as con:
        con.execute("CREATE TABLE sources (source VARCHAR, category VARCHAR, is_used BOOLEAN, rank INTEGER)")
        con.executemany("INSERT INTO sources VALUES (?, ?, ?, ?)", [astuple(source) for source in sources])
        with stream_current_samples(con, lake, ["source", "sample_id", "fingerprint"]):
            con.execute(
                """CREATE TABLE fingerprints AS
                   SELECT c.fingerprint::UUID AS fingerprint, c.sample_id::UUID AS sample_id, s.rank
                   FROM current_samples c JOIN sources s USING (source)"""
            )
        con.execute(
            """CREATE TABLE copies AS
               SELECT f.fingerprint, f.sample_id, s.*
               FROM fingerprints f JOIN sources s USING (rank)
               WHERE f.fingerprint IN (SELECT fingerprint FROM fingerprints GROUP BY fingerprint HAVING count(*) > 1)"""
        )
        with stream_table(con, "previous", lake.get_table("curation/duplicates"), ["canonical_sample_id"]):
            con.execute("CREATE TABLE kept AS SELECT DISTINCT canonical_sample_id::UUID AS sample_id FROM previous")
        con.execute("CREATE TABLE paid (sample_id UUID)")
        for category in {source.category for source in sources}:
            with stream_table(con, "rewritten", lake.get_table(f"rewritten/{category}"), ["sample_id", "source"]):
                con.execute(
                    """INSERT INTO paid SELECT DISTINCT c.sample_id
                       FROM rewritten r JOIN copies c ON c.sample_id = r.sample_id::UUID AND c.source = r.source
                       WHERE c.category = ?""",
                    [category],
                )
        ((n_compared,),) = con.execute("SELECT count(*) FROM fingerprints").fetchall()
        yield DuplicateSearch(con, n_compared)
