"""The samples that people call good: what lists of allowed hits may read."""

from __future__ import annotations

from mvl_assets.lake.durability.spill import open_duckdb, stream_table
from mvl_assets.lake.lake import Lake
from mvl_assets.lake.schemas.data_tables import LABELS


def read_good_samples(lake: Lake) -> dict[str, str]:
    """Return the samples whose pairs somebody calls good now, and nobody bad, with the names of those who do."""
    with open_duckdb() as con:
        columns = ["rewrite_id", "sample_id", "annotator", "label", "created_at", "label_id"]
        with stream_table(con, "stream", lake.get_table(LABELS.name), columns):
            rows = con.execute(
                """WITH newest AS (
                     SELECT sample_id, annotator, arg_max(coalesce(label, ''), (created_at, label_id)) AS label
                     FROM stream GROUP BY rewrite_id, sample_id, annotator)
                   SELECT sample_id, string_agg(DISTINCT annotator, ', ' ORDER BY annotator) FILTER (label = 'good')
                   FROM newest GROUP BY sample_id
                   HAVING count(*) FILTER (label = 'good') > 0 AND count(*) FILTER (label = 'bad') = 0"""
            ).fetchall()
    return dict(rows)
