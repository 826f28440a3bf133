"""Candidate pool of a mixture, and seeded selection of the first n rows of each category, source, kind and stratum."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mvl_assets.common.digest import compute_id_digests
from mvl_assets.common.id_array import format_ids
from mvl_assets.errors import MvlError
from mvl_assets.lake_queries.mixtures.row_filter import Clause

if TYPE_CHECKING:
    import duckdb

BATCH_ROWS = 4096

DIFFERENCE_BATCH_ROWS = 65_536

# The candidates of the quotas, each with its repetition.
_SELECTED = """FROM pool p JOIN bounds b
               ON b.category = p.category AND b.source = p.source AND b.kind = p.kind AND b.stratum = p.stratum
              AND p.rank BETWEEN b.first_rank AND b.last_rank"""

NO_STRATUM = ""
"""The stratum of rows without a value."""

MAX_STRATA = 10_000


class Cell(NamedTuple):
    """The rows among which a mixture chooses by nothing but their order: of a category, source, kind and stratum."""

    category: str
    source: str
    kind: str
    stratum: str = NO_STRATUM


@dataclass(frozen=True, slots=True)
class Quota:
    """A part of a mixture: `n_rows` rows of one cell, from `start` of their seeded order.

    Attributes:
        cell: The cell.
        start: First position in the seeded order.
        n_rows: Number of rows.
        repeat_index: 0, or the number of the repetition if rows are repeated.
    """

    cell: Cell
    start: int
    n_rows: int
    repeat_index: int = 0


@dataclass(frozen=True, slots=True)
class KeptRewrites:
    """The kept rewrites of one category: how many can be taken, and why the others cannot.

    Attributes:
        kept: Rewrites that the keep rule keeps.
        outdated: Those of an older version of their sample, or of one that is in the category no more.
        held_out: Those of samples that are held out for evaluation.
        excluded: Those of samples that a table of `exclusion_tables` lists.
        unlicensed: Those whose licences do not permit the use.
        filtered: Those that the filter refuses.
        available: The rest.
    """

    category: str
    kept: int
    outdated: int
    held_out: int
    excluded: int
    unlicensed: int
    filtered: int
    available: int


@dataclass(frozen=True, slots=True)
class ClauseCount:
    """What one clause of the filter does to the rows of a category that could be taken otherwise.

    Attributes:
        category: The category.
        clause: The clause.
        refused: Rows for which it is false.
        refused_alone: Those of them that no other clause refuses.
        unknown: Rows for which a score is null, so that it is neither true nor false; they stay.
        rows: All rows it was asked of.
    """

    category: str
    clause: str
    refused: int
    refused_alone: int
    unknown: int
    rows: int


@dataclass(frozen=True, slots=True)
class UnlicensedRows:
    """Rows of a source that are refused for what their licences say.

    Attributes:
        category: The category.
        source: The source.
        license: What it declares; null if nothing is known.
        rewriter: The model that wrote the rows, where its terms forbid the use; null for those of the source.
        rows: How many.
    """

    category: str
    source: str
    license: str | None
    rewriter: str | None
    rows: int


class CandidatePool:
    """All candidates of a mixture, in a database on disk: the view `pool`, in no order."""

    def __init__(self, connection: duckdb.DuckDBPyConnection, seed: int, clauses: Sequence[Clause] = ()) -> None:
        self._con = connection
        self._seed = seed
        self._clauses = clauses

    def count_candidates(self) -> dict[Cell, int]:
        """Return the number of candidates in each cell.

        Raises:
            MvlError: The strata's column has too many values.
        """
        (n_strata,) = self._con.execute("SELECT approx_count_distinct(stratum) FROM pool").fetchone() or (0,)
        if n_strata > 2 * MAX_STRATA:
            raise MvlError(
                f"mixture: strata: about {n_strata:,} values, and {MAX_STRATA:,} strata at most",
                hint="take a column with fewer values, or give edges",
            )
        count_rows = self._con.execute(
            "SELECT category, source, kind, stratum, count(*) FROM pool GROUP BY ALL"
        ).fetchall()
        return {Cell(*cell): count for *cell, count in count_rows}

    def count_kept_rewrites(self) -> list[KeptRewrites]:
        """Return, for each category with kept rewrites, how many of them are candidates."""
        rows = self._con.execute(
            """SELECT k.category, any_value(k.kept),
                      count(*) FILTER (p.left_out = 'held_out'), count(*) FILTER (p.left_out = 'excluded'),
                      count(*) FILTER (p.left_out = 'unlicensed'), count(*) FILTER (p.left_out = 'filtered'),
                      count(p.category) FILTER (p.left_out IS NULL)
               FROM kept_counts k LEFT JOIN all_candidates p ON p.category = k.category AND p.kind = 'rewritten'
               WHERE k.kept > 0 GROUP BY k.category ORDER BY k.category"""
        ).fetchall()
        return [KeptRewrites(category, kept, kept - sum(counts), *counts) for category, kept, *counts in rows]

    def count_clauses(self) -> list[ClauseCount]:
        """Return by category what each clause of the filter does."""
        return [
            ClauseCount(category, clause.text, *counts)
            for nth, clause in enumerate(self._clauses)
            for category, *counts in self._con.execute(
                """SELECT category, count(*) FILTER (failed & $bit <> 0), count(*) FILTER (failed = $bit),
                          count(*) FILTER (undecided & $bit <> 0), count(*)
                   FROM all_candidates WHERE left_out IS NULL OR left_out = 'filtered'
                   GROUP BY category ORDER BY category""",
                {"bit": 1 << nth},
            ).fetchall()
        ]

    def count_unlicensed(self) -> list[UnlicensedRows]:
        """Return the rows that are refused for their licences, by source and licence."""
        rows = self._con.execute(
            """SELECT c.category, c.source, c.license, if(u.is_permitted, c.rewriter, NULL) AS blamed, count(*)
               FROM all_candidates c LEFT JOIN licenses u ON u.license = coalesce(c.license, '')
               WHERE c.left_out = 'unlicensed' GROUP BY ALL ORDER BY ALL"""
        ).fetchall()
        return [UnlicensedRows(*row) for row in rows]

    def iter_selected(self, quotas: Sequence[Quota], stage: str) -> Iterator[pa.Table]:
        """Yield the rows of the quotas with `row_id`, `repeat_index` and `position`, shuffled by the seed."""
        self._create_bounds(quotas)
        reader = self._con.sql(
            f"""SELECT p.* EXCLUDE (rank, stratum, rewriter, failed, undecided), w.license AS output_license,
                       b.repeat_index {_SELECTED} LEFT JOIN rewriters w ON w.rewriter = p.rewriter
                ORDER BY md5(concat_ws('/', $seed, $stage, p.rank, b.repeat_index))::UUID""",
            params={"seed": str(self._seed), "stage": stage},
        ).to_arrow_reader(BATCH_ROWS)
        n_before = 0
        for batch in reader:
            rows = format_ids(batch)
            positions = pa.array(np.arange(n_before, n_before + len(rows)), pa.int64())
            yield rows.append_column("position", positions).append_column("row_id", _compute_row_ids(rows, stage))
            n_before += len(rows)

    def read_selected(self, quotas: Sequence[Quota]) -> pa.RecordBatchReader:
        """Return what identifies the rows of the quotas: category, source, kind, content_id and repeat_index."""
        self._create_bounds(quotas)
        return self._con.sql(
            f"""SELECT p.category, p.source, p.kind, coalesce(p.rewrite_id, p.version_id)::VARCHAR AS content_id,
                       b.repeat_index {_SELECTED}"""
        ).to_arrow_reader(DIFFERENCE_BATCH_ROWS)

    def digest_selected(self, quotas: Sequence[Quota]) -> str:
        """Return a digest of the rows of the quotas, in any order: equal rows have an equal digest."""
        self._create_bounds(quotas)
        content = "concat_ws('/', p.category, p.kind, coalesce(p.rewrite_id, p.version_id), b.repeat_index)"
        digest = self._con.execute(
            f"SELECT count(*), bit_xor(content), sum(content) FROM (SELECT hash({content}) AS content {_SELECTED})"  # noqa: S608 - of ours
        ).fetchone()
        return "/".join(map(str, digest or ()))

    def _create_bounds(self, quotas: Sequence[Quota]) -> None:
        """Create the table `bounds`: where each quota begins and ends, so that only ranks are sorted for it."""
        self._con.execute(
            """CREATE OR REPLACE TABLE quotas (cell INTEGER, category VARCHAR, source VARCHAR, kind VARCHAR,
               stratum VARCHAR, start BIGINT, n_rows BIGINT, repeat_index INTEGER)"""
        )
        filled_quotas = [quota for quota in quotas if quota.n_rows]
        numbers = {cell: number for number, cell in enumerate(dict.fromkeys(quota.cell for quota in filled_quotas))}
        if filled_quotas:
            rows = [{"cell": numbers[q.cell], **q.cell._asdict(), **_describe_extent(q)} for q in filled_quotas]
            self._con.register("quota_rows", pa.Table.from_pylist(rows))
            self._con.execute("INSERT INTO quotas BY NAME SELECT * FROM quota_rows")
            self._con.unregister("quota_rows")
        self._con.execute(
            """CREATE OR REPLACE TABLE bounds AS
               SELECT q.category, q.source, q.kind, q.stratum, q.repeat_index,
                      min(r.rank) AS first_rank, max(r.rank) AS last_rank
               FROM (SELECT cell, rank, row_number() OVER (PARTITION BY cell ORDER BY rank) - 1 AS nth
                     FROM (SELECT c.cell, p.rank
                           FROM pool p JOIN (SELECT DISTINCT cell, category, source, kind, stratum FROM quotas) c
                             USING (category, source, kind, stratum))) r
               JOIN quotas q ON q.cell = r.cell AND (r.nth = q.start OR r.nth = q.start + q.n_rows - 1)
               GROUP BY ALL"""
        )


def _describe_extent(quota: Quota) -> dict[str, int]:
    return {"start": quota.start, "n_rows": quota.n_rows, "repeat_index": quota.repeat_index}


def _compute_row_ids(rows: pa.Table, stage: str) -> pa.Array:
    contents = pc.coalesce(rows["rewrite_id"], rows["version_id"]).to_numpy()
    row_ids = np.empty(len(rows), dtype=object)
    for group in rows.select(["kind", "repeat_index"]).group_by(["kind", "repeat_index"]).aggregate([]).to_pylist():
        kind, repeat_index = group["kind"], group["repeat_index"]
        is_member = pc.and_(pc.equal(rows["kind"], kind), pc.equal(rows["repeat_index"], repeat_index)).to_numpy()
        row_ids[is_member] = compute_id_digests([stage, kind], contents[is_member], [repeat_index])
    return pa.array(row_ids, pa.string())
