"""Candidate pool of a mixture, and seeded selection of the first n rows of each category, source, kind and stratum."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mvl_assets.common.benchmark_slugs import BENCHMARK_PREFIX
from mvl_assets.common.digest import compute_id_digests
from mvl_assets.common.id_array import format_ids
from mvl_assets.common.licenses import Use, permits
from mvl_assets.errors import MvlError
from mvl_assets.lake.durability.spill import open_duckdb, stream_table
from mvl_assets.lake.lake import Lake
from mvl_assets.lake.schemas.data_tables import CONTAMINATION
from mvl_assets.lake_queries.foreign_scores import create_score_tables
from mvl_assets.lake_queries.holdout import compute_holdout_limit
from mvl_assets.lake_queries.mixtures.row_filter import Clause, RowFilter
from mvl_assets.lake_queries.mixtures.score_columns import ScoreCatalog, ScoreSelection, select_scores

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

SourceGroups = Mapping[str, Mapping[str, str]]
"""Group (A or B) by category and source."""


@dataclass(frozen=True, slots=True)
class StratumColumn:
    """The column that strata are of.

    Attributes:
        table: Family of its tables: judged, rewritten or category.
        name: Its name.
        sql: The stratum of a row as an SQL expression over a column called `stratum_value`.
    """

    table: str
    name: str
    sql: str


@dataclass(frozen=True, slots=True)
class LicenseRules:
    """The use that the licences of rows have to permit: those of the source and the rewriter's terms of output.

    Attributes:
        use: The use.
        output_licenses: Terms by the name of a model; one that is not here has unknown terms.
    """

    use: Use = "all"
    output_licenses: Mapping[str, str | None] = field(default_factory=dict)


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


@contextmanager
def open_candidate_pool(
    lake: Lake,
    categories: Iterable[str],
    *,
    seed: int,
    holdout_fraction: float,
    exclusion_tables: Sequence[str],
    groups: SourceGroups | None = None,
    strata: StratumColumn | None = None,
    row_filter: RowFilter | None = None,
    score_catalog: ScoreCatalog | None = None,
    license_rules: LicenseRules | None = None,
    keep_condition: str = "keep",
) -> Iterator[CandidatePool]:
    """Open the pool of all samples in the category tables that are neither held out nor excluded nor refused.

    A sample with a kept rewrite enters as that rewrite and not as itself.

    Args:
        lake: The lake.
        categories: Categories to read.
        seed: Seed of the order.
        holdout_fraction: Share of image groups that is held out for evaluation.
        exclusion_tables: Tables whose samples are excluded, such as `curation/duplicates`; of contamination those that
            its rules remove.
        groups: If given, only sources in it are read, and rewrites only of sources in group B. Tables keep rows of
            sources that have left the catalog or changed their group.
        strata: Column by whose values the candidates are divided; None for no strata.
        row_filter: Leaves out the rows for which it is false.
        score_catalog: What the filter may name besides columns of tables.
        license_rules: Leaves out the rows whose licences do not permit a use; None takes all.
        keep_condition: Which rows of `judged/*` are kept, in SQL: as they were judged, or by another rule.
    """
    scores = select_scores(row_filter, score_catalog or ScoreCatalog())
    with open_duckdb() as con:
        create_score_tables(con, lake, scores.foreign)
        con.execute("CREATE TABLE listed_ids (sample_id UUID)")
        for name in exclusion_tables:
            condition = "removed" if name == CONTAMINATION.name else None
            with stream_table(con, "listed", lake.get_table(name), ["sample_id"], condition):
                con.execute("INSERT INTO listed_ids SELECT sample_id::UUID FROM listed")
        con.execute("CREATE TABLE excluded AS SELECT DISTINCT sample_id FROM listed_ids")
        con.execute("CREATE TABLE used_sources (category VARCHAR, source VARCHAR, is_rewritten BOOLEAN)")
        used_sources = [
            (category, source, group == "B")
            for category, group_by_source in (groups or {}).items()
            for source, group in group_by_source.items()
        ]
        if used_sources:
            con.executemany("INSERT INTO used_sources VALUES (?, ?, ?)", used_sources)
        con.execute(
            """CREATE TABLE all_candidates (
                 category VARCHAR, kind VARCHAR, rank UUID, sample_id UUID, version_id UUID, rewrite_id UUID,
                 judged_id UUID, source VARCHAR, modality VARCHAR, license VARCHAR, stratum VARCHAR,
                 rewriter VARCHAR, failed BIGINT, undecided BIGINT, left_out VARCHAR)"""
        )
        con.execute("CREATE VIEW pool AS SELECT * EXCLUDE (left_out) FROM all_candidates WHERE left_out IS NULL")
        con.execute("CREATE TABLE kept_counts (category VARCHAR, kept BIGINT)")
        for category in categories:
            _create_kept_rewrites(con, lake, category, strata, scores, keep_condition, uses_all_sources=groups is None)
            holdout_limit = compute_holdout_limit(holdout_fraction)
            _insert_candidates(
                con, lake, category, seed, holdout_limit, strata, scores, uses_all_sources=groups is None
            )
        _apply_licenses(con, license_rules or LicenseRules())
        yield CandidatePool(con, seed, scores.clauses)


def _create_kept_rewrites(
    con: duckdb.DuckDBPyConnection,
    lake: Lake,
    category: str,
    strata: StratumColumn | None,
    scores: ScoreSelection,
    keep_condition: str,
    *,
    uses_all_sources: bool,
) -> None:
    """Create the table `kept_rewrites` of a category, with the version of the sample that each was made from.

    `nth` numbers the kept rewrites of a version, from 0. Unlike a rewrite's id it stays when a prompt changes.
    """
    judged_columns, judged_stratum = _build_stratum(strata, "judged", "judged")
    table = lake.get_table(f"judged/{category}")
    with stream_table(
        con,
        "judged",
        table,
        _join_columns(["judged_id", "rewrite_id", "source"], [*judged_columns, *scores.judged]),
        keep_condition,
    ):
        con.execute(
            f"""CREATE OR REPLACE TABLE kept AS
                SELECT judged_id::UUID AS judged_id, rewrite_id::UUID AS rewrite_id,
                       {_format_columns(_list_plain(scores), "judged")} {_format_values(scores.judged_values)}
                       {judged_stratum} AS stratum
                FROM judged WHERE $all OR source IN (
                  SELECT source FROM used_sources WHERE category = $category AND is_rewritten)""",  # noqa: S608 - of ours
            {"all": uses_all_sources, "category": category},
        )
    rewritten_columns, rewritten_stratum = _build_stratum(strata, "rewritten", "r", "k.stratum")
    table = lake.get_table(f"rewritten/{category}")
    columns = _join_columns(["rewrite_id", "version_id", "ordinal", "model"], [*rewritten_columns, *scores.rewritten])
    with stream_table(con, "rewritten", table, columns):
        con.execute(
            f"""CREATE OR REPLACE TABLE kept_rewrites AS
                SELECT * EXCLUDE (ordinal),
                       row_number() OVER (PARTITION BY version_id ORDER BY ordinal, rewrite_id) - 1 AS nth
                FROM (SELECT k.* EXCLUDE (stratum), r.version_id::UUID AS version_id, r.ordinal, r.model AS rewriter,
                             {_format_columns(scores.rewritten, "r", "rewritten")} {rewritten_stratum} AS stratum
                      FROM rewritten r JOIN kept k ON k.rewrite_id = r.rewrite_id::UUID)"""  # noqa: S608 - of ours
        )
    con.execute("INSERT INTO kept_counts SELECT $category, count(*) FROM kept", {"category": category})


def _build_stratum(
    strata: StratumColumn | None, table: str, alias: str, default: str = f"'{NO_STRATUM}'"
) -> tuple[list[str], str]:
    """Return the columns that the stratum needs from a table, and the stratum in SQL; the default without any."""
    if strata is None or strata.table != table:
        return [], default
    return [strata.name], strata.sql.replace("stratum_value", f'{alias}."{strata.name}"')


def _format_columns(names: Sequence[str], alias: str, table: str = "") -> str:
    """Return columns under the names that `ScoreSelection.expressions` has for them."""
    return " ".join(f'{alias}."{name}" AS "{table or alias}_{name}",' for name in names)


def _list_plain(scores: ScoreSelection) -> list[str]:
    """Return the columns of the judged table that are values themselves."""
    return [name for name in scores.judged if name not in ("verdicts", "panel")]


def _format_values(values: Mapping[str, str]) -> str:
    return " ".join(f'{value} AS "{name}",' for name, value in values.items())


def _join_columns(columns: list[str], further: list[str]) -> list[str]:
    return list(dict.fromkeys([*columns, *further]))


def _insert_candidates(
    con: duckdb.DuckDBPyConnection,
    lake: Lake,
    category: str,
    seed: int,
    holdout_limit: int,
    strata: StratumColumn | None,
    scores: ScoreSelection,
    *,
    uses_all_sources: bool,
) -> None:
    stratum_columns, stratum = _build_stratum(strata, "category", "s", f"coalesce(r.stratum, '{NO_STRATUM}')")
    columns = ["sample_id", "version_id", "source", "modality", "license", "holdout_hash"]
    table = lake.get_table(f"category/{category}")
    if scores.uses_scored:
        _create_scored(con, lake, category)
    values = "".join(f', {sql} AS "{name}"' for name, sql in scores.expressions.items())
    with stream_table(con, "samples", table, _join_columns(columns, [*stratum_columns, *scores.category])):
        # A rewrite of an older version of the sample answers a question that has changed since. Originals that are held
        # out or excluded are not kept: nobody asks why. The order follows from seed and sample alone: whatever comes or
        # goes around it, and whatever a new prompt makes of it, a sample stays where it was.
        # Items of benchmarks are in no category; here none gets through either.
        con.execute(
            f"""INSERT INTO all_candidates
                WITH candidates AS (
                  SELECT struct_pack(
                           category := $category, kind := if(r.rewrite_id IS NULL, 'original', 'rewritten'),
                           rank := md5(concat_ws('/', $seed, s.sample_id, coalesce(r.nth, 0)))::UUID,
                           sample_id := s.sample_id, version_id := s.version_id, rewrite_id := r.rewrite_id,
                           judged_id := r.judged_id, source := s.source, modality := s.modality,
                           license := s.license, stratum := {stratum}, rewriter := r.rewriter) AS candidate,
                         CASE WHEN s.holdout_hash < $holdout_limit THEN 'held_out'
                              WHEN e.sample_id IS NOT NULL THEN 'excluded' END AS reason {values}
                  FROM samples s
                  LEFT JOIN kept_rewrites r ON r.version_id = s.version_id::UUID
                  LEFT JOIN excluded e ON e.sample_id = s.sample_id::UUID
                  {_format_joins(scores)}
                  WHERE ($all OR s.source IN (SELECT source FROM used_sources WHERE category = $category))
                    AND NOT starts_with(s.source, $benchmark_prefix)
                    AND (reason IS NULL OR r.rewrite_id IS NOT NULL))
                SELECT candidate.*, {_format_bits(scores.clauses, "= false")} AS failed,
                       {_format_bits(scores.clauses, "IS NULL")} AS undecided,
                       coalesce(reason, if(failed <> 0, 'filtered', NULL))
                FROM candidates""",  # noqa: S608 - of ours, and clauses that were checked
            {
                "category": category,
                "seed": str(seed),
                "all": uses_all_sources,
                "holdout_limit": holdout_limit,
                "benchmark_prefix": BENCHMARK_PREFIX,
            },
        )


def _create_scored(con: duckdb.DuckDBPyConnection, lake: Lake, category: str) -> None:
    """Create the table `scored` of a category: scores of versions and rewrites."""
    table = lake.get_table(f"scored/{category}")
    with stream_table(con, "stream", table, ["rewrite_id", "version_id", "content", "relevance"]):
        con.execute(
            """CREATE OR REPLACE TABLE scored AS
               SELECT coalesce(rewrite_id, version_id)::UUID AS scored_id, min(content) AS content,
                      min(relevance) AS relevance
               FROM stream GROUP BY ALL"""
        )


def _format_joins(scores: ScoreSelection) -> str:
    """Return the joins with tables that only a filter needs."""
    joins = [f'LEFT JOIN "foreign_{name}" ON "foreign_{name}".sample_id = s.sample_id::UUID' for name in scores.foreign]
    if scores.uses_scored:
        joins.append("LEFT JOIN scored ON scored.scored_id = coalesce(r.rewrite_id, s.version_id::UUID)")
    return " ".join(joins)


def _format_bits(clauses: Sequence[Clause], test: str) -> str:
    """Return a number in SQL with a bit for each clause, set where it passes a test."""
    bits = [f"if({clause.sql} {test}, {1 << nth}, 0)::BIGINT" for nth, clause in enumerate(clauses)]
    return " | ".join(["0::BIGINT", *bits])


def _apply_licenses(con: duckdb.DuckDBPyConnection, rules: LicenseRules) -> None:
    """Note the output terms of rewriters, and leave out what the licences do not permit."""
    con.execute("CREATE TABLE licenses (license VARCHAR, is_permitted BOOLEAN)")
    con.execute("CREATE TABLE rewriters (rewriter VARCHAR, license VARCHAR, is_permitted BOOLEAN)")
    for (rewriter,) in con.execute(
        "SELECT DISTINCT rewriter FROM all_candidates WHERE rewriter IS NOT NULL"
    ).fetchall():
        terms = rules.output_licenses.get(rewriter)
        con.execute("INSERT INTO rewriters VALUES (?, ?, ?)", [rewriter, terms, permits(terms, rules.use)])
    if rules.use == "all":
        return
    for (license,) in con.execute("SELECT DISTINCT coalesce(license, '') FROM all_candidates").fetchall():
        con.execute("INSERT INTO licenses VALUES (?, ?)", [license, permits(license or None, rules.use)])
    con.execute(
        """UPDATE all_candidates SET left_out = 'unlicensed'
           WHERE left_out IS DISTINCT FROM 'held_out' AND left_out IS DISTINCT FROM 'excluded'
             AND (coalesce(license, '') IN (SELECT license FROM licenses WHERE NOT is_permitted)
                  OR rewriter IN (SELECT rewriter FROM rewriters WHERE NOT is_permitted))"""
    )
