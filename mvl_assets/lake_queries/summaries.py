"""Counts over the whole lake, for status pages and the summary of a run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

import pyarrow as pa

from mvl_assets.lake import sql
from mvl_assets.lake.durability.spill import open_duckdb, stream_table
from mvl_assets.lake.lake import Lake
from mvl_assets.lake.table_reader import TableReader
from mvl_assets.lake_queries.current_samples import CurrentSamples
from mvl_assets.stages import EVALUATION, RAW

BATCH_ROWS = 65_536


@dataclass
class CategorySummary:
    """Row counts of one category, its judged pairs by drop reason, and the rules that they were kept by."""

    category: str
    n_samples: int = 0
    n_rewritten: int = 0
    n_judged: int = 0
    n_kept: int = 0
    drop_reasons: Counter[str] = field(default_factory=Counter)
    keep_rules: frozenset[str] = frozenset()


def summarize_categories(lake: Lake) -> list[CategorySummary]:
    """Return one summary per category table, ordered by name."""
    summaries = []
    for name in lake.list_tables("category"):
        category = name.split("/", 1)[1]
        judged = lake.get_table(f"judged/{category}")
        drop_reasons = _count_values(judged, "drop_reason")
        summaries.append(
            CategorySummary(
                category,
                n_samples=lake.get_table(name).count(),
                n_rewritten=lake.get_table(f"rewritten/{category}").count(),
                n_judged=judged.count(),
                n_kept=judged.count("keep"),
                drop_reasons=Counter({reason: n for reason, n in drop_reasons.items() if reason}),
                keep_rules=frozenset(_count_values(judged, "keep_rule")),
            )
        )
    return summaries


def count_by_source(lake: Lake) -> tuple[Counter[str], Counter[str]]:
    """Count current samples (newest version, not withdrawn) and rejects of ingest, by source."""
    sources = lake.get_table("samples").list_partitions()
    sample_counts = Counter({source: CurrentSamples(lake, source).count() for source in sources})
    return sample_counts, _count_values(lake.get_table("rejects"), "source", sql.equals("stage", RAW.name))


def count_rejects_by_reason(lake: Lake) -> Counter[tuple[str, str]]:
    """Count the rejects by pipeline stage and error class."""
    counts: Counter[tuple[str, str]] = Counter()
    for batch in lake.get_table("rejects").scan(["stage", "error"], None, BATCH_ROWS):
        table = pa.Table.from_batches([batch])
        for group in table.group_by(["stage", "error"]).aggregate([([], "count_all")]).to_pylist():
            counts[group["stage"], group["error"]] += group["count_all"]
    return counts


def list_criteria(lake: Lake, categories: Iterable[str]) -> list[str]:
    """Return the criteria by which pairs of these categories were judged, sorted."""
    criteria: set[str] = set()
    for category in categories:
        with open_duckdb() as con, stream_table(con, "judged", lake.get_table(f"judged/{category}"), ["verdicts"]):
            rows = con.sql("SELECT DISTINCT unnest(verdicts).criterion FROM judged").fetchall()
        criteria.update(criterion for (criterion,) in rows)
    return sorted(criteria)


def _count_values(table: TableReader, column: str, filter: str | None = None) -> Counter[str]:
    counts: Counter[str] = Counter()
    for batch in table.scan([column], filter, BATCH_ROWS):
        for item in batch.column(0).value_counts().to_pylist():
            counts[item["values"]] += item["counts"]
    return counts


def compute_checkpoint_scores(lake: Lake) -> list[tuple[str, str, int, float, float | None, float]]:
    """Compute the scores of every evaluated checkpoint.

    Returns:
        For each checkpoint: name, version, number of questions, accuracy, accuracy with a grey image (None if not
        measured), and the accuracy of always giving a category's most frequent answer.
    """
    score_rows = []
    for name in lake.list_tables(EVALUATION.name):
        by_checkpoint: dict[tuple[str, str], list[dict]] = {}
        for row in lake.get_table(name).iter_rows(
            ["checkpoint", "checkpoint_version", "correct", "blank_image_correct", "category", "reference"]
        ):
            by_checkpoint.setdefault((row["checkpoint"], row["checkpoint_version"]), []).append(row)
        for names, rows in by_checkpoint.items():
            blank_image_correct = [r["blank_image_correct"] for r in rows if r["blank_image_correct"] is not None]
            accuracy = sum(bool(r["correct"]) for r in rows) / len(rows)
            reference_counts = Counter((r["category"], r["reference"]) for r in rows)
            majority_counts: Counter[str] = Counter()
            for (category, _), n_references in reference_counts.items():
                majority_counts[category] = max(majority_counts[category], n_references)
            blank_accuracy = sum(blank_image_correct) / len(blank_image_correct) if blank_image_correct else None
            score_rows.append((*names, len(rows), accuracy, blank_accuracy, majority_counts.total() / len(rows)))
    return score_rows
