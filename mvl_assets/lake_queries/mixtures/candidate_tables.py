"""Fills the candidate pool of a mixture from the tables of the categories, in DuckDB."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from mvl_assets.common.benchmark_slugs import BENCHMARK_PREFIX
from mvl_assets.common.licenses import Use, permits
from mvl_assets.lake.durability.spill import open_duckdb, stream_table
from mvl_assets.lake.lake import Lake
from mvl_assets.lake.schemas.data_tables import CONTAMINATION
from mvl_assets.lake_queries.foreign_scores import create_score_tables
from mvl_assets.lake_queries.holdout import compute_holdout_limit
from mvl_assets.lake_queries.mixtures.candidates import NO_STRATUM, CandidatePool
from mvl_assets.lake_queries.mixtures.row_filter import Clause, RowFilter
from mvl_assets.lake_queries.mixtures.score_columns import ScoreCatalog, ScoreSelection, select_scores

if TYPE_CHECKING:
    import duckdb

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
