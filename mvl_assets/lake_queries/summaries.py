"""Counts over the whole lake, for status pages and the summary of a run."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import duckdb
import pyarrow as pa

from mvl_assets.lake import sql
from mvl_assets.lake.lake import Lake
from mvl_assets.stages import EVALUATION, RAW


@dataclass
class CategorySummary:
    """Row counts of one category, and its judged pairs by drop reason."""

    category: str
    n_samples: int = 0
    n_rewritten: int = 0
    n_judged: int = 0
    n_kept: int = 0
    drop_reasons: Counter[str] = field(default_factory=Counter)


def summarize_categories(lake: Lake) -> list[CategorySummary]:
    """Return one summary per category table, ordered by name."""
    summaries = []
    for name in lake.list_tables("category"):
        category = name.split("/", 1)[1]
        summary = CategorySummary(category, n_samples=lake.get_table(name).count())
        summary.n_rewritten = lake.get_table(f"rewritten/{category}").count()
        for row in lake.get_table(f"judged/{category}").iter_rows(["keep", "drop_reason"]):
            summary.n_judged += 1
            summary.n_kept += row["keep"]
            if row["drop_reason"]:
                summary.drop_reasons[row["drop_reason"]] += 1
        summaries.append(summary)
    return summaries


def count_by_source(lake: Lake) -> tuple[Counter[str], Counter[str]]:
    """Count current samples (newest version, not withdrawn) and rejects of ingest, by source."""
    rejects = Counter(
        row["source"] for row in lake.get_table("rejects").iter_rows(["source"], sql.equals("stage", RAW.name))
    )
    table = lake.get_table("samples")
    # Checked first: an error inside a stream that DuckDB reads would be reported as DuckDB's.
    if not table.exists():
        return Counter(), rejects
    columns = ["source", "sample_id", "revision", "withdrawn"]
    schema = pa.schema([table.schema.field(c) for c in columns])
    with duckdb.connect() as con:
        con.register("s", pa.RecordBatchReader.from_batches(schema, table.scan(columns, None, 65536)))
        source_counts = con.execute(
            """SELECT source, count(*) FILTER (NOT is_withdrawn)
               FROM (SELECT source, sample_id, arg_max(withdrawn, revision) AS is_withdrawn FROM s GROUP BY ALL)
               GROUP BY source"""
        ).fetchall()
    return Counter(dict(source_counts)), rejects


def count_rejects_by_stage(lake: Lake) -> Counter[str]:
    """Count the rejects by pipeline stage."""
    return Counter(row["stage"] for row in lake.get_table("rejects").iter_rows(["stage"]))


def compute_checkpoint_scores(lake: Lake) -> list[tuple[str, int, float, float | None, float]]:
    """Compute the scores of every evaluated checkpoint.

    Returns:
        For each checkpoint: name, number of questions, accuracy, accuracy with a grey image (None if not measured), and
        the accuracy of always giving a category's most frequent answer.
    """
    score_rows = []
    for name in lake.list_tables(EVALUATION.name):
        by_checkpoint: dict[str, list[dict]] = {}
        for row in lake.get_table(name).iter_rows(
            ["checkpoint", "correct", "blank_image_correct", "category", "reference"]
        ):
            by_checkpoint.setdefault(row["checkpoint"], []).append(row)
        for checkpoint, rows in by_checkpoint.items():
            blank_image_correct = [r["blank_image_correct"] for r in rows if r["blank_image_correct"] is not None]
            accuracy = sum(bool(r["correct"]) for r in rows) / len(rows)
            reference_counts = Counter((r["category"], r["reference"]) for r in rows)
            majority_counts: Counter[str] = Counter()
            for (category, _), n_references in reference_counts.items():
                majority_counts[category] = max(majority_counts[category], n_references)
            blank_accuracy = sum(blank_image_correct) / len(blank_image_correct) if blank_image_correct else None
            score_rows.append((checkpoint, len(rows), accuracy, blank_accuracy, majority_counts.total() / len(rows)))
    return score_rows
