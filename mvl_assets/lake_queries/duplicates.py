"""Which of the samples that say the same, exactly or nearly, is kept.

Samples with equal fingerprints are one content. Contents are compared with each other in `near_duplicates`; here those
pairs that pass the rules decide which contents are dropped, each in favour of one that is itself kept and that it was
compared with. What is kept does not pass its likeness on: of a row of neighbours, every second one stays.

A content's decision depends on the contents that pairs link it with, directly or over others, and on nothing else. So
after a change those that are linked with a changed content are decided again, and all others stay as they are.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import astuple, dataclass

import numpy as np
import pyarrow as pa

from mvl_assets.common.id_array import format_ids
from mvl_assets.lake import sql
from mvl_assets.lake.durability.spill import BATCH_ROWS as STREAM_ROWS
from mvl_assets.lake.lake import Lake
from mvl_assets.lake_queries.connected_contents import find_connected
from mvl_assets.lake_queries.duplicates_basis import SourceFigures
from mvl_assets.lake_queries.sample_comparison import SampleComparison

BATCH_ROWS = 4096
_PAIR_IDS = ("fingerprint", "other_fingerprint")
_PAIR_COLUMNS = (
    *_PAIR_IDS,
    "n_images",
    "correlation",
    "block_difference",
    "lost_edges",
    "text_overlap",
    "text_containment",
)


@dataclass(frozen=True, slots=True)
class PairThresholds:
    """When two contents are duplicates; see `DuplicateRules`."""

    min_correlation: float
    max_block_difference: float
    max_lost_edges: float
    min_text_overlap: float
    min_text_only_overlap: float
    min_text_containment: float

    def build_condition(self) -> str:
        """Return the condition for pairs that pass, for Lance's scanner."""
        correlation, block_difference, lost_edges, overlap, text_only_overlap, containment = map(
            sql.format_literal, astuple(self)
        )
        return (
            f"text_containment >= {containment}"
            f" AND ((n_images > 0 AND text_overlap >= {overlap})"
            f" OR (n_images = 0 AND text_overlap >= {text_only_overlap}))"
            f" AND (correlation IS NULL OR (correlation >= {correlation}"
            f" AND block_difference <= {block_difference} AND lost_edges <= {lost_edges}))"
        )


class KeptSelection:
    """Decides which contents of a comparison are dropped, and in favour of which.

    Creates the tables `touched`, the contents that are decided (not where all are), `pairs`, `members`, the samples
    among which there may be duplicates, `contents`, and `near`, the contents that are dropped.
    """

    def __init__(self, comparison: SampleComparison, thresholds: PairThresholds | None) -> None:
        self._comparison = comparison
        self._thresholds = thresholds
        self.con = comparison.con

    def select_kept(self) -> None:
        """Decide; without thresholds no content of different words is dropped."""
        con = self.con
        self._load_pairs()
        is_decided = "" if self._comparison.is_whole else "fingerprint IN (SELECT fingerprint FROM touched) AND"
        con.execute(
            f"""CREATE TABLE members AS SELECT fingerprint, sample_id, rank FROM rows
               WHERE {is_decided} (
                  fingerprint IN (SELECT fingerprint FROM rows GROUP BY fingerprint HAVING count(*) > 1)
                  OR fingerprint IN (SELECT fingerprint FROM pairs UNION SELECT other_fingerprint FROM pairs))"""  # noqa: S608
        )
        self._order_members()
        # Whether the later content went in favour of the earlier one before.
        priorities = con.execute(
            """SELECT a.priority, b.priority, c.fingerprint IS NOT NULL, p.rowid FROM pairs p
               JOIN contents a ON a.fingerprint = p.fingerprint
               JOIN contents b ON b.fingerprint = p.other_fingerprint
               LEFT JOIN (SELECT DISTINCT m.fingerprint, d.canonical_sample_id
                          FROM previous d JOIN members m USING (sample_id)) c
                 ON c.fingerprint = if(a.priority > b.priority, a.fingerprint, b.fingerprint)
                    AND c.canonical_sample_id = if(a.priority > b.priority, b.sample_id, a.sample_id)"""
        ).fetchnumpy()
        dropped, kept, pair_rows = choose_representatives(*(np.asarray(column) for column in priorities.values()))
        con.register("decisions", pa.table({"priority": dropped, "kept_priority": kept, "pair_row": pair_rows}))
        con.execute(
            """CREATE TABLE near AS SELECT d.fingerprint, k.fingerprint AS kept_fingerprint, n.pair_row
               FROM decisions n JOIN contents d ON d.priority = n.priority
               JOIN contents k ON k.priority = n.kept_priority"""
        )

    def list_touched(self) -> pa.Array:
        """Return the contents that were decided, where not all were."""
        return self._comparison.list_ids("SELECT fingerprint FROM touched")

    def iter_duplicates(self) -> Iterator[pa.Table]:
        """Yield the rows of `curation/duplicates` of the decided contents but for their run, by sample id."""
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

    def compute_figures(self) -> dict[str, SourceFigures]:
        """Return the figures of the sources that have samples, before `curation/duplicates` is written."""
        row_counts = self._comparison.count_rows()
        other_questions = self._count_other_questions()
        return {source: SourceFigures(n, other_questions.get(source, 0)) for source, n in row_counts.items() if n}

    # -- pairs -----------------------------------------------------------------------------------------------------

    def _load_pairs(self) -> None:
        """Create `pairs`, those between contents that are decided, and `touched`."""
        con, comparison = self.con, self._comparison
        con.execute(
            """CREATE TABLE pairs (fingerprint UUID, other_fingerprint UUID, n_images INTEGER, correlation DOUBLE,
                 block_difference DOUBLE, lost_edges DOUBLE, text_overlap DOUBLE, text_containment DOUBLE)"""
        )
        if not comparison.is_whole:
            comparison.load_contents(self._load_touched())
        if self._thresholds is None:
            return
        with comparison.stream_related(
            "stored_pairs",
            "curation/sample_pairs",
            _PAIR_COLUMNS,
            _PAIR_IDS,
            "SELECT fingerprint FROM touched",
            filter=self._thresholds.build_condition(),
        ):
            con.execute(
                """INSERT INTO pairs SELECT * REPLACE (fingerprint::UUID AS fingerprint,
                                                       other_fingerprint::UUID AS other_fingerprint)
                   FROM stored_pairs"""
            )
        con.execute(
            """DELETE FROM pairs WHERE fingerprint NOT IN (SELECT fingerprint FROM rows)
                                    OR other_fingerprint NOT IN (SELECT fingerprint FROM rows)"""
        )

    def _load_touched(self) -> pa.Array:
        touched = self._comparison.list_ids("SELECT fingerprint FROM changed_contents")
        if self._thresholds is not None:
            table = self._comparison.lake.get_table("curation/sample_pairs")
            batches = table.scan(_PAIR_IDS, self._thresholds.build_condition(), STREAM_ROWS)
            schema = pa.schema([table.schema.field(name) for name in _PAIR_IDS])
            touched = find_connected(pa.Table.from_batches(batches, schema), touched)
        self.con.register("connected", pa.table({"fingerprint": touched}))
        self.con.execute("CREATE TABLE touched AS SELECT fingerprint::UUID AS fingerprint FROM connected")
        self.con.unregister("connected")
        return touched

    # -- order -----------------------------------------------------------------------------------------------------

    def _order_members(self) -> None:
        """Create `contents`: of each content the sample that is kept first, and its priority among all contents.

        What may be used comes first; then what was kept before, or stood for its content before and was not dropped;
        what was rewritten, and so paid for; the source's rank.
        """
        con, comparison = self.con, self._comparison
        members = "SELECT sample_id FROM members"
        columns = ["sample_id", "canonical_sample_id"]
        with comparison.stream_related("previous_rows", "curation/duplicates", columns, columns, members):
            con.execute(
                """CREATE TABLE previous AS
                   SELECT sample_id::UUID AS sample_id, canonical_sample_id::UUID AS canonical_sample_id
                   FROM previous_rows"""
            )
        con.execute(
            """CREATE TABLE decided AS SELECT DISTINCT unnest([sample_id, canonical_sample_id]) AS sample_id,
                      unnest([false, true]) AS is_kept FROM previous"""
        )
        with comparison.stream_related("compared_before", "curation/compared", ["sample_id"], ["sample_id"], members):
            con.execute(
                """CREATE TABLE kept AS
                   SELECT sample_id FROM decided WHERE is_kept
                   UNION SELECT m.sample_id FROM compared_before c JOIN members m ON m.sample_id = c.sample_id::UUID
                   WHERE m.sample_id NOT IN (SELECT sample_id FROM decided WHERE NOT is_kept)"""
            )
        con.execute("CREATE TABLE paid (sample_id UUID)")
        query = "SELECT DISTINCT category FROM members JOIN sources USING (rank)"
        for (category,) in con.execute(query).fetchall():
            with comparison.stream_related(
                "rewritten", f"rewritten/{category}", ["sample_id", "source"], ["sample_id"], members
            ):
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

    # -- figures ---------------------------------------------------------------------------------------------------

    def _count_other_questions(self) -> dict[str, int]:
        """Return by source how many samples are not dropped and show the images of another with other words."""
        basis = self._comparison.basis
        if basis is None:
            return self._count_shared_images("rows", "near")
        self.con.execute(
            """CREATE TABLE affected_images AS
               SELECT first_image FROM rows_before JOIN touched USING (fingerprint) WHERE n_images > 0
               UNION SELECT first_image FROM rows JOIN touched USING (fingerprint) WHERE n_images > 0"""
        )
        self._comparison.load_images("SELECT first_image FROM affected_images")
        columns = ["fingerprint", "rule"]
        affected = "SELECT fingerprint FROM {} SEMI JOIN affected_images USING (first_image)"
        query = f"{affected.format('rows')} UNION {affected.format('rows_before')}"
        with self._comparison.stream_related(
            "stored", "curation/duplicates", columns, ["fingerprint"], query, filter="rule <> 'exact'"
        ):
            self.con.execute("CREATE TABLE near_before AS SELECT DISTINCT fingerprint::UUID AS fingerprint FROM stored")
        now = self._count_shared_images(
            "(SELECT * FROM rows SEMI JOIN affected_images USING (first_image))",
            "(SELECT fingerprint FROM near UNION SELECT fingerprint FROM near_before ANTI JOIN touched"
            " USING (fingerprint))",
        )
        before = self._count_shared_images(
            "(SELECT * FROM rows_before SEMI JOIN affected_images USING (first_image))", "near_before"
        )
        sources = {*now, *before, *basis.figures}
        stored = {source: figures.n_other_question for source, figures in basis.figures.items()}
        return {s: stored.get(s, 0) + now.get(s, 0) - before.get(s, 0) for s in sources}

    def _count_shared_images(self, rows: str, dropped: str) -> dict[str, int]:
        query = f"""
            WITH shared AS (SELECT first_image, n_images FROM {rows} WHERE n_images > 0 GROUP BY ALL
                            HAVING count(DISTINCT fingerprint) > 1)
            SELECT s.source, count(*) FROM {rows} r JOIN shared USING (first_image, n_images)
            JOIN sources s USING (rank)
            WHERE r.fingerprint NOT IN (SELECT fingerprint FROM {dropped}) GROUP BY s.source"""  # noqa: S608
        return dict(self.con.execute(query).fetchall())


def count_removed_samples(lake: Lake) -> Counter[tuple[str, bool]]:
    """Count the duplicates by source and whether they are exact ones."""
    counts: Counter[tuple[str, bool]] = Counter()
    for batch in lake.get_table("curation/duplicates").scan(["source", "rule"], batch_size=STREAM_ROWS):
        grouped = pa.Table.from_batches([batch]).group_by(["source", "rule"]).aggregate([([], "count_all")])
        for row in grouped.to_pylist():
            counts[row["source"], row["rule"] == "exact"] += row["count_all"]
    return counts


def choose_representatives(
    priorities: np.ndarray, other_priorities: np.ndarray, was_chosen: np.ndarray, pair_rows: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return which contents are dropped, in favour of which, and by which pair.

    In the order of their priorities, each content is dropped if it is paired with an earlier one that is kept: in
    favour of the one it went for before, else of the earliest. Nothing is dropped in favour of what it was not compared
    with.

    Args:
        priorities: Priority of one content of each pair; the smallest is kept first.
        other_priorities: Priority of the other.
        was_chosen: Whether the later one was dropped in favour of the earlier one before.
        pair_rows: The pairs.
    """
    earlier, later = np.minimum(priorities, other_priorities), np.maximum(priorities, other_priorities)
    order = np.lexsort((earlier, ~was_chosen.astype(bool), later))
    is_dropped: set[int] = set()
    chosen = []
    for position, priority, kept_priority in zip(order, later[order].tolist(), earlier[order].tolist(), strict=True):
        if priority not in is_dropped and kept_priority not in is_dropped:
            is_dropped.add(priority)
            chosen.append(position)
    chosen_positions = np.array(chosen, dtype=np.intp)
    return later[chosen_positions], earlier[chosen_positions], pair_rows[chosen_positions]
