"""Current samples that evaluation asks, too: copies of held-out samples, and matches with items of benchmarks."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from mvl_assets.common.id_array import format_ids
from mvl_assets.lake import sql
from mvl_assets.lake.durability.spill import open_duckdb, stream_table
from mvl_assets.lake.lake import Lake
from mvl_assets.lake_queries.benchmarks.search import MatchedBenchmark
from mvl_assets.lake_queries.current_samples import stream_current_samples

BATCH_ROWS = 4096


def iter_contaminated(
    lake: Lake, sources: Sequence[str], benchmark_sources: Collection[str], holdout_limit: int
) -> Iterator[dict[str, Any]]:
    """Yield `sample_id`, `source`, `kind`, `benchmark_item` and `item_source`, by source, then sample, then kind.

    Of several held-out samples that a hit could name, it names one of the last source.

    Args:
        lake: The lake.
        sources: The sources, in their order.
        benchmark_sources: Those of which every sample is a hit.
        holdout_limit: Samples with a smaller `holdout_hash` are held out.
    """
    if not benchmark_sources and holdout_limit <= 0:
        return
    with open_duckdb() as con:
        con.execute("CREATE TABLE sources (source VARCHAR, rank INTEGER)")
        con.executemany("INSERT INTO sources VALUES (?, ?)", [(slug, rank) for rank, slug in enumerate(sources)])
        con.execute(
            """CREATE TABLE hits
               (rank INTEGER, sample_id UUID, source VARCHAR, kind VARCHAR, item UUID, item_rank INTEGER)"""
        )
        if benchmark_sources:
            with stream_current_samples(
                con, lake, ["source", "sample_id"], sql.is_in("source", sorted(benchmark_sources))
            ):
                con.execute(
                    """INSERT INTO hits SELECT s.rank, c.sample_id, c.source, 'declared', NULL, NULL
                       FROM current_samples c JOIN sources s USING (source)"""
                )
        # Only the held-out samples are kept in the database, which are few; all others stream past them.
        columns = ["source", "sample_id", "similar_fingerprint", "image_ids"]
        with stream_current_samples(con, lake, columns, f"holdout_hash < {holdout_limit}"):
            con.execute(
                """CREATE TABLE held_out AS
                   SELECT c.similar_fingerprint::UUID AS fingerprint, c.image_ids,
                          {'rank': s.rank, 'sample_id': c.sample_id::UUID} AS place
                   FROM current_samples c JOIN sources s USING (source)"""
            )
        condition = f"holdout_hash >= {holdout_limit}"
        con.execute("CREATE TABLE words AS SELECT fingerprint, max(place) AS item FROM held_out GROUP BY ALL")
        if con.execute("SELECT 1 FROM words LIMIT 1").fetchall():
            with stream_current_samples(con, lake, ["source", "sample_id", "similar_fingerprint"], condition):
                con.execute(
                    """INSERT INTO hits
                       SELECT s.rank, c.sample_id, c.source, 'near_duplicate', w.item.sample_id, w.item.rank
                       FROM current_samples c JOIN words w ON w.fingerprint = c.similar_fingerprint::UUID
                       JOIN sources s USING (source)"""
                )
        con.execute(
            """CREATE TABLE images AS SELECT image_id, max(place) AS item
               FROM (SELECT unnest(image_ids)::UUID AS image_id, place FROM held_out) GROUP BY ALL"""
        )
        if con.execute("SELECT 1 FROM images LIMIT 1").fetchall():
            with stream_current_samples(con, lake, ["source", "sample_id", "image_ids"], condition):
                con.execute(
                    """INSERT INTO hits
                       SELECT s.rank, c.sample_id, c.source, 'shared_image',
                              arg_min(i.item.sample_id, c.nth), arg_min(i.item.rank, c.nth)
                       FROM (SELECT source, sample_id, unnest(image_ids)::UUID AS image_id,
                                    generate_subscripts(image_ids, 1) AS nth FROM current_samples) c
                       JOIN images i USING (image_id) JOIN sources s USING (source)
                       GROUP BY s.rank, c.sample_id, c.source"""
                )
        reader = con.sql(
            """SELECT h.sample_id, h.source, h.kind, h.item AS benchmark_item, s.source AS item_source
               FROM hits h LEFT JOIN sources s ON s.rank = h.item_rank ORDER BY h.rank, h.sample_id, h.kind"""
        ).to_arrow_reader(BATCH_ROWS)
        for batch in reader:
            yield from format_ids(batch).to_pylist()


@dataclass(frozen=True, slots=True)
class MatchThresholds:
    """When a match is a hit; see `ContaminationRules`."""

    min_correlation: float
    max_block_difference: float
    max_lost_edges: float
    min_question_containment: float
    min_question_overlap: float
    min_tokens: int
    min_ngram_overlap: float
    short_tokens: int
    min_answer_overlap: float
    min_ngram_overlap_without_answer: float


MATCH_KINDS = ("same_image_same_question", "same_question", "same_image")
"""The kinds of hits on items, the strongest first: of one sample and one item only that one counts."""

_KIND = """
    CASE WHEN evidence = 'text' THEN
           if(n_tokens >= $min_tokens AND ngram_overlap >= greatest(
                $min_ngram_overlap + (1 - $min_ngram_overlap) * greatest(0, $short_tokens - n_tokens)
                                       / greatest(1, $short_tokens - $min_tokens),
                if(answer_overlap >= $min_answer_overlap, 0, $min_ngram_overlap_without_answer)) - 1e-9, 2, NULL)
         WHEN correlation IS NULL OR (correlation >= $min_correlation AND
                block_difference <= $max_block_difference AND lost_edges <= $max_lost_edges) THEN
           if(question_containment >= $min_question_containment AND question_overlap >= $min_question_overlap, 1, 3)
    END"""
"""Number of a stored match's kind, from 1; null for no hit."""


def iter_item_hits(
    lake: Lake, sources: Sequence[str], benchmarks: Sequence[MatchedBenchmark], thresholds: MatchThresholds
) -> Iterator[dict[str, Any]]:
    """Yield the hits of current samples on items of benchmarks, with all scores, by source, then sample, then item.

    Args:
        lake: The lake.
        sources: The training sources, in their order.
        benchmarks: The benchmarks; matches with other items of them do not count.
        thresholds: Which stored matches are hits.
    """
    if not benchmarks:
        return
    with open_duckdb() as con:
        con.execute("CREATE TABLE sources (source VARCHAR, rank INTEGER)")
        con.executemany("INSERT INTO sources VALUES (?, ?)", [(slug, rank) for rank, slug in enumerate(sources)])
        con.execute("CREATE TABLE states (items_state VARCHAR)")
        con.executemany("INSERT INTO states VALUES (?)", [(benchmark.items_state,) for benchmark in benchmarks])
        matches = lake.get_table("curation/benchmark_matches")
        columns = [name for name in matches.spec.columns.names if name not in ("match_id", "run_id")]
        with stream_table(con, "match_rows", matches, columns):
            con.execute(
                f"""CREATE TABLE matches AS
                    SELECT m.* EXCLUDE (items_state, evidence, source) REPLACE (
                             m.fingerprint::UUID AS fingerprint, m.item_id::UUID AS item_id,
                             m.image_id::UUID AS image_id, m.item_image_id::UUID AS item_image_id),
                           m.source AS item_source, {_KIND} AS strength
                    FROM match_rows m JOIN states USING (items_state) WHERE strength IS NOT NULL
                    QUALIFY row_number() OVER (PARTITION BY m.fingerprint, m.item_id ORDER BY strength) = 1""",  # noqa: S608
                asdict(thresholds),
            )
        if not con.execute("SELECT 1 FROM matches LIMIT 1").fetchall():
            return
        con.execute("CREATE TABLE kinds (strength INTEGER, kind VARCHAR)")
        con.executemany("INSERT INTO kinds VALUES (?, ?)", list(enumerate(MATCH_KINDS, 1)))
        with stream_current_samples(con, lake, ["source", "sample_id", "fingerprint"]):
            reader = con.sql(
                """SELECT c.sample_id::UUID AS sample_id, c.source, m.* EXCLUDE (fingerprint, strength)
                            RENAME (item_id AS benchmark_item), k.kind
                   FROM current_samples c JOIN sources s USING (source)
                   JOIN matches m ON m.fingerprint = c.fingerprint::UUID JOIN kinds k USING (strength)
                   ORDER BY s.rank, c.sample_id::UUID, m.item_id"""
            ).to_arrow_reader(BATCH_ROWS)
            for batch in reader:
                yield from format_ids(batch).to_pylist()


@dataclass(frozen=True, slots=True)
class HitCounts:
    """How much is hit.

    Attributes:
        sources: Rows of a source with a hit, by source and kind.
        benchmarks: Items that are hit, by benchmark and kind; rows where a whole source is the benchmark.
        n_rows: Rows with a hit.
        n_of_concern: Rows with a hit of a kind of concern that no reason allows.
        n_removed: Rows that mixtures leave out.
        n_allowed: Hits that a reason of the profile allows.
    """

    sources: dict[tuple[str, str], int]
    benchmarks: dict[tuple[str, str], int]
    n_rows: int
    n_of_concern: int
    n_removed: int
    n_allowed: int


def count_hits(lake: Lake, kinds_of_concern: Sequence[str]) -> HitCounts:
    """Count the rows and items of `curation/contamination`."""
    columns = ["sample_id", "source", "benchmark", "benchmark_item", "kind", "removed", "allowed"]
    with open_duckdb() as con:
        with stream_table(con, "hit_rows", lake.get_table("curation/contamination"), columns):
            con.execute(
                """CREATE TABLE hits AS SELECT sample_id::UUID AS sample_id, source, benchmark,
                     coalesce(benchmark_item, sample_id)::UUID AS item, kind, removed, allowed IS NOT NULL AS is_allowed
                   FROM hit_rows"""
            )
        by_source, by_benchmark = (
            {
                (name, kind): n
                for name, kind, n in con.execute(
                    f"SELECT {column}, kind, count(DISTINCT {ids}) FROM hits GROUP BY ALL ORDER BY ALL"  # noqa: S608
                ).fetchall()
            }
            for column, ids in (("source", "sample_id"), ("benchmark", "item"))
        )
        ((n_rows, n_of_concern, n_removed, n_allowed),) = con.execute(
            """SELECT count(DISTINCT sample_id),
                      count(DISTINCT sample_id) FILTER (NOT is_allowed AND list_contains($kinds, kind)),
                      count(DISTINCT sample_id) FILTER (removed), count(*) FILTER (is_allowed) FROM hits""",
            {"kinds": list(kinds_of_concern)},
        ).fetchall()
    return HitCounts(by_source, by_benchmark, n_rows, n_of_concern, n_removed, n_allowed)
