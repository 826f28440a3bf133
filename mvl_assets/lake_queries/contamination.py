"""Current samples that show what held-out samples show: their words with similar images, or one of their images."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import Any

from mvl_assets.common.id_array import format_ids
from mvl_assets.lake import sql
from mvl_assets.lake.durability.spill import open_duckdb
from mvl_assets.lake.lake import Lake
from mvl_assets.lake_queries.current_samples import stream_current_samples

BATCH_ROWS = 4096


def iter_contaminated(
    lake: Lake, sources: Sequence[str], benchmark_sources: Collection[str], holdout_limit: int
) -> Iterator[dict[str, Any]]:
    """Yield `sample_id`, `source`, `kind` and `benchmark_item` of every hit, by source, then sample, then kind.

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
        con.execute("CREATE TABLE hits (rank INTEGER, sample_id UUID, source VARCHAR, kind VARCHAR, item UUID)")
        if benchmark_sources:
            with stream_current_samples(
                con, lake, ["source", "sample_id"], sql.is_in("source", sorted(benchmark_sources))
            ):
                con.execute(
                    """INSERT INTO hits SELECT s.rank, c.sample_id, c.source, 'is_benchmark', NULL
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
        con.execute("CREATE TABLE words AS SELECT fingerprint, max(place).sample_id AS item FROM held_out GROUP BY ALL")
        if con.execute("SELECT 1 FROM words LIMIT 1").fetchall():
            with stream_current_samples(con, lake, ["source", "sample_id", "similar_fingerprint"], condition):
                con.execute(
                    """INSERT INTO hits SELECT s.rank, c.sample_id, c.source, 'near_duplicate', w.item
                       FROM current_samples c JOIN words w ON w.fingerprint = c.similar_fingerprint::UUID
                       JOIN sources s USING (source)"""
                )
        con.execute(
            """CREATE TABLE images AS SELECT image_id, max(place).sample_id AS item
               FROM (SELECT unnest(image_ids)::UUID AS image_id, place FROM held_out) GROUP BY ALL"""
        )
        if con.execute("SELECT 1 FROM images LIMIT 1").fetchall():
            with stream_current_samples(con, lake, ["source", "sample_id", "image_ids"], condition):
                con.execute(
                    """INSERT INTO hits SELECT s.rank, c.sample_id, c.source, 'shared_image', arg_min(i.item, c.nth)
                       FROM (SELECT source, sample_id, unnest(image_ids)::UUID AS image_id,
                                    generate_subscripts(image_ids, 1) AS nth FROM current_samples) c
                       JOIN images i USING (image_id) JOIN sources s USING (source)
                       GROUP BY s.rank, c.sample_id, c.source"""
                )
        reader = con.sql(
            "SELECT sample_id, source, kind, item AS benchmark_item FROM hits ORDER BY rank, sample_id, kind"
        ).to_arrow_reader(BATCH_ROWS)
        for batch in reader:
            yield from format_ids(batch).to_pylist()
