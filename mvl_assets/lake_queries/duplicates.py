"""Current samples that say the same, exactly or nearly, and which of them is kept.

Samples with equal fingerprints are one content. Contents are compared with each other in `near_duplicates`; here those
pairs that pass the rules decide which contents are dropped, each in favour of one that is itself kept and that it was
compared with. What is kept does not pass its likeness on: of a row of neighbours, every second one stays.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import astuple, dataclass
from typing import TYPE_CHECKING

import numpy as np
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


@dataclass(frozen=True, slots=True)
class PairThresholds:
    """When two contents are duplicates; see `DuplicateRules`."""

    min_correlation: float
    max_block_difference: float
    max_lost_edges: float
    min_text_overlap: float
    min_text_only_overlap: float
    min_text_containment: float


class SampleComparison:
    """The current samples of a lake in a database: the tables `sources` and `rows` (one per sample)."""

    def __init__(self, connection: duckdb.DuckDBPyConnection, lake: Lake, categories: Sequence[str]) -> None:
        self.con = connection
        self.lake = lake
        self._categories = categories

    def count_rows(self) -> dict[str, int]:
        """Return the number of samples by source."""
        query = "SELECT s.source, count(*) FROM rows r JOIN sources s USING (rank) GROUP BY s.source"
        return dict(self.con.execute(query).fetchall())

    def select_kept(self, thresholds: PairThresholds | None) -> None:
        """Decide which contents are dropped, and in favour of which; without thresholds none of different words is.

        Args:
            thresholds: Which of the stored pairs are duplicates.
        """
        con = self.con
        con.execute(
            """CREATE TABLE pairs (fingerprint UUID, other_fingerprint UUID, n_images INTEGER, correlation DOUBLE,
                 block_difference DOUBLE, lost_edges DOUBLE, text_overlap DOUBLE, text_containment DOUBLE)"""
        )
        if thresholds is not None:
            self._load_pairs(thresholds)
        con.execute(
            """CREATE TABLE members AS SELECT fingerprint, sample_id, rank FROM rows
               WHERE fingerprint IN (SELECT fingerprint FROM rows GROUP BY fingerprint HAVING count(*) > 1)
                  OR fingerprint IN (SELECT fingerprint FROM pairs UNION SELECT other_fingerprint FROM pairs)"""
        )
        self._order_members()
        priorities = con.execute(
            """SELECT a.priority, b.priority, p.rowid FROM pairs p
               JOIN contents a ON a.fingerprint = p.fingerprint
               JOIN contents b ON b.fingerprint = p.other_fingerprint"""
        ).fetchnumpy()
        dropped, kept, pair_rows = choose_representatives(*(np.asarray(column) for column in priorities.values()))
        con.register("decisions", pa.table({"priority": dropped, "kept_priority": kept, "pair_row": pair_rows}))
        con.execute(
            """CREATE TABLE near AS SELECT d.fingerprint, k.fingerprint AS kept_fingerprint, n.pair_row
               FROM decisions n JOIN contents d ON d.priority = n.priority
               JOIN contents k ON k.priority = n.kept_priority"""
        )

    def iter_duplicates(self) -> Iterator[pa.Table]:
        """Yield the rows of `curation/duplicates` but for their run, by sample id."""
        reader = self.con.sql(
            """SELECT m.sample_id, s.source, s.category, m.fingerprint, k.sample_id AS canonical_sample_id,
                      t.source AS canonical_source,
                      CASE WHEN n.fingerprint IS NULL THEN 'exact'
                           WHEN p.correlation IS NULL THEN 'similar_text'
                           WHEN p.text_overlap = 1 AND p.text_containment = 1 THEN 'copied_images'
                           ELSE 'copied_images_similar_text' END AS rule,
                      p.correlation, p.block_difference, p.lost_edges, p.text_overlap, p.text_containment
               FROM members m JOIN sources s USING (rank)
               LEFT JOIN near n ON n.fingerprint = m.fingerprint
               LEFT JOIN pairs p ON p.rowid = n.pair_row
               JOIN contents k ON k.fingerprint = coalesce(n.kept_fingerprint, m.fingerprint)
               JOIN sources t ON t.rank = k.rank
               WHERE m.sample_id <> k.sample_id ORDER BY m.sample_id"""
        ).to_arrow_reader(BATCH_ROWS)
        yield from map(format_ids, reader)

    def count_other_questions(self) -> dict[str, int]:
        """Return by source how many samples are not dropped and show the images of another with other words."""
        query = """
            WITH shared AS (SELECT first_image, n_images FROM rows WHERE n_images > 0 GROUP BY ALL
                            HAVING count(DISTINCT fingerprint) > 1)
            SELECT s.source, count(*) FROM rows r JOIN shared USING (first_image, n_images) JOIN sources s USING (rank)
            WHERE r.fingerprint NOT IN (SELECT fingerprint FROM near) GROUP BY s.source"""
        return dict(self.con.execute(query).fetchall())

    def _load_pairs(self, thresholds: PairThresholds) -> None:
        columns = "fingerprint other_fingerprint n_images correlation block_difference lost_edges text_overlap"
        with stream_table(
            self.con,
            "stored_pairs",
            self.lake.get_table("curation/sample_pairs"),
            [*columns.split(), "text_containment"],
        ):
            self.con.execute(
                """INSERT INTO pairs SELECT * REPLACE (fingerprint::UUID AS fingerprint,
                                                       other_fingerprint::UUID AS other_fingerprint)
                   FROM stored_pairs
                   WHERE text_containment >= $min_text_containment
                     AND text_overlap >= if(n_images > 0, $min_text_overlap, $min_text_only_overlap)
                     AND (correlation IS NULL OR (correlation >= $min_correlation
                          AND block_difference <= $max_block_difference AND lost_edges <= $max_lost_edges))""",
                dict(zip(PairThresholds.__slots__, astuple(thresholds), strict=True)),
            )
        self.con.execute(
            """DELETE FROM pairs WHERE fingerprint NOT IN (SELECT fingerprint FROM rows)
                                    OR other_fingerprint NOT IN (SELECT fingerprint FROM rows)"""
        )

    def _order_members(self) -> None:
        """Create `contents`: of each content the sample that is kept first, and its priority among all contents.

        What may be used comes first; then what was kept before, or stood for its content before and was not dropped;
        what was rewritten, and so paid for; the source's rank.
        """
        con, lake = self.con, self.lake
        with stream_table(con, "previous", lake.get_table("curation/duplicates"), ["sample_id", "canonical_sample_id"]):
            con.execute(
                """CREATE TABLE decided AS SELECT DISTINCT unnest([sample_id, canonical_sample_id])::UUID AS sample_id,
                          unnest([false, true]) AS is_kept FROM previous"""
            )
        with stream_table(con, "compared_before", lake.get_table("curation/compared"), ["sample_id"]):
            con.execute(
                """CREATE TABLE kept AS
                   SELECT sample_id FROM decided WHERE is_kept
                   UNION SELECT m.sample_id FROM compared_before c JOIN members m ON m.sample_id = c.sample_id::UUID
                   WHERE m.sample_id NOT IN (SELECT sample_id FROM decided WHERE NOT is_kept)"""
            )
        con.execute("CREATE TABLE paid (sample_id UUID)")
        for category in self._categories:
            with stream_table(con, "rewritten", lake.get_table(f"rewritten/{category}"), ["sample_id", "source"]):
                con.execute(
                    """INSERT INTO paid SELECT DISTINCT m.sample_id
                       FROM rewritten r JOIN members m ON m.sample_id = r.sample_id::UUID
                       JOIN sources s ON s.rank = m.rank AND s.source = r.source WHERE s.category = ?""",
                    [category],
                )
        con.execute(
            """CREATE TABLE contents AS
               SELECT fingerprint, arg_min(sample_id, priority) AS sample_id, arg_min(rank, priority) AS rank,
                      min(priority) AS priority
               FROM (SELECT m.*, row_number() OVER (ORDER BY s.is_used DESC, k.sample_id IS NULL, p.sample_id IS NULL,
                                                             m.rank, m.sample_id) AS priority
                     FROM members m JOIN sources s USING (rank)
                     LEFT JOIN kept k USING (sample_id) LEFT JOIN paid p USING (sample_id))
               GROUP BY fingerprint"""
        )


def choose_representatives(
    priorities: np.ndarray, other_priorities: np.ndarray, pair_rows: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return which contents are dropped, in favour of which, and by which pair.

    In the order of their priorities, each content is dropped if it is paired with an earlier one that is kept: in
    favour of the earliest. Nothing is dropped in favour of what it was not compared with.

    Args:
        priorities: Priority of one content of each pair; the smallest is kept first.
        other_priorities: Priority of the other.
        pair_rows: The pairs.
    """
    earlier, later = np.minimum(priorities, other_priorities), np.maximum(priorities, other_priorities)
    order = np.lexsort((earlier, later))
    is_dropped: set[int] = set()
    chosen = []
    for position, priority, kept_priority in zip(order, later[order].tolist(), earlier[order].tolist(), strict=True):
        if priority not in is_dropped and kept_priority not in is_dropped:
            is_dropped.add(priority)
            chosen.append(position)
    chosen_positions = np.array(chosen, dtype=np.intp)
    return later[chosen_positions], earlier[chosen_positions], pair_rows[chosen_positions]


@contextmanager
def open_comparison(lake: Lake, sources: Sequence[ComparedSource]) -> Iterator[SampleComparison]:
    """Read the fingerprints of the current samples of all sources into a database."""
    with open_duckdb() as con:
        con.execute("CREATE TABLE sources (source VARCHAR, category VARCHAR, is_used BOOLEAN, rank INTEGER)")
        con.executemany("INSERT INTO sources VALUES (?, ?, ?, ?)", [astuple(source) for source in sources])
        columns = ["source", "sample_id", "version_id", "fingerprint", "image_ids"]
        with stream_current_samples(con, lake, columns):
            con.execute(
                """CREATE TABLE rows AS
                   SELECT c.fingerprint::UUID AS fingerprint, c.sample_id::UUID AS sample_id,
                          c.version_id::UUID AS version_id, s.rank, len(c.image_ids)::INTEGER AS n_images,
                          c.image_ids[1]::UUID AS first_image
                   FROM current_samples c JOIN sources s USING (source)"""
            )
        yield SampleComparison(con, lake, sorted({source.category for source in sources}))
